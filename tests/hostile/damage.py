"""A state directory with records and logs of processes, and what a disk or a hostile server makes of them.

Knows the names and the layout of the files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from pathlib import Path
from typing import Any

from mhnos_runtime.launch import ProcessRecord
from mhnos_runtime.output import layout
from mhnos_runtime.supervisor.archive import Archive, lost
from tests.hostile import odd

FACTS: dict[str, Any] = {
    "version": 2,
    "kind": "shell",
    "command": "",
    "args": ["a"],
    "name": "n",
    "cwd": "/",
    "linger_ms": None,
    "timeout_ms": None,
    "remove": False,
    "limits": None,
    "sandbox": "none",
    "key": None,
    "single": False,
    "early_exit": "",
    "secrets": {"token": None},
    "isolation": {
        "level": "none",
        "network": "host",
        "uid": 0,
        "namespaces": [],
        "landlock": 0,
        "seccomp": False,
        "limits": {"memory": "none"},
        "host_abstract_sockets": True,
    },
    "ports": [{"name": "http", "port": 80, "address": "127.0.0.1", "url": "http://127.0.0.1:80"}],
    "watch": {"line": "x", "port": 0, "url": "", "events": False, "outside": True, "timeout_ms": 60_000},
    "ready": {"state": "ready", "reason": ""},
}
TEXT = b"what it has written\n" * 50


def fill(directory: Path, pids: range) -> None:
    """Of ended processes that have written TEXT."""
    archive = Archive(directory)
    for pid in pids:
        log = archive.new_log(pid, 4096)
        for stream in (0, 1):
            log.append(TEXT, stream, 5)
        archive.save(ProcessRecord(pid, 77, 5, (80, 24), FACTS, exit=lost(log.head, "of a test")))
        log.close()
    archive.close()


def harm(dice: random.Random, directory: Path, pid: int) -> str:
    """Do something to one of its two files; say what."""
    name = f"{pid}.{dice.choice(['json', 'json', 'log', 'log'])}"
    path = directory / name
    if dice.random() < 0.1:
        return f"{name}: {_another_kind(dice, path)}"
    data = path.read_bytes()
    if name.endswith("json"):
        changed = _record(dice, data)
    elif dice.random() < 0.7:
        changed = _header(dice, data)
    else:
        changed = odd.garbled(dice, data)
    path.write_bytes(changed)
    return f"{name}: {changed[:400]!r}"


def _another_kind(dice: random.Random, path: Path) -> str:
    path.unlink()
    match dice.choice(["nothing", "folder", "fifo", "link", "socket"]):
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(dice.choice(["/dev/zero", "/etc/passwd", "nowhere"]))
        case other:
            return other
    return "another kind of file"


def _record(dice: random.Random, data: bytes) -> bytes:
    if dice.random() < 0.3:
        return odd.garbled(dice, data)
    document = json.loads(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        if isinstance(document, dict):
            document = odd.mutated(dice, document)
    return json.dumps(document).encode()


def _header(dice: random.Random, data: bytes) -> bytes:
    """One or several words are another number; or the file has another length than its header says."""
    words = [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 24, layout.W_INPUTS, layout.PAGE // 8, layout.PAGE // 8 + 1]
    changed = bytearray(data)
    for _ in range(dice.choice([0, 1, 1, 2])):
        number = dice.choice(words) if dice.random() < 0.9 else dice.randrange(len(data) // 8)
        [now] = struct.unpack_from("Q", changed, number * 8)
        value = dice.choice(
            [0, 1, now + 1, now - 1, now * 2, 2**64 - 1, 2**63, 2**53, dice.getrandbits(64), 4096]
        )
        struct.pack_into("Q", changed, number * 8, value % 2**64)
    if dice.random() < 0.2:
        return bytes(changed[: dice.choice([0, 8, 4095, 4096, 4097, len(data) - 1])])
    return bytes(changed) + bytes(dice.choice([0, 0, 0, 0, 1, 4096]))


def again(source: Path, target: Path) -> None:
    """The directory as it was."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
