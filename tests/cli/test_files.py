"""Files of the workspace as somebody types it who uses ls, cat, mv, rm and grep every day, against a real
runtime."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import WAIT_S, Console
from tests.cli.desk import Desk

pytestmark = [pytest.mark.timeout(120), pytest.mark.asyncio(loop_scope="module")]

Env = dict[str, str]
HOSTILE = "a\n\x1b[2J\u202eb c"


def make(desk: Desk, *names: str) -> None:
    for name in names:
        desk.write(name, f"content of {name}\n")


# ls


async def test_ls_lists_as_ls_does(bench: Desk) -> None:
    make(bench, "b.txt", "a.txt", ".hidden", "dir/inside", "dir/more")
    assert bench.type("mr ls") == (0, "a.txt\nb.txt\ndir\n", "")
    assert bench.type("mr ls -a") == (0, ".hidden\na.txt\nb.txt\ndir\n", "")
    assert bench.type("mr ls -r :/") == (0, "dir\nb.txt\na.txt\n", "")
    for path in ("dir", ":dir", "/dir", ":/dir/", "/workspace/dir", "./dir"):
        assert bench.type(f"mr ls {path}") == (0, "inside\nmore\n", "")
    assert bench.type("mr ls -d dir b.txt") == (0, "dir\nb.txt\n", "")
    assert bench.type("mr ls dir b.txt").out.splitlines() == ["b.txt", "", "/dir:", "inside", "more"]


async def test_ls_says_what_is_not_there_and_lists_the_others(bench: Desk) -> None:
    make(bench, "a")
    code, out, err = bench.type("mr ls nosuch a")
    assert (code, out) == (2, "a\n")
    assert err == "mhnos-runtime: No such file or directory: /nosuch\n"
    assert bench.type("mr ls ../x").code == 2


async def test_ls_long_has_mode_size_time_and_where_links_lead(bench: Desk) -> None:
    make(bench, "run.sh", "old")
    (bench.folder / "run.sh").chmod(0o755)
    (bench.folder / "dir").mkdir(mode=0o750)
    (bench.folder / "link").symlink_to("dir")
    os.utime(bench.folder / "old", (86400, 86400))
    os.mkfifo(bench.folder / "fifo", 0o600)
    rows = [line.split(maxsplit=5) for line in bench.type("mr ls -l", TZ="UTC").out.splitlines()]
    assert [row[0] for row in rows] == ["drwxr-x---", "?rw-------", "lrwxrwxrwx", "-rw-r--r--", "-rwxr-xr-x"]
    assert [row[1] for row in rows] == ["-", "-", "-", "15", "18"]
    assert rows[3][2:] == ["Jan", "2", "1970", "old"]
    assert rows[2][5] == "link -> dir"
    assert bench.type("mr ls -lh run.sh").out.split()[1:3] == ["18", "B"]
    assert bench.type("mr ls link/").out == ""
    assert bench.type("mr ls -S").out.split()[0] == "run.sh"
    assert bench.type("mr ls -t").out.split()[-1] == "old"


async def test_ls_goes_into_directories_and_marks_what_names_are(bench: Desk) -> None:
    make(bench, "top", "a/x", "a/b/y", "a/.hidden/z", "run")
    (bench.folder / "run").chmod(0o755)
    (bench.folder / "c").mkdir()
    (bench.folder / "l").symlink_to("a")
    whole = bench.type(f"cd {bench.folder}; ls -RF | sed 's/^\\.:/\\/:/; s/^\\.//'").out
    assert bench.type("mr ls -RF") == (0, whole, "")
    assert bench.type("mr ls -R a").out == "/a:\nb\nx\n\n/a/b:\ny\n"
    assert bench.type("mr ls -aR a").out == "/a:\n.hidden\nb\nx\n\n/a/.hidden:\nz\n\n/a/b:\ny\n"
    assert bench.type("mr ls -RF top a/b").out == "top\n\n/a/b:\ny\n"
    assert bench.type("mr ls -RdF a l").out == "a/\nl@\n"
    assert [line.split()[-1] for line in bench.type("mr ls -lF").out.splitlines()] == [
        "a/",
        "c/",
        "a",
        "run*",
        "top",
    ]
    assert {row["path"] for row in json.loads(bench.type("mr ls -R --json a").out)} == {
        "/a/b",
        "/a/x",
        "/a/b/y",
    }
    os.rename(bench.folder / "c", os.fsencode(bench.folder) + b"/c\xff")
    code, out, err = bench.type("mr ls -R")
    assert (code, "not UTF-8" in err, "/a/b:" in out) == (1, True, True)


async def test_ls_as_json_has_every_field(bench: Desk) -> None:
    make(bench, "a", ".b")
    rows = json.loads(bench.type("mr ls -a --json").out)
    assert [row["path"] for row in rows] == ["/.b", "/a"]
    assert {"kind", "size", "mode", "mtime", "version"} <= rows[0].keys()


async def test_hostile_names_are_exact_for_programs_and_harmless_for_people(bench: Desk, env: Env) -> None:
    make(bench, HOSTILE, "plain")
    (bench.folder / os.fsdecode(b"bad\xff")).write_text("")
    assert bench.type("mr ls").out == f"{HOSTILE}\nbad\\xff\nplain\n"
    assert json.loads(bench.type("mr ls --json").out)[0]["path"] == f"/{HOSTILE}"
    async with Console("ls", cols=60, env=env) as terminal:
        assert await terminal.exit_code() == 0
        await terminal.until(b"plain")
    assert terminal.seen == b"$'a\\n\\e[2J\\u202eb c'  'bad\\xff'  plain\r\n"
    name = "$'a\\n\\e[2J\\u202eb c'"
    assert bench.type(f"mr cat {name}").out == f"content of {HOSTILE}\n"


async def test_on_a_terminal_names_are_in_columns_and_coloured(bench: Desk, env: Env) -> None:
    make(bench, *(f"file-{number:02}" for number in range(12)))
    (bench.folder / "a-dir").mkdir()
    coloured = {name: text for name, text in env.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    async with Console("ls", cols=40, env=coloured | {"NO_COLOR": ""}) as terminal:
        assert await terminal.exit_code() == 0
        await terminal.until(b"file-11")
    lines = terminal.seen.decode().splitlines()
    assert (
        lines[0].split()
        == ["\x1b[1;34ma-dir\x1b[0m", "file-03", "file-07", "file-11"][: len(lines[0].split())]
    )
    assert 3 <= len(lines) <= 5


# cat


async def test_cat_prints_bytes_as_they_are_one_file_after_the_other(bench: Desk) -> None:
    data = os.urandom(300_000)
    (bench.folder / "binary").write_bytes(data)
    make(bench, "text")
    assert bench.type("mr cat binary text - <<< input > got && cat got | sha256sum").code == 0
    assert bench.here is not None
    assert (bench.here / "got").read_bytes() == data + b"content of text\ninput\n"


async def test_cat_goes_on_behind_what_cannot_be_read(bench: Desk) -> None:
    make(bench, "a", "dir/b")
    code, out, err = bench.type("mr cat nosuch dir a")
    assert (code, out) == (1, "content of a\n")
    assert "No such file or directory: /nosuch" in err
    assert err.splitlines()[1:] == [
        "mhnos-runtime: Is a directory: /dir",
        "hint: `mhnos-runtime ls /dir` lists it",
    ]


async def test_a_full_disk_is_said_in_words(bench: Desk) -> None:
    make(bench, "a")
    assert bench.type("mr cat a > /dev/full") == (1, "", "mhnos-runtime: No space left on device\n")


async def test_a_reader_that_has_enough_ends_it_quietly(bench: Desk) -> None:
    (bench.folder / "large").write_bytes(b"x" * 5_000_000)
    assert bench.type("mr cat large | head -c 3; echo ${PIPESTATUS[0]}") == (0, "xxx141\n", "")
    assert bench.type("mr cp :large - | head -c 3; echo ${PIPESTATUS[0]}") == (0, "xxx141\n", "")
    assert bench.type("mr cp :/ - | head -c 0; echo ${PIPESTATUS[0]}") == (0, "141\n", "")
    assert bench.type("mr ls > /dev/full").code == 1


# mv


async def test_mv_renames_and_moves_into_directories(bench: Desk) -> None:
    make(bench, "a", "b", "dir/c")
    assert bench.type("mr mv a d") == (0, "", "")
    assert bench.type("mr mv b d dir") == (0, "", "")
    assert sorted(path.name for path in (bench.folder / "dir").iterdir()) == ["b", "c", "d"]
    assert bench.type("mr mv -v dir/b :/").out == "/dir/b -> /b\n"
    code, _, err = bench.type("mr mv b dir/c nosuch")
    assert (code, err.count("No such directory: /nosuch\n"), "several sources" in err) == (1, 1, True)
    assert "Not a directory: /b\n" in bench.type("mr mv dir/c dir/d b").err
    code, _, err = bench.type("mr mv b nosuch/")
    assert (code, "without the slash at its end it becomes the name: /nosuch" in err) == (1, True)


async def test_what_mv_replaces_is_in_the_trash(bench: Desk) -> None:
    make(bench, "a", "b")
    assert bench.type("mr mv -n a b") == (0, "", "")
    assert (bench.folder / "a").exists()
    assert bench.type("mr mv a b").code == 0
    assert (bench.folder / "b").read_text() == "content of a\n"
    assert bench.type("mr trash restore b --to old").out == "/old\n"
    assert (bench.folder / "old").read_text() == "content of b\n"


# mkdir


async def test_mkdir(bench: Desk) -> None:
    assert bench.type("mr mkdir a :b && mr mkdir -p a c/d") == (0, "", "")
    assert [path.is_dir() for path in (bench.folder / "b", bench.folder / "c/d")] == [True, True]
    code, _, err = bench.type("mr mkdir a e")
    assert (code, "/a" in err, (bench.folder / "e").is_dir()) == (1, True, True)
    code, _, err = bench.type("mr mkdir f/g")
    assert (code, "`mhnos-runtime mkdir -p /f/g` makes its parents too" in err) == (1, True)
    assert "`mhnos-runtime mkdir -p '/a b/c'` makes" in bench.type("mr mkdir 'a b/c'").err, "as it is typed"
    assert "with -p, a directory that is there is no error" in bench.type("mr mkdir a").err


# rm, trash


async def test_rm_puts_files_into_the_trash_and_restore_has_them_back(bench: Desk) -> None:
    make(bench, "a.txt", "dir/inside")
    assert bench.type("mr rm a.txt") == (0, "", "")
    assert not (bench.folder / "a.txt").exists()
    assert bench.type("mr trash restore a.txt") == (0, "/a.txt\n", "")
    assert (bench.folder / "a.txt").read_text() == "content of a.txt\n"
    code, _, err = bench.type("mr rm :dir")
    assert (code, "`mhnos-runtime rm -r :/dir` removes it with what is in it" in err) == (1, True)
    assert bench.type("mr rm -r dir") == (0, "", "")
    assert bench.type("mr trash restore dir").code == 0
    assert (bench.folder / "dir/inside").exists()
    said = bench.type("mr rm -rv dir").out
    assert said.startswith("removed /dir  (mhnos-runtime trash restore ")
    assert bench.type(f"{said.strip().partition('(mhnos-runtime')[2].rstrip(')').join(['mr', ''])}").code == 0
    assert (bench.folder / "dir/inside").exists()


async def test_rm_of_what_is_not_there(bench: Desk) -> None:
    code, _, err = bench.type("mr rm nosuch.txt")
    assert (code, "No such file or directory: /nosuch.txt" in err) == (1, True)
    assert bench.type("mr rm -f nosuch.txt") == (0, "", "")
    assert bench.type("mr rm -rf nosuch") == (0, "", "")
    code, _, err = bench.type("mr rm nosuch")
    assert (code, "a file of this name is written :nosuch" in err) == (1, True)
    code, _, err = bench.type("mr rm 'No Name'")
    assert (code, "neither a pid nor a name" in err) == (2, True)
    assert "a file of this name is written ':No Name'" in err
    make(bench, "No Name/inside")
    assert "`mhnos-runtime rm -r ':/No Name'` removes it" in bench.type("mr rm ':No Name'").err
    assert bench.type("mr rm -rf :/").code == 1
    err = bench.type("mr rm ':logs/*.log'").err
    assert "patterns are not expanded in the workspace; `mhnos-runtime grep --files" in err


async def test_rm_asks_where_it_is_told_to(bench: Desk) -> None:
    make(bench, "a.txt", "b.txt", "dir/c")
    code, out, err = bench.type("printf 'n\\ny\\ny\\n' | mr rm -ri a.txt b.txt dir")
    assert (code, out) == (0, "")
    for name in ("a.txt", "b.txt", "dir"):
        assert f"Remove :/{name}?" in err
    assert [path.name for path in bench.folder.iterdir()] == ["a.txt"]
    assert bench.type("mr rm -i a.txt < /dev/null").code != 0
    assert (bench.folder / "a.txt").exists()


async def test_outright_is_gone(bench: Desk) -> None:
    make(bench, "gone.txt")
    assert bench.type("mr rm --outright gone.txt").code == 0
    code, _, err = bench.type("mr trash restore gone.txt")
    assert (code, "Not in the trash: /gone.txt" in err) == (1, True)


async def test_on_a_narrow_terminal_the_trash_is_what_restore_takes(bench: Desk, env: Env) -> None:
    """With all columns nothing but two letters was left of the path."""
    make(bench, "folder/some-file.txt")
    assert bench.type("mr rm folder/some-file.txt").code == 0
    async with Console("trash", cols=48, env=env) as terminal:
        assert await terminal.exit_code() == 0
        await terminal.until(b"/folder/some-file.txt")
    assert terminal.seen.decode().splitlines()[0].split() == ["ID", "PATH"]


async def test_the_trash_is_listed_and_emptied(bench: Desk) -> None:
    bench.type("mr trash empty -f")
    make(bench, "one.txt", "dir/two.txt", "a b.txt")
    assert bench.type("mr rm one.txt && mr rm -r dir && mr rm 'a b.txt'").code == 0
    rows = bench.type("mr trash").out.splitlines()
    assert rows[0].split() == ["ID", "PATH", "SIZE", "REMOVED", "KEPT"]
    assert ["'/a b.txt'" in rows[1], "/dir/" in rows[2], "/one.txt" in rows[3]] == [True] * 3
    listed = json.loads(bench.type("mr trash list --json").out)
    assert [row["path"] for row in listed] == ["/a b.txt", "/dir", "/one.txt"]
    assert bench.type("mr trash empty one.txt").code == 1, "nobody could be asked"
    assert bench.type("mr trash empty -f one.txt").out == "removed 1 item for ever\n"
    assert len(bench.type("mr trash list -q").out.split()) == 2
    make(bench, "dir/new")
    code, _, err = bench.type("mr trash restore dir")
    assert (code, "mhnos-runtime trash restore dir --to PATH" in err) == (1, True)
    assert bench.type("mr trash empty -f").out == "removed 2 items for ever\n"
    assert bench.type("mr trash empty").out == "the trash is empty\n"


# grep


async def test_grep_is_grep_rn_on_the_server(bench: Desk) -> None:
    bench.write("src/a.py", "one\nTODO: two\n")
    bench.write("src/b.md", "todo\n")
    bench.write("c.py", "none\n")
    assert bench.type("mr grep TODO") == (0, "src/a.py:2:TODO: two\n", "")
    assert bench.type("mr grep -rni todo src") == (0, "src/a.py:2:TODO: two\nsrc/b.md:1:todo\n", "")
    assert bench.type("mr grep -il todo --name '*.py'") == (0, "src/a.py\n", "")
    assert bench.type("mr grep --files --name '*.py'") == (0, "c.py\nsrc/a.py\n", "")
    assert bench.type("mr grep --files").out.split() == ["c.py", "src/a.py", "src/b.md"]
    assert bench.type("mr grep -F 'TODO: t'").code == 0
    assert bench.type("mr grep -rnEI 'TODO|x' src/a.py") == (0, "src/a.py:2:TODO: two\n", ""), "of a file"
    assert bench.type("mr grep -q TODO") == (0, "", "")
    assert bench.type("mr grep nosuch") == (1, "", "")
    code, out, err = bench.type("mr grep TODO nosuch src")
    assert (code, out) == (2, "src/a.py:2:TODO: two\n"), "the others are searched, as by grep"
    assert "No such file or directory: /nosuch" in err
    code, _, err = bench.type("mr grep '(' src c.py")
    assert (code, err.count("missing )")) == (2, 1)
    assert bench.type("mr --url http://127.0.0.1:1 grep TODO").code == 2, "1 would mean that nothing is there"
    assert bench.type("mr grep").code == 2
    found = json.loads(bench.type("mr grep TODO --json").out)
    assert (found["matches"][0]["column"], found["truncated"]) == (0, False)


POEM = "one\ntwo words\nthree\nfour\nfive two\nsix\nseven\n\nnine\nten\ntwofold\n"


@pytest.mark.parametrize(
    "options",
    ["-w two", "-c two", "-o 't[a-z]*'", "-A 1 two", "-B2 two", "-C 1 two", "-C1 -A3 -i TWO", "-wo -F 'two'"],
)
async def test_grep_prints_what_gnu_grep_does(bench: Desk, options: str) -> None:
    bench.write("a.txt", POEM)
    bench.write("b.txt", POEM[::-1])
    bench.write("c.txt", "two\ntwo\n")
    counted = "grep -v ':0$'" if "-c" in options else "cat"  # files without a match are not named
    for paths in ("a.txt b.txt c.txt", "a.txt", "b.txt", "c.txt"):
        wanted = bench.type(f"cd {bench.folder}; grep -Hn {options} {paths} | {counted}").out
        assert bench.type(f"mr grep {options} {paths}").out == wanted


async def test_grep_keeps_groups_of_files_apart(bench: Desk) -> None:
    bench.write("a", "x\ntwo\n")
    bench.write("b", "two\ny\n")
    assert bench.type("mr grep -C1 two").out == "a-1-x\na:2:two\n--\nb:1:two\nb-2-y\n"
    assert bench.type("mr grep -A0 two").out == "a:2:two\nb:1:two\n"
    assert bench.type("mr grep -C1 -l two").out == "a\nb\n"
    code, _, err = bench.type("mr grep -o -C1 two")
    assert (code, "no lines around them" in err) == (2, True)
    assert bench.type("mr grep -C21 two").code == 2


# watch


async def test_watch_tells_changes_until_ctrl_c(bench: Desk, env: Env) -> None:
    make(bench, "dir/a")
    async with Console("watch", "dir", env=env) as terminal, Console("watch", "--json", env=env) as as_json:
        await terminal.until(b"[watching /dir")
        await as_json.until(b"[watching /")
        bench.write("dir/a", "other")
        await terminal.until(b"changed /dir/a")
        bench.write("dir/x y", "new")
        await terminal.until(b"created '/dir/x y'")
        (bench.folder / "dir/a").unlink()
        await terminal.until(b"removed /dir/a")
        await as_json.until(b'"path":"/dir/a","what":"removed"')
        terminal.type(b"\x03")
        os.kill(as_json.pid, signal.SIGINT)
        assert (await terminal.exit_code(), await as_json.exit_code()) == (0, 0)
        assert b"Traceback" not in terminal.seen + as_json.seen


async def test_watch_of_a_file_tells_of_it_alone(bench: Desk, env: Env) -> None:
    """Also when it is replaced, as editors do; it was refused as no directory."""
    name = "dir/[a]* b\\ "
    make(bench, name, "dir/a b")
    async with Console("watch", name, env=env) as terminal:
        await terminal.until(b"[watching ")
        make(bench, "dir/a b", "dir/other")
        bench.write("dir/new", "replaced")
        (bench.folder / "dir/new").rename(bench.folder / name)
        await terminal.until(b"changed ")
        (bench.folder / name).unlink()
        await terminal.until(b"removed ")
        terminal.type(b"\x03")
        assert await terminal.exit_code() == 0
    told = [line for line in terminal.seen.decode().splitlines() if "/dir/" in line][1:]
    assert {line.partition(" ")[2] for line in told} == {"'/dir/[a]* b\\ '"}


async def test_watch_of_what_goes_away_says_so(bench: Desk, env: Env) -> None:
    make(bench, "dir/a")
    async with Console("watch", "dir", env=env) as terminal:
        await terminal.until(b"[watching /dir")
        shutil.rmtree(bench.folder / "dir")
        assert await terminal.exit_code() == 1
        await terminal.until(b"/dir is watched no more")


async def test_watch_goes_on_after_a_killed_server(bench: Desk, env: Env, shared: TestServer) -> None:
    async with Console("watch", env=env) as terminal:
        await terminal.until(b"[watching /")
        os.kill(shared.server_pid(), signal.SIGKILL)
        await terminal.until(b"[resumed]")
        async with asyncio.timeout(WAIT_S):
            while b"created" not in terminal.seen.partition(b"[resumed]")[2]:
                (bench.folder / f"new-{len(terminal.seen)}").write_text("x")
                await asyncio.sleep(0.05)
        terminal.type(b"\x03")
        assert await terminal.exit_code() == 0
