"""What to pass over, by the lines of a .gitignore file. Knows lines and paths; opens nothing.

Lines come from the workspace, so they are hostile: RE2 matches them, in bounded time and memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

from mhnos_runtime.errors import InvalidRequest
from mhnos_runtime.files.glob import expression
from mhnos_runtime.files.paths import PARTIAL_PREFIX
from mhnos_runtime.patterns import engine

USUAL: tuple[str, ...] = (
    ".git/",
    "node_modules/",
    ".venv/",
    "venv/",
    "__pycache__/",
    ".cache/",
    ".mypy_cache/",
    ".pytest_cache/",
    "*.tmp",
    f"{PARTIAL_PREFIX}*",
)
"""What programs make and nobody edits."""

MAX_LINES = 2000
"""Of one set of rules; the rest is not looked at. Collections of templates have some 1,500."""

MAX_LINE_BYTES = 1024
"""Of one line; a longer one is passed over."""

MAX_BYTES = 64 * 1024
"""Of all lines of one set of rules."""

MAX_WILD_BYTES = 32 * 1024
"""Of the expressions of all lines with a wildcard; what is beyond has no effect. For the worst that they can
be, RE2 makes a state anew for each byte of a path: 0.1 ms for each."""

_SET_GLOBS = 50
_SET_BYTES = 8 * 1024
"""Expressions that are matched together, in a memory of 1 MiB: more of them would have too many states."""

_SET_MEMORY = 1 << 20

_WILD = frozenset(b"*?[\\")


class _Rule(NamedTuple):
    """A line. whole: its glob is about the path, and not about the name alone."""

    glob: bytes
    ignores: bool
    directories_only: bool
    whole: bool

    @property
    def plain(self) -> bool:
        """Without a wildcard."""
        return not _WILD.intersection(self.glob)


class Ignore:
    """Rules, of which the last one that matches counts. Immutable, so that threads may share it. size: bytes
    of what is matched by RE2, which takes 128 times as much memory at most."""

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = rules
        self._names = _Globs(rules, whole=False, room=MAX_WILD_BYTES)
        self._paths = _Globs(rules, whole=True, room=MAX_WILD_BYTES - self._names.size)
        self.size = self._names.size + self._paths.size

    @classmethod
    def of(cls, lines: Sequence[str]) -> Self:
        """Lines as in a .gitignore file. What is beyond the bounds, or no pattern, has no effect. Raises
        Unavailable where RE2 is not installed."""
        return cls(list(_rules(lines)))

    @classmethod
    def named(cls, glob: str) -> Self:
        """One line, as a pattern that somebody looks for: what it "ignores" is found. Raises InvalidRequest
        where it can find nothing, and Unavailable."""
        made = cls.of([glob])
        if not any(rule.ignores and (rule.plain or made.size) for rule in made._rules):
            raise InvalidRequest(
                "name: this is no glob that finds something", hint="as in .gitignore: *.py, src/**/test_*"
            )
        return made

    def __bool__(self) -> bool:
        return bool(self._rules)

    def says(self, path: str, is_directory: bool) -> bool | None:
        """Whether this very path is ignored, or expressly not; None where no rule matches it. For walks,
        which do not enter what is ignored. path: from the folder of the rules, no slash at its ends."""
        raw = path.encode("utf-8", "surrogateescape")
        found = self._names.find(raw[raw.rfind(b"/") + 1 :]) + self._paths.find(raw)
        for number in sorted(found, reverse=True):
            rule = self._rules[number]
            if is_directory or not rule.directories_only:
                return rule.ignores
        return None

    def ignores(self, path: str, is_directory: bool) -> bool:
        """Whether the path is ignored, or a directory above it is: what is in that one cannot be had back."""
        ends = [at for at, char in enumerate(path) if char == "/"]
        return any(self.says(path[:end], True) for end in ends) or bool(self.says(path, is_directory))


class _Globs:
    """The globs of some rules: those without a wildcard in a table, the others in sets of RE2. room, size:
    bytes of their expressions."""

    def __init__(self, rules: Sequence[_Rule], *, whole: bool, room: int) -> None:
        self.size = 0
        self._plain: dict[bytes, list[int]] = {}
        wild: list[tuple[int, bytes]] = []
        for number, rule in enumerate(rules):
            if rule.whole != whole:
                continue
            if rule.plain:
                self._plain.setdefault(rule.glob, []).append(number)
            elif self.size < room and (made := expression(rule.glob)) and self.size + len(made) <= room:
                self.size += len(made)
                wild.append((number, made))
        self._sets = [each for part in _parts(wild) for each in _sets(part)]

    def find(self, text: bytes) -> list[int]:
        """The numbers of the rules that match."""
        found = list(self._plain.get(text, ()))
        for numbers, made in self._sets:
            found += [numbers[each] for each in made.Match(text) or ()]
        return found


def _rules(lines: Iterable[str]) -> Iterator[_Rule]:
    size = 0
    for number, line in enumerate(lines):
        raw = line.encode("utf-8", "surrogateescape")
        size += len(raw)
        if number >= MAX_LINES or size > MAX_BYTES:
            return
        rule = _rule(raw) if len(raw) <= MAX_LINE_BYTES else None
        if rule is not None:
            yield rule


def _rule(line: bytes) -> _Rule | None:
    """gitignore(5), "PATTERN FORMAT"."""
    glob = _stripped(line.removesuffix(b"\r"))
    if glob.startswith(b"#"):
        return None
    ignores = not glob.startswith(b"!")
    glob = glob[not ignores :]
    directories_only = glob.endswith(b"/")
    glob = glob[: len(glob) - directories_only]
    whole = b"/" in glob
    glob = glob.removeprefix(b"/")
    return _Rule(glob, ignores, directories_only, whole) if glob else None


def _stripped(line: bytes) -> bytes:
    """Without the spaces at its end, but for the first one behind a backslash."""
    bare = line.rstrip(b" ")
    backslashes = len(bare) - len(bare.rstrip(b"\\"))
    return line[: len(bare) + 1] if backslashes % 2 else bare


def _parts(wild: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    part: list[tuple[int, bytes]] = []
    size = 0
    for number, made in wild:
        if part and (len(part) >= _SET_GLOBS or size + len(made) > _SET_BYTES):
            yield part
            part, size = [], 0
        part.append((number, made))
        size += len(made)
    if part:
        yield part


def _sets(part: list[tuple[int, bytes]]) -> Iterator[tuple[list[int], Any]]:
    """Sets of RE2, with the numbers of their rules. Those that need too much memory are made smaller; a rule
    that needs it alone has no effect."""
    re2 = engine()
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = _SET_MEMORY
    options.never_capture = options.dot_nl = True
    options.log_errors = False
    made = re2.Set.FullMatchSet(options)
    try:
        for _, each in part:
            made.Add(each)
        made.Compile()
    except re2.error:
        if len(part) > 1:
            yield from _sets(part[: len(part) // 2])
            yield from _sets(part[len(part) // 2 :])
        return
    yield [number for number, _ in part], made
