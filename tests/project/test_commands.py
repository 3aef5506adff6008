"""The commands of README.md and docs/ work as they are shown, each page against one real server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.shared import shared_store
from tests.project.checkout import ROOT
from tests.project.console import script, steps

PAGES = [
    path
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if path.is_file() and steps(path.read_text(encoding="utf-8"))
]
START_TIMEOUT_S = 20
#: recipes.md has npm and pip download, which a slow network makes slow.
PAGE_TIMEOUT_S = 240


def bash(text: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", text],
        cwd=env["HOME"],
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PAGE_TIMEOUT_S,
    )


def environment(home: Path) -> dict[str, str]:
    """One of its own, so that neither the settings nor a server of the person who tests is met."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MHNOS_", "XDG_"))}
    return ours | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "checkout": str(ROOT),
        "MHNOS_RUNTIME_PORT": "0",
        # Its default is another folder where there is a /workspace.
        "MHNOS_WORKSPACE": str(home / "mhnos-workspace"),
        # The folders of tests are closed to the user that root's processes would run as.
        **({"MHNOS_SANDBOX": "none", "MHNOS_ALLOW_ROOT": "true"} if os.geteuid() == 0 else {}),
    }


def trust_the_network(workspace: Path) -> None:
    """npm in processes has to be told where this machine's network has a certificate authority of its own."""
    workspace.mkdir()
    if authorities := os.environ.get("NODE_EXTRA_CA_CERTS"):
        (workspace / ".npmrc").write_text(f"cafile={authorities}\n")


def url_of(address_file: Path) -> str | None:
    """Of the runtime, once it answers."""
    try:
        url = address_file.read_text(encoding="utf-8").partition('"url"')[2].split('"')[1]
        with urllib.request.urlopen(f"{url}/health", timeout=1):
            return url
    except (OSError, IndexError):
        return None


@pytest.fixture
def server(tmp_path: Path, page: Path) -> Iterator[dict[str, str]]:
    """The environment in which a runtime is found, with the engines that a page asks for; it stops with the
    test."""
    env = environment(tmp_path)
    needed = [name for name in ("workerd", "openclaw") if page.stem == name]
    if needed:
        env |= {
            "MHNOS_ENGINES_DIR": str(shared_store("node", *needed).folder),
            "MHNOS_ALLOW_OPENCLAW": "true",
        }
    trust_the_network(tmp_path / "mhnos-workspace")
    program = Path(sys.executable).with_name("mhnos-runtime")
    log = tmp_path / "serve.log"
    with (
        log.open("wb") as out,
        subprocess.Popen([program, "serve"], env=env, stdout=out, stderr=out) as serving,
    ):
        try:
            until = time.monotonic() + START_TIMEOUT_S
            while (url := url_of(tmp_path / ".local/state/mhnos-runtime/server.json")) is None:
                # Polled, as any client of a server that is starting has to.
                in_time = serving.poll() is None and time.monotonic() < until
                assert in_time, log.read_text(encoding="utf-8")
                time.sleep(0.02)
            yield env | {"MHNOS_URL": url}
        finally:
            serving.terminate()


@pytest.mark.timeout(START_TIMEOUT_S + PAGE_TIMEOUT_S)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_work(page: Path, server: dict[str, str]) -> None:
    done = bash(script(page.read_text(encoding="utf-8"), page.name), server)
    assert done.returncode == 0, done.stdout + done.stderr


SAMPLE = """
```console
$ make help
$ word=hello
$ echo one \\
    two
one two
```

```sh
false
```

```python
# first.py
print("a file")
```

```console
$ test -t 0 || echo "$word, no terminal"
$ bash -c 'test -t 0 && echo with terminal' -it sample
$ python3 first.py
```
"""


def test_the_blocks_of_a_page_are_one_session(tmp_path: Path) -> None:
    done = bash(script(SAMPLE, "sample.md"), environment(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("one two\nhello, no terminal\n")
    assert "with terminal\n" in done.stdout.replace("\r", "")
    assert done.stdout.endswith("a file\n")


def test_a_command_that_fails_is_named_by_its_place(tmp_path: Path) -> None:
    done = bash(
        script("# Title\n\n```console\n$ true\n$ false | true\n$ echo never\n```\n", "sample.md"),
        environment(tmp_path),
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "sample.md:5: failed"


def test_set_up_is_shown_and_not_run() -> None:
    page = "```console\n$ git clone https://example.com/x\n$ cd x\n$ make test\n```\n"
    assert [step.line for step in steps(page)] == [2, 3, 4]
    assert "git clone" not in script(page, "x")
    assert "--dry-run test" in script(page, "x")
