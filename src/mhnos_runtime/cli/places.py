"""Paths as somebody types them: of the workspace, with a colon before them where both could be meant, or of
this machine. Pure; what stands at a path is not known here.
"""

from __future__ import annotations

import posixpath
from typing import Any, NamedTuple

import click

from mhnos_runtime.cli.target import WorkspacePath

STREAM = "-"


class Place(NamedTuple):
    """inside: of the workspace, and then `path` begins with a slash. A trailing slash stays, as does `/.`."""

    path: str
    inside: bool

    @property
    def is_stream(self) -> bool:
        """Standard input or output."""
        return not self.inside and self.path == STREAM

    @property
    def is_folder(self) -> bool:
        """Whether the path itself says that it is one."""
        return self.path.endswith("/") or self.name in ("", ".", "..")

    @property
    def is_content(self) -> bool:
        """Whether what is in it is meant, not the folder: `dir/.`, and the top."""
        return self.path.endswith("/.") or self.path == "." or not self.path.strip("/")

    @property
    def name(self) -> str:
        """The last name, as written; "" for the top."""
        return last_name(self.path)

    def __str__(self) -> str:
        return f":{self.path}" if self.inside else self.path

    def within(self, name: str) -> Place:
        """What has this name in it."""
        return self._replace(path=posixpath.join(self.path, name))


def place_of(text: str) -> Place:
    """`:/src/a` and `:src/a` are in the workspace; anything else is of this machine, or a stream."""
    return Place(inside(text), True) if text.startswith(":") else Place(text, False)


def inside(text: str) -> str:
    """A path of the workspace from its top, with or without the colon that may stand before it."""
    path = text.removeprefix(":")
    return path if path.startswith("/") else f"/{path}"


def last_name(path: str) -> str:
    """ "c" of "/a/b/c" and of "/a/b/c/"."""
    return path.rstrip("/").rpartition("/")[2]


def folded(path: str) -> str:
    """The same path of the workspace without `.`, `..` and needless slashes, so that its last name is one."""
    return posixpath.normpath(f"/{path.lstrip('/')}")


class FilePath(WorkspacePath):
    """A path in the workspace, as the server takes it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return inside(_readable(self, str(value), param, ctx))


class FilePlace(WorkspacePath):
    """A path here or in the workspace. streams: `-` is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        if isinstance(value, Place):
            return value
        text = str(value)
        return place_of(_readable(self, text, param, ctx) if text.startswith(":") else text)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        if incomplete.startswith(":"):
            return super().shell_complete(ctx, param, incomplete)
        return [CompletionItem(incomplete, type="file")]


def _readable(
    kind: WorkspacePath, text: str, param: click.Parameter | None, ctx: click.Context | None
) -> str:
    """Raises BadParameter for bytes that are no text: no request can carry them."""
    try:
        text.encode()
    except UnicodeEncodeError:
        kind.fail(f"{text!r} is not UTF-8; such a file goes along with its directory", param, ctx)
    return text
