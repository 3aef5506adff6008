"""No file names a machine, a package registry, or the folder in which somebody works."""

from __future__ import annotations

import re

import pytest

from tests.project.checkout import files, shown

# Written in two parts each, so that this file passes its own test.
HOSTS = [
    "pypi" + r"\.org",
    "pythonhosted" + r"\.org",
    "registry\\." + r"(npmjs|yarnpkg)\.",
    "npmjs" + r"\.(org|com)",
    "deb" + r"\.debian\.org",
    "archive" + r"\.ubuntu\.com",
    "proxy\\." + r"golang\.org",
    "(docker|ghcr|quay)" + r"\.io/",
]
FOLDERS = [r"(?<![\w.])/" + r"(work|root)/", r"(?<!\w)/tmp/" + "team"]
ADDRESSES_IN_LOCKS = ['"resolved": ' + '"http']


@pytest.mark.parametrize("pattern", [*HOSTS, *FOLDERS, *ADDRESSES_IN_LOCKS])
def test_no_file_contains(pattern: str) -> None:
    word = re.compile(pattern)
    found = [
        f"{shown(path)}:{number}: {line.strip()[:100]}"
        for path in files()
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if word.search(line)
    ]
    assert found == []
