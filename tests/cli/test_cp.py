"""`cp` between this machine and the workspace, as somebody types it who knows cp and docker, against a real
runtime: what goes where, and what is left after an interruption."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import tarfile
from pathlib import Path

import pytest

from tests.cli.console import WAIT_S, Console
from tests.cli.desk import Desk

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

Env = dict[str, str]
MTIME_NS = 1_700_000_000_123_000_000
LARGE_BYTES = 300 * 1024 * 1024


def here(desk: Desk, name: str, content: bytes | None = None, mode: int = 0o640) -> Path:
    """A file in the shell's folder."""
    assert desk.here is not None
    path = desk.here / name
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        os.utime(path, ns=(MTIME_NS, MTIME_NS))
    return path


def tree(folder: Path) -> dict[str, bytes | None]:
    """What is in a folder; None is a directory."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


# What goes where


async def test_a_file_goes_in_and_out_with_mode_and_time(bench: Desk) -> None:
    here(bench, "a b", b"content\0\xff", 0o750)
    assert bench.type("mr cp 'a b' ':/new/x y'") == (0, "", "")
    there = bench.folder / "new/x y"
    assert there.read_bytes() == b"content\0\xff"
    assert (there.stat().st_mode & 0o777, there.stat().st_mtime_ns) == (0o750, MTIME_NS)
    assert bench.type("mr cp ':new/x y' back") == (0, "", "")
    status = here(bench, "back").stat()
    assert (status.st_mode & 0o777, status.st_mtime_ns) == (0o750, MTIME_NS)
    assert here(bench, "back").read_bytes() == b"content\0\xff"


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("cp a :/x", "x"),
        ("cp a :x", "x"),
        ("cp a :", "a"),
        ("cp a :/", "a"),
        ("cp a :/dir", "dir/a"),
        ("cp a :/dir/", "dir/a"),
        ("cp ./a :/dir/b", "dir/b"),
        ("cp -rfap a :/dir/.", "dir/a"),
        ("cp a /dir :/dir", None),
        ("cp a :/new/deep/", "new/deep/a"),
        ("cp :/dir/x :/nosuch/", None),
        ("cp nosuch :/x", None),
    ],
)
async def test_where_a_file_goes(bench: Desk, line: str, made: str | None) -> None:
    here(bench, "a", b"x")
    (bench.folder / "dir").mkdir()
    code, _, err = bench.type(f"mr {line}")
    if made is not None:
        assert (code, err) == (0, "")
    else:
        assert (code, err.count("No such")) == (1, 1)
    found = {name for name, content in tree(bench.folder).items() if content is not None}
    assert made in found or (made is None and found <= {"dir/a"})


@pytest.mark.parametrize(
    ("line", "made"),
    [
        ("cp :/a x", "x"),
        ("cp :a .", "a"),
        ("cp :/a dir", "dir/a"),
        ("cp :/a dir/", "dir/a"),
        ("cp :/dir/../a dir/b", "dir/b"),
        ("cp :/a nosuch/", None),
        ("cp :/a nosuch/x", None),
        ("cp :/nosuch x", None),
    ],
)
async def test_where_a_file_comes_to(bench: Desk, line: str, made: str | None) -> None:
    bench.write("a", "x")
    (bench.folder / "dir").mkdir()
    here(bench, "dir").mkdir()
    code, _, err = bench.type(f"mr {line}")
    if made is not None:
        assert (code, err, here(bench, made).read_bytes()) == (0, "", b"x")
    else:
        assert (code, "No such" in err) == (1, True), err


@pytest.mark.parametrize(
    ("into", "made"), [(":/new", "new"), (":/dir", "dir/t"), (":/dir/", "dir/t"), (":/new/", "new")]
)
async def test_where_a_directory_goes(bench: Desk, into: str, made: str) -> None:
    (bench.folder / "dir").mkdir()
    for name in ("t/a", "t/deep/er/b", "t/a b\nc"):
        here(bench, name, name.encode())
    here(bench, "t/empty").mkdir()
    here(bench, "t/link").symlink_to("a")
    here(bench, "t/deep").chmod(0o750)
    assert bench.type(f"mr cp t {into}") == (0, "", "")
    assert tree(bench.folder / made) == tree(here(bench, "t"))
    assert os.readlink(bench.folder / made / "link") == "a"
    assert (bench.folder / made / "deep").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("source", "into", "made"),
    [
        (":/t", "new", "new"),
        (":/t", "dir", "dir/t"),
        (":t/", "dir/", "dir/t"),
        (":/t/.", "dir", "dir"),
        (":/", "new", "new/."),
    ],
)
async def test_where_a_directory_comes_to(bench: Desk, source: str, into: str, made: str) -> None:
    here(bench, "dir").mkdir()
    for name in ("t/a", "t/deep/er/b"):
        bench.write(name, name)
    (bench.folder / "t/link").symlink_to("a")
    assert bench.type(f"mr cp {source} {into}") == (0, "", "")
    wanted = bench.folder if source == ":/" else bench.folder / "t"
    assert tree(here(bench, made)) == tree(wanted)


async def test_what_is_excluded_is_not_copied(bench: Desk) -> None:
    for name in ("t/a.log", "t/keep.log", "t/node_modules/x/y", "t/src/b.log", "t/src/c"):
        here(bench, name, b"x")
        bench.write(name, "x")
    lines = "--exclude '*.log' --exclude '!keep.log' --exclude node_modules/"
    wanted = {"keep.log": b"x", "src": None, "src/c": b"x"}
    assert bench.type(f"mr cp {lines} t :/in") == (0, "", "")
    assert tree(bench.folder / "in") == wanted
    assert bench.type(f"mr cp {lines} :/t out") == (0, "", "")
    assert tree(here(bench, "out")) == wanted
    assert bench.type(f"mr cp {lines} :/t - | tar t").out.split() == ["keep.log", "src/", "src/c"]
    for words in (":/t :/other", "- :/other/"):
        code, _, err = bench.type(f"mr cp {lines} {words} < /dev/null")
        assert (code, "--exclude is for directories" in err) == (2, True)


async def test_several_go_into_a_directory_and_one_that_fails_stops_none(bench: Desk) -> None:
    here(bench, "a", b"a")
    here(bench, "d/b", b"b")
    code, _, err = bench.type("mr cp a d :/nosuch")
    assert (code, "No such directory: :/nosuch" in err) == (1, True)
    (bench.folder / "dir").mkdir()
    code, _, err = bench.type("mr cp a nosuch d :dir")
    assert (code, err.splitlines()[0]) == (1, "mhnos-runtime: No such file or directory: nosuch")
    assert "a path of the workspace has a colon before it: :/nosuch" in err
    assert tree(bench.folder / "dir") == {"a": b"a", "d": None, "d/b": b"b"}
    assert bench.type("mr cp :dir/a :dir/d . && ls d").out == "b\n"


async def test_a_directory_and_a_file_do_not_replace_each_other(bench: Desk) -> None:
    here(bench, "d/b", b"b")
    here(bench, "f", b"f")
    bench.write("d", "a file")
    bench.write("f/x", "in a directory")
    assert bench.type("mr cp d :/d").code == 1
    assert bench.type("mr cp d :/").code == 1
    assert bench.type("mr cp -r :f ./f").code == 1
    assert bench.type("mr cp f :/").code == 1
    assert (bench.folder / "d").read_text() == "a file"
    assert here(bench, "f").read_bytes() == b"f"


async def test_inside_the_workspace(bench: Desk) -> None:
    bench.write("a", "new")
    bench.write("b", "old")
    bench.write("t/x", "x")
    (bench.folder / "dir").mkdir()
    assert bench.type("mr cp :a :b && mr cp :a :t :dir").code == 0
    assert (bench.folder / "b").read_text() == "new"
    assert bench.type("mr trash restore b --to before").code == 0
    assert (bench.folder / "before").read_text() == "old"
    assert tree(bench.folder / "dir") == {"a": b"new", "t": None, "t/x": b"x"}
    code, _, err = bench.type("mr cp :t :dir")
    assert (code, "`mhnos-runtime rm -r :/dir/t`" in err) == (1, True)
    assert bench.type("mr cp -n :a :before").code == 0
    assert (bench.folder / "before").read_text() == "old"
    for words in (":a :a", ":t :", ":t/. :t", ":t :dir/../"):  # nobody is told to remove what he copies
        code, _, err = bench.type(f"mr cp {words}")
        assert (code, "are the same" in err, "rm" in err) == (1, True, False), words


async def test_several_go_into_a_directory_which_is_made_where_a_slash_says_that_it_is_one(
    bench: Desk,
) -> None:
    here(bench, "a", b"x")
    here(bench, "t/x", b"x")
    assert bench.type("mr cp a t :/new/deep/") == (0, "", "")
    assert tree(bench.folder / "new/deep") == {"a": b"x", "t": None, "t/x": b"x"}
    for words in ("a t :/other", "a :new :/other/", ":new/deep/a :new/deep/t other/", "a t :/new/deep/a/"):
        code, _, err = bench.type(f"mr cp {words}")
        assert (code, "directory" in err) == (1, True), words
    assert tree(bench.folder).keys() == {"new", "new/deep", "new/deep/a", "new/deep/t", "new/deep/t/x"}


async def test_links_are_copied_as_they_are_inside_the_workspace(bench: Desk) -> None:
    """One that leads nowhere was not found; one to a directory did not replace another one."""
    bench.write("dir/a", "a")
    for name, to in (("nowhere", "none"), ("link", "dir")):
        (bench.folder / name).symlink_to(to)
        assert bench.type(f"mr cp :{name} :copy && mr cp :{name} :dir").code == 0
        assert os.readlink(bench.folder / "copy") == os.readlink(bench.folder / "dir" / name) == to
    (bench.folder / "dir/link").unlink()
    assert bench.type("mr cp :link here && cat here/a") == (0, "a", ""), "out of it, what is behind it"
    assert bench.type("mr cp :nowhere .").code == 1


async def test_v_says_what_is_copied(bench: Desk) -> None:
    here(bench, "a b", b"x")
    here(bench, "t/x", b"x")
    assert bench.type("mr cp -v 'a b' t :/new/") == (0, "'a b' -> ':/new/a b'\nt -> :/new/t\n", "")
    assert bench.type("mr cp -nv 'a b' :/new") == (0, "", ""), "it was not copied"
    assert bench.type("mr cp -v ':/new/a b' -") == (0, "x", "':/new/a b' -> '-'\n")


async def test_n_replaces_no_file(bench: Desk) -> None:
    here(bench, "a", b"new")
    here(bench, "t/x", b"x")
    bench.write("a", "old")
    bench.write("t/x", "old")
    assert bench.type("mr cp -n a :/ && mr cat a") == (0, "old", "")
    assert bench.type("mr cp -n :/a . && cat a") == (0, "new", "")
    code, _, err = bench.type("mr cp -n t :/")
    assert (code, "-n is for files" in err) == (1, True)
    assert bench.type("mr cp -n t :/u && mr cat u/x") == (0, "x", "")


async def test_what_cannot_be_meant_is_refused_before_anything_is_asked(bench: Desk) -> None:
    for line, why in (
        ("cp a b", "Neither SOURCE nor DEST is in the workspace"),
        ("cp a", "Missing argument"),
        ("cp - - :x", "- is for one file"),
        ("cp :a :b -", "- is for one file"),
    ):
        code, _, err = bench.type(f"mr --url http://127.0.0.1:1 {line}")
        assert (code, why in err) == (2, True), err


# Streams


async def test_streams(bench: Desk) -> None:
    assert bench.type("printf 'a\\0b' | mr cp - :/x && mr cp :/x - | od -c | head -1").out.split() == [
        "0000000",
        "a",
        "\\0",
        "b",
    ]
    assert bench.type("mr cp <(echo from a shell) :/y && mr cat y").out == "from a shell\n"
    assert bench.type("mr cp :/y /dev/stdout").out == "from a shell\n"
    assert bench.type("mr cp :/y /dev/null") == (0, "", "")
    bench.write("t/a", "a")
    assert sorted(bench.type("mr cp :/t - | tar t").out.split()) == ["a"]
    assert bench.type("mr cp :/t - | mr cp - :/u/ && mr cat u/a").out == "a"
    (bench.folder / "dir").mkdir()
    assert bench.type("mr cp :/t - | mr cp - :/dir && mr cat dir/a").out == "a"
    code, _, err = bench.type("echo no tar | mr cp - :/dir")
    assert (code, "tar archive" in err) == (1, True)


async def test_an_archive_is_not_written_to_a_terminal(bench: Desk, env: Env) -> None:
    bench.write("t/a", "a")
    async with Console("cp", ":/t", "-", env=env) as terminal:
        assert await terminal.exit_code() == 1
        await terminal.until(b"an archive is not written to a terminal")


# What cannot be copied


async def test_what_is_left_out_is_told_and_the_rest_is_copied(bench: Desk) -> None:
    here(bench, "t/a", b"a")
    os.mkfifo(here(bench, "t/fifo"))
    here(bench, os.fsdecode(b"t/bad\xff"), b"x")
    here(bench, "t/out").symlink_to("/etc/passwd")
    code, _, err = bench.type("mr cp t :/")
    assert code == 1
    told = sorted(line.removeprefix("mhnos-runtime: not copied: ") for line in err.splitlines())
    assert len(told) == 3
    assert all(name in line for name, line in zip(("bad\\udcff", "fifo", "out"), told, strict=True)), told
    assert tree(bench.folder) == {"t": None, "t/a": b"a"}


async def test_what_a_process_made_is_told_when_it_cannot_come(bench: Desk) -> None:
    bench.write("t/a", "a")
    os.mkfifo(bench.folder / "t/fifo")
    (bench.folder / "t/out").symlink_to("../../../etc/passwd")
    code, _, err = bench.type("mr cp :/t .")
    assert (code, "fifo" in err, "out" in err) == (1, True, True)
    assert tree(here(bench, "t")) == {"a": b"a"}
    assert not os.path.lexists(here(bench, "t/.mhnos-skipped.txt"))


async def test_a_local_name_that_is_no_text_is_sent_under_another_one(bench: Desk) -> None:
    here(bench, os.fsdecode(b"bad\xff"), b"x")
    assert bench.type("mr cp bad? :/good && mr cat good").out == "x"
    code, _, err = bench.type("mr cp bad? :/")
    assert (code, "UTF-8" in err) == (1, True)


async def test_a_file_that_may_not_be_written_is_not_replaced(bench: Desk) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    bench.write("a", "x")
    here(bench, "a", b"mine", 0o400)
    code, _, err = bench.type("mr cp :a .")
    assert (code, "Permission denied" in err) == (1, True)
    assert here(bench, "a").read_bytes() == b"mine"


async def test_a_link_s_target_is_replaced_and_the_link_stays(bench: Desk) -> None:
    bench.write("a", "x")
    here(bench, "real", b"old")
    here(bench, "link").symlink_to("real")
    assert bench.type("mr cp :a link").code == 0
    assert here(bench, "link").is_symlink()
    assert here(bench, "real").read_bytes() == b"x"


# Interruptions


def sparse(path: Path, size: int = LARGE_BYTES) -> str:
    """A large file that takes little of the disk, with something at both ends; its digest."""
    with path.open("wb") as file:
        file.write(os.urandom(4096))
        file.seek(size - 4096)
        file.write(os.urandom(4096))
    return digest(path)


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith(".mhnos-")]


async def interrupted(bench: Desk, words: tuple[str, ...], number: int, grown: Path | None) -> bytes:
    """What is said by a copy that gets a signal when it is under way: a large part is in `grown`, or, of an
    upload, noted in the cache."""
    assert bench.here is not None
    note = bench.here / ".cache/mhnos-runtime/uploads"
    async with Console(*words, env=bench.env()) as terminal:
        async with asyncio.timeout(WAIT_S):
            while True:
                if grown is None and note.is_dir() and any(note.iterdir()):
                    break
                if grown is not None and any(part.stat().st_size > 20_000_000 for part in parts(grown)):
                    break
                await asyncio.sleep(0.002)
        os.kill(terminal.pid, number)
        assert await terminal.exit_code() == 130
    return terminal.seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_download_goes_on_and_leaves_nothing_half(bench: Desk, number: int) -> None:
    wanted = sparse(bench.folder / "big")
    target = here(bench, "big")
    words = ("cp", ":/big", str(target))
    seen = await interrupted(bench, words, number, target.parent)
    assert b"the same command goes on there" in seen
    assert not target.exists()
    [part] = parts(target.parent)
    had = part.stat().st_size
    assert 0 < had < LARGE_BYTES
    assert bench.type("mr cp :/big .") == (0, "", "")
    assert digest(target) == wanted
    assert parts(target.parent) == []


async def test_a_part_of_another_version_is_not_gone_on_with(bench: Desk) -> None:
    sparse(bench.folder / "big")
    target = here(bench, "big")
    await interrupted(bench, ("cp", ":/big", str(target)), signal.SIGINT, target.parent)
    wanted = sparse(bench.folder / "big", LARGE_BYTES // 4)
    assert bench.type("mr cp :/big .").code == 0
    assert digest(target) == wanted
    assert parts(target.parent) == []


async def test_an_interrupted_upload_goes_on_and_leaves_nothing_half(bench: Desk) -> None:
    wanted = sparse(here(bench, "big"))
    seen = await interrupted(bench, ("cp", str(here(bench, "big")), ":/big"), signal.SIGINT, None)
    assert b"Traceback" not in seen
    assert bench.type("mr ls").out == ""
    assert bench.type("mr cp big :/big") == (0, "", "")
    assert digest(bench.folder / "big") == wanted
    assert bench.here is not None
    assert list((bench.here / ".cache/mhnos-runtime/uploads").iterdir()) == []


async def test_an_upload_that_the_server_has_forgotten_begins_anew(bench: Desk) -> None:
    wanted = sparse(here(bench, "big"), LARGE_BYTES // 8)
    bench.type("mr cp big :/other")
    folder = here(bench, ".cache/mhnos-runtime/uploads")
    await interrupted(bench, ("cp", str(here(bench, "big")), ":/big"), signal.SIGINT, None)
    [note] = folder.iterdir()
    note.write_text("0" * 32)
    assert bench.type("mr cp big :/big").code == 0
    assert digest(bench.folder / "big") == wanted


async def test_an_interrupted_directory_leaves_whole_files_only(bench: Desk) -> None:
    (bench.folder / "t").mkdir()
    for number in range(4):
        sparse(bench.folder / f"t/{number}", LARGE_BYTES // 4)
    target = here(bench, "t")
    async with Console("cp", ":/t", str(target), env=bench.env()) as terminal:
        async with asyncio.timeout(WAIT_S):
            while not target.is_dir() or not list(target.iterdir()):  # noqa: ASYNC110 - another process does
                await asyncio.sleep(0.002)
        terminal.type(b"\x03")
        await terminal.exit_code()
    assert {path.stat().st_size for path in target.iterdir()} <= {LARGE_BYTES // 4}
    assert not parts(target)


# Progress


async def test_a_long_copy_shows_rate_and_time_on_a_terminal_only(bench: Desk) -> None:
    sparse(bench.folder / "big", 3 * LARGE_BYTES)
    async with Console("cp", ":/big", "/dev/null", env=bench.env() | {"TERM": "xterm"}, cols=100) as terminal:
        assert await terminal.exit_code() == 0
    if b"\r" in terminal.seen:
        assert b"of 900.0 MiB" in terminal.seen
        assert b"MiB/s" in terminal.seen or b"GiB/s" in terminal.seen
    async with Console("cp", "-q", ":/big", "/dev/null", env=bench.env()) as terminal:
        assert await terminal.exit_code() == 0
        assert terminal.seen == b""


async def test_a_tar_of_others_is_unpacked(bench: Desk) -> None:
    here(bench, "x", b"content")
    with tarfile.open(here(bench, "t.tar"), "w") as archive:
        archive.add(here(bench, "x"), "dir/x")
        archive.add(here(bench, "x"), "../out")
    code, _, err = bench.type("mr cp - :/t/ < t.tar")
    assert (code, "../out" in err) == (1, True)
    assert tree(bench.folder) == {"t": None, "t/dir": None, "t/dir/x": b"content"}


async def test_a_log_that_somebody_writes_is_copied_as_it_was(bench: Desk) -> None:
    """Both ways: it was refused, since it had grown between two looks at it."""
    begin = "x" * 20_000_000
    bench.write("log", begin)
    here(bench, "mine", begin.encode())
    here(bench, "dir/mine", begin.encode())
    grow = "while :; do echo more >> {}; done & trap 'kill $!' EXIT"
    assert (
        bench.type(f"{grow.format(bench.folder / 'log')}; mr cp -q :log back && mr cp -q :log :copy").code
        == 0
    )
    got = here(bench, "back").read_bytes()
    assert got.startswith(begin.encode())
    assert bench.type(f"{grow.format('mine')}; mr cp -q mine :/mine").code == 0
    assert bench.type(f"{grow.format('dir/mine')}; mr cp -q dir :/dir").code == 0
    for copied in (bench.folder / "mine", bench.folder / "dir/mine"):
        assert copied.read_bytes().startswith(begin.encode())
