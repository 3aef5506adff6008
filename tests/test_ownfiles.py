"""Where the runtime's own files must not lie: the rule over facts, and the facts of real folders."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mhnos_runtime import ownfiles
from mhnos_runtime.ownfiles import Item, Permissions, ProcessUser, Root, Step, Trust, find_exposed

ITEM = Item("state_dir", "/s/state", "put it elsewhere")
ROOT, USER, OTHER = 0, 1000, 2000
WHOM = ProcessUser(USER, (USER,))
DIRECTORY, FILE, LINK = stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK
#: Step.folder, Step.own: (uid, gid, mode)
Facts = tuple[int, int, int]


def step(path: str, folder: Facts, own: Facts | None, acl: bool = False) -> Step:
    return Step(
        path, ("8:1", path), Permissions(*folder, acl), None if own is None else Permissions(*own, acl)
    )


def exposed(*steps: Step, root: str = "/s", theirs: bool = False, whom: ProcessUser = WHOM) -> str:
    found = find_exposed([(ITEM, steps)], [Root(root, ("8:1", root), root, theirs)], whom)
    return found.step if found else ""


CLOSED = (ROOT, ROOT, DIRECTORY | 0o755)
STICKY = (ROOT, ROOT, DIRECTORY | 0o1777)
ROOTS_FILE = (ROOT, ROOT, FILE | 0o644)


@pytest.mark.parametrize(
    ("folder", "own", "expected"),
    [
        (CLOSED, ROOTS_FILE, False),
        (CLOSED, (ROOT, ROOT, FILE | 0o646), True),
        (CLOSED, (ROOT, USER, FILE | 0o664), True),
        (CLOSED, (ROOT, OTHER, FILE | 0o664), False),
        (CLOSED, (USER, USER, FILE | 0o400), True),  # its owner can change the mode
        (CLOSED, (ROOT, ROOT, LINK | 0o777), False),  # the mode of a link means nothing
        (CLOSED, None, False),
        ((USER, USER, DIRECTORY | 0o555), ROOTS_FILE, True),  # renamed away, another put there
        ((ROOT, USER, DIRECTORY | 0o775), ROOTS_FILE, True),
        ((ROOT, ROOT, DIRECTORY | 0o777), ROOTS_FILE, True),
        ((ROOT, ROOT, DIRECTORY | 0o777), None, True),  # made there
        (STICKY, ROOTS_FILE, False),
        (STICKY, (OTHER, OTHER, FILE | 0o644), False),
        (STICKY, (USER, USER, FILE | 0o644), True),
        (STICKY, None, True),
        ((USER, ROOT, DIRECTORY | 0o1755), ROOTS_FILE, True),
    ],
)
def test_owners_and_modes(folder: Facts, own: Facts | None, expected: bool) -> None:
    assert bool(exposed(step("/s/x", folder, own))) is expected
    # Neither matters in the workspace, and nothing does outside of where processes may write.
    assert exposed(step("/s/x", folder, own), theirs=True)
    assert not exposed(step("/elsewhere/x", folder, own))
    assert not exposed(step("/s2/x", folder, own))


def test_a_list_of_access_counts_by_its_mask() -> None:
    assert exposed(step("/s/x", CLOSED, (ROOT, OTHER, FILE | 0o660), acl=True))
    assert not exposed(step("/s/x", CLOSED, (ROOT, OTHER, FILE | 0o640), acl=True))


def test_a_writable_folder_above_is_enough() -> None:
    """One can rename it, and put another in its place."""
    way = [step("/s/a", CLOSED, (USER, USER, DIRECTORY | 0o755)), step("/s/a/b", CLOSED, CLOSED)]
    assert not exposed(*way)
    way[1] = step("/s/a/b", (USER, USER, DIRECTORY | 0o755), CLOSED)
    assert exposed(*way, step("/s/a/b/c", CLOSED, ROOTS_FILE)) == "/s/a/b"


def test_the_folder_in_which_they_may_write_is_not_theirs_to_move() -> None:
    """What is above it they cannot write, whatever modes say."""
    above = (USER, USER, DIRECTORY | 0o777)
    assert not exposed(step("/s", above, CLOSED), step("/s/x", CLOSED, ROOTS_FILE))
    assert exposed(step("/s", above, CLOSED), theirs=True)
    assert exposed(step("/s", CLOSED, above))


def test_sticky_folders_above_keep_what_is_root_s() -> None:
    """/tmp can be written by all, and what root has there by nobody."""
    assert not exposed(step("/s/tmp", CLOSED, STICKY), step("/s/tmp/x", STICKY, ROOTS_FILE))


def test_a_mount_of_the_same_folder_elsewhere() -> None:
    there = Step("/opt/venv", ("8:1", "/home/a/work/.venv"), Permissions(*CLOSED), Permissions(*CLOSED))
    work = Root("/work", ("8:1", "/home/a/work"), "workspace /work", theirs=True)
    found = find_exposed([(ITEM, [there])], [work], WHOM)
    assert found is not None
    assert str(found) == "state_dir /s/state lies in workspace /work by /opt/venv: processes could change it"
    other = Root("/work", ("8:2", "/home/a/work"), "workspace /work", theirs=True)
    assert find_exposed([(ITEM, [there])], [other], WHOM) is None


# --- real folders


@pytest.fixture
def work(tmp_path: Path) -> Path:
    for name in ("work", "safe"):
        (tmp_path / name).mkdir()
    return tmp_path / "work"


def check(workspace: Path, *paths: Path) -> str:
    items = tuple(Item("file", str(path), "") for path in paths)
    whom = ProcessUser(os.geteuid(), (os.getegid(),))
    trust = Trust(((str(workspace), "workspace", True),), whom, items, with_code=False)
    found = Trust.from_json(trust.to_json()).check()
    return found.step if found else ""


def test_links_are_followed_on_both_sides(work: Path, tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    (work / "inside").mkdir()
    (safe / "file").touch()
    assert check(work, safe / "file") == ""
    assert check(work, work / "inside" / "missing")
    # The name is outside, the folder inside; also one that is not there yet.
    (safe / "in").symlink_to(work / "inside")
    assert check(work, safe / "in" / "missing" / "deeper").startswith(str(work))
    # The name is inside, the folder outside: the link can be replaced.
    (work / "out").symlink_to("../safe")
    assert check(work, work / "out" / "file") == str(work / "out")
    # The workspace itself: what is put there is found there.
    assert check(work, work) == str(work)
    # A link outside to a link inside to a file outside.
    (safe / "round").symlink_to(work / "out" / "file")
    assert check(work, safe / "round") == str(work / "out")
    # The workspace by a link.
    (tmp_path / "link").symlink_to("work")
    assert check(tmp_path / "link", work / "inside")
    assert check(tmp_path / "link", safe / "file") == ""
    # Upwards, which is where the folder is that a link leads to, and in a circle.
    assert check(work, work / ".." / "safe" / "file") == ""
    assert check(work, work / "inside" / ".." / ".." / "safe" / "file") == str(work / "inside")
    assert check(work, safe / "in" / ".." / "file").startswith(str(work))
    (safe / "circle").symlink_to("circle")
    assert check(work, safe / "circle") == ""
    (work / "dots").symlink_to("inside/../../safe")
    assert check(work, work / "dots" / "file") == str(work / "dots")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_bind_mounts_are_seen_on_both_sides(work: Path, tmp_path: Path) -> None:
    (work / "venv").mkdir()
    (tmp_path / "mounted").mkdir()
    (tmp_path / "bound").mkdir()
    program = (
        "import sys; from pathlib import Path; from tests.test_ownfiles import check;"
        "print([bool(check(Path(sys.argv[1]), Path(p))) for p in sys.argv[2:]])"
    )
    mounts = (
        'mount --bind "$1/work/venv" "$1/mounted" && mount --bind "$1/work" "$1/bound" && shift && exec "$@"'
    )
    command = ["unshare", "--mount", "sh", "-c", mounts, "sh", str(tmp_path), sys.executable, "-c", program]

    def seen(workspace: Path, *paths: Path) -> str:
        done = subprocess.run([*command, workspace, *paths], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert seen(work, tmp_path / "mounted" / "x", tmp_path / "safe") == "[True, False]"
    assert seen(tmp_path / "bound", work / "venv", tmp_path / "safe") == "[True, False]"


def test_the_code_of_this_interpreter() -> None:
    found = {(item.what, item.path) for item in ownfiles.code()}
    assert ("interpreter", sys.executable) in found
    assert ("package", str(Path(ownfiles.__file__).parent)) in found
    assert {path for what, path in found if what == "interpreter's folder"} == {sys.prefix, sys.base_prefix}
    assert set(map(os.path.abspath, sys.path)) <= {
        path for what, path in found if what == "folder of modules"
    }


def test_packages_that_are_installed_by_reference(tmp_path: Path) -> None:
    """Their finders name folders that are not on sys.path."""
    info = tmp_path / "site" / "other-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: other\nVersion: 1\n")
    origin = {"url": f"file://{tmp_path}/my%20source", "dir_info": {"editable": True}}
    (info / "direct_url.json").write_text(json.dumps(origin))
    program = "from mhnos_runtime import ownfiles; print([item.path for item in ownfiles.code()])"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True
    )
    assert f"{tmp_path}/my source" in done.stdout
    assert f"{tmp_path}/site" in done.stdout


def code_of(*, cwd: Path | None = None, **variables: str) -> set[tuple[str, str]]:
    """(what, path) of what an interpreter with these variables executes."""
    program = (
        "import json; from mhnos_runtime import ownfiles;"
        "print(json.dumps([(item.what, item.path) for item in ownfiles.code()]))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return {(what, path) for what, path in json.loads(done.stdout)}


def test_folders_that_a_pth_file_names(tmp_path: Path) -> None:
    """The next start adds those that are there by then."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "more.pth").write_text("# none\nimport os\n\n/planted/missing \nbeside/missing\n")
    found = {path for _what, path in code_of(PYTHONPATH=str(site))}
    assert {"/planted/missing", f"{site}/beside/missing"} <= found
    assert not [path for path in found if "import" in path or "#" in path]


def test_libraries_and_compiled_modules_that_variables_name(tmp_path: Path) -> None:
    """What the dynamic linker and Python's import system would take from there, there or not."""
    found = code_of(
        cwd=tmp_path,
        LD_LIBRARY_PATH="/planted/lib::relative",
        LD_PRELOAD="libmissing.so /planted/own.so",
        PYTHONPYCACHEPREFIX="/planted/cache",
    )
    assert ("LD_LIBRARY_PATH", "/planted/lib") in found
    assert {path.rstrip("/") for what, path in found if what == "LD_LIBRARY_PATH"} == {
        *("/planted/lib", str(tmp_path), f"{tmp_path}/relative")
    }
    assert [path for what, path in found if what == "LD_PRELOAD"] == ["/planted/own.so"]
    assert ("PYTHONPYCACHEPREFIX", "/planted/cache") in found


@pytest.mark.parametrize("kept", ["other.py", "other-1.dist-info/METADATA"])
def test_a_module_that_is_linked_into_the_workspace(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """As uv does by default, from one cache; a process may have removed the rest."""
    site = tmp_path / "safe" / "site"
    info = site / "other-1.dist-info"
    info.mkdir(parents=True)
    (site / "other.py").write_text("x = 1\n")
    (info / "METADATA").write_text("Name: other\nVersion: 1\n")
    (info / "RECORD").write_text("other.py,,\nother-1.dist-info/METADATA,,\nother-1.dist-info/RECORD,,\n")
    monkeypatch.syspath_prepend(site)
    whom = ProcessUser(os.geteuid(), (os.getegid(),))
    trust = Trust(((str(work), f"workspace {work}", True),), whom)
    assert trust.check() is None
    cache = tmp_path / "cache"
    cache.mkdir()
    for number, file in enumerate((site / "other.py", info / "METADATA")):
        os.link(file, cache / str(number))
    assert trust.check() is None
    (work / "deep" / "venv").mkdir(parents=True)
    os.link(site / kept, work / "deep" / "venv" / "name")
    (work / "deep" / "circle").symlink_to("../deep")
    exposed = trust.check()
    assert exposed is not None
    assert str(exposed) == (
        f"module {site / kept} lies in workspace {work} by {work / 'deep' / 'venv' / 'name'}: "
        "processes could change it"
    )
    assert "UV_LINK_MODE=copy" in exposed.item.hint
    # Who cannot write to it does no harm there.
    stranger = ProcessUser(whom.uid + 1, (whom.groups[0] + 1,))
    assert Trust(trust.writable, stranger).check() is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"writable": [1], "whom": {}, "items": []}', "null"])
def test_what_is_no_question(text: str) -> None:
    with pytest.raises((ValueError, LookupError, TypeError)):
        Trust.from_json(text)
