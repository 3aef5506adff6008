"""What /proc tells about trees of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mhnos_runtime import proc

TREE = """
import os, sys, time
name = b') 1 2 (x'
open('/proc/self/comm', 'wb').write(name)
reader, writer = os.pipe()
middle = os.fork()
if not middle:
    leaf = os.fork()
    if not leaf:
        memory = b'x' * (32 << 20)
        end = time.process_time() + 0.1
        while time.process_time() < end: pass
        os.write(writer, b'.')
        time.sleep(60)
    time.sleep(60)
os.read(reader, 1)
print(middle, flush=True)
sys.stdin.read()
os.kill(middle, 9)
"""


@pytest.fixture
def tree() -> Iterator[tuple[int, int, int]]:
    """The pids of three generations; the last one uses memory and time."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", TREE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as top:
        assert top.stdout is not None
        middle = int(top.stdout.readline())
        (leaf,) = proc.children(middle)
        yield top.pid, middle, leaf
        os.kill(leaf, 9)
        top.communicate("")


def test_children_and_descendants(tree: tuple[int, int, int]) -> None:
    top, middle, leaf = tree
    assert proc.children(top) == [middle]
    assert proc.descendants([top]) == [top, middle, leaf]
    assert proc.descendants([leaf, middle]) == [leaf, middle, leaf]
    assert proc.descendants([]) == []


def test_usage_is_the_whole_trees(tree: tuple[int, int, int]) -> None:
    """Also where a name looks like the fields behind it."""
    top, middle, leaf = tree
    whole, part, last = proc.usage(top), proc.usage(middle), proc.usage(leaf)
    assert whole is not None
    assert part is not None
    assert last is not None
    assert (whole.tasks, part.tasks, last.tasks) == (3, 2, 1)
    assert last.cpu_ms >= 90
    assert last.rss_bytes >= 32 << 20
    assert whole.cpu_ms >= part.cpu_ms >= last.cpu_ms
    assert whole.rss_bytes > part.rss_bytes > last.rss_bytes


def test_what_is_gone() -> None:
    with subprocess.Popen(["/bin/true"]) as done:
        done.wait()
    assert proc.children(done.pid) == []
    assert proc.descendants([done.pid]) == [done.pid]
    assert proc.usage(done.pid) is None


def test_threads_have_children_too() -> None:
    code = (
        "import subprocess, sys, threading\n"
        "def start():\n"
        "    with subprocess.Popen(['sleep', '60']) as child:\n"
        "        print(child.pid, flush=True)\n"
        "        sys.stdin.read()\n"
        "        child.kill()\n"
        "threading.Thread(target=start).start()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert proc.children(process.pid) == [child]
        usage = proc.usage(process.pid)
        assert usage is not None
        assert usage.tasks == 3
        process.communicate("")
