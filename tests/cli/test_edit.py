"""`edit` with editors that are scripts, against a real runtime: nobody's work is lost."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mhnos_runtime.testing import TestServer
from tests.cli.console import Console
from tests.cli.desk import BIN, Desk, Got

pytestmark = [pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


def edit(desk: Desk, path: str, script: str) -> Got:
    """With an editor that does what the script says with "$1"."""
    assert desk.here is not None
    editor = desk.here / "editor"
    editor.write_text(f"#!/bin/sh\n{script}\n")
    editor.chmod(0o755)
    (desk.here / "tmp").mkdir(exist_ok=True)
    return desk.type(f"mr edit {path}", VISUAL=str(editor), TMPDIR=str(desk.here / "tmp"))


def left(desk: Desk) -> list[Path]:
    """Copies that were kept."""
    assert desk.here is not None
    return list((desk.here / "tmp").glob("*/*"))


async def test_what_was_changed_is_written_back(bench: Desk) -> None:
    bench.write("src/a b.py", "one\n", 0o755)
    got = edit(bench, "'src/a b.py'", 'echo two >> "$1"; echo "$1"; stat -c %a "$1" "$(dirname "$1")"')
    assert (got.code, got.err) == (0, "")
    name, mode, folder_mode = got.out.splitlines()
    assert (Path(name).name, mode, folder_mode) == ("a b.py", "600", "700")
    there = bench.folder / "src/a b.py"
    assert (there.read_text(), there.stat().st_mode & 0o777) == ("one\ntwo\n", 0o755)
    assert left(bench) == []


async def test_what_was_not_changed_is_not_written(bench: Desk) -> None:
    bench.write("a", "one\n")
    before = (bench.folder / "a").stat().st_ctime_ns
    assert edit(bench, "a", 'touch "$1"') == (0, "", "[/a was not changed]\n")
    assert (bench.folder / "a").stat().st_ctime_ns == before
    assert edit(bench, "nosuch", "true") == (0, "", "[/nosuch was not changed]\n")
    assert not (bench.folder / "nosuch").exists()


async def test_a_file_that_is_not_there_is_made(bench: Desk) -> None:
    assert edit(bench, "new/file", 'echo text > "$1"').code == 0
    assert (bench.folder / "new/file").read_text() == "text\n"


async def test_an_editor_may_put_another_file_in_its_place(bench: Desk) -> None:
    bench.write("a", "one\n")
    assert edit(bench, "a", 'echo two > "$1.new"; mv "$1.new" "$1"').code == 0
    assert (bench.folder / "a").read_text() == "two\n"


async def test_somebody_else_s_change_stays_and_the_copy_is_kept(bench: Desk) -> None:
    bench.write("a.txt", "one\n")
    other = bench.folder / "a.txt"
    got = edit(bench, "a.txt", f'echo mine > "$1"; echo theirs > {other}')
    assert got.code == 1
    assert "changed by somebody else meanwhile" in got.err
    assert other.read_text() == "theirs\n"
    [copy] = left(bench)
    assert copy.read_text() == "mine\n"
    assert str(copy) in got.err
    [diff, replace] = re.findall(r"^  .*: +(mhnos-runtime .*)$", got.err, re.MULTILINE)
    assert bench.type(diff).out.splitlines() == ["1c1", "< theirs", "---", "> mine"]
    assert bench.type(replace).code == 0
    assert other.read_text() == "mine\n"


async def test_a_file_that_somebody_else_made_or_removed_meanwhile(bench: Desk) -> None:
    new, old = bench.folder / "new", bench.folder / "old"
    assert edit(bench, "new", f'echo mine > "$1"; echo theirs > {new}').code == 1
    assert new.read_text() == "theirs\n"
    old.write_text("one\n")
    assert edit(bench, "old", f'echo mine > "$1"; rm {old}').code == 1
    assert not old.exists()
    assert sorted(copy.read_text() for copy in left(bench)) == ["mine\n", "mine\n"]


async def test_an_editor_that_fails_writes_nothing(bench: Desk) -> None:
    bench.write("a", "one\n")
    got = edit(bench, "a", "exit 3")
    assert (got.code, "the editor ended with 3; nothing was written" in got.err) == (1, True)
    assert left(bench) == []
    got = edit(bench, "a", 'echo mine > "$1"; exit 3')
    [copy] = left(bench)
    assert (got.code, str(copy) in got.err, copy.read_text()) == (1, True, "mine\n")
    assert (bench.folder / "a").read_text() == "one\n"
    assert edit(bench, "a", 'rm "$1"').code == 0
    assert (bench.folder / "a").read_text() == "one\n"


async def test_without_a_server_the_copy_is_kept(bench: Desk, shared: TestServer) -> None:
    bench.write("a", "one\n")
    got = edit(
        bench, "a", f'echo mine > "$1"; kill -STOP {shared.server_pid()}; kill -CONT {shared.server_pid()}'
    )
    assert got.code == 0, "a server that was slow"


async def test_what_is_no_file_is_not_edited(bench: Desk) -> None:
    (bench.folder / "dir").mkdir()
    os.mkfifo(bench.folder / "fifo")
    for path, kind in (("dir", "directory"), ("fifo", "other"), ("../x", "")):
        got = edit(bench, path, "echo edited")
        assert (got.code, got.out, kind in got.err) == (1, "", True)


async def test_an_editor_is_a_command_of_the_shell_and_has_the_terminal(bench: Desk) -> None:
    bench.write("a", "one\n")
    editor = """sh -c 'test -t 0 && test -t 1 && echo in the editor && read line && echo "$line" > "$0"'"""
    async with Console("edit", "a", env=bench.env(EDITOR=editor, VISUAL="")) as terminal:
        await terminal.until(b"in the editor")
        terminal.type(b"typed\r")
        assert await terminal.exit_code() == 0
    assert (bench.folder / "a").read_text() == "typed\n"


async def test_ctrl_c_is_the_editor_s(bench: Desk) -> None:
    bench.write("a", "one\n")
    editor = """sh -c 'trap "echo two > $0; exit 0" INT; echo in the editor; while :; do sleep 0.05; done'"""
    async with Console("edit", "a", env=bench.env(EDITOR=editor, VISUAL="")) as terminal:
        await terminal.until(b"in the editor")
        terminal.type(b"\x03")
        assert await terminal.exit_code() == 0
    assert (bench.folder / "a").read_text() == "two\n"


async def test_without_an_editor_it_says_how_to_name_one(bench: Desk) -> None:
    bench.write("a", "one\n")
    code, _, err = bench.type(f"PATH=/nowhere {BIN}/mhnos-runtime edit a", EDITOR="", VISUAL="")
    assert (code, "EDITOR=PROGRAM names one" in err) == (1, True)
