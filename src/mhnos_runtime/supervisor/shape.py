"""Whether parsed JSON has the form of a dataclass: types, ranges, lengths. Knows no meaning.

After this check `from_dict` cannot fail, and every number is in the range of the system calls that take it.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

from mhnos_runtime.bounds import FACTS_DEPTH, MAX_INTEGER

#: Raises BadShape; the second argument names the place.
Check: TypeAlias = Callable[[Any, str], None]
#: By "Class.field": the range of a number, if it is not 0 to MAX_INTEGER.
Ranges: TypeAlias = Mapping[str, tuple[int, int]]

#: Items of one list (rules, options, arguments): more than any real one has.
MAX_ITEMS = 16_384


class BadShape(ValueError):
    """Says which field is wrong and what was expected."""


def checker(kind: type, ranges: Ranges, without: Collection[str] = ()) -> Check:
    """For a dataclass: all fields except those in `without` must be there, and no others."""
    return _dataclass(kind, ranges, without)


def _checker(kind: Any, bounds: tuple[int, int], ranges: Ranges) -> Check:
    if kind is int:
        return lambda value, where: integer(value, where, *bounds)
    if kind is str:
        return text
    if kind is bool:
        return boolean
    if isinstance(kind, type) and is_dataclass(kind):
        return _dataclass(kind, ranges)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        [wanted] = [each for each in inner if each is not types.NoneType]
        return _optional(_checker(wanted, bounds, ranges))
    if origin is dict:
        return plain if inner[1] is Any else _texts_by_name
    if origin is tuple and inner[-1] is Ellipsis:
        return _list(_checker(inner[0], bounds, ranges))
    if origin is tuple:
        return _row([_checker(each, bounds, ranges) for each in inner])
    raise TypeError(f"no check for {kind!r}")


def integer(value: Any, where: str, low: int = 0, high: int = MAX_INTEGER) -> None:
    if type(value) is not int or not low <= value <= high:
        raise BadShape(f"{where} is not a whole number from {low} to {high}")


def text(value: Any, where: str) -> None:
    """Without NUL, which no path contains, and without lone surrogates, which are not UTF-8."""
    if not isinstance(value, str) or "\0" in value:
        raise BadShape(f"{where} is not a text without NUL")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadShape(f"{where} is not Unicode text") from None


def boolean(value: Any, where: str) -> None:
    if not isinstance(value, bool):
        raise BadShape(f"{where} is not true or false")


def plain(value: Any, where: str) -> None:
    """An object with any content that is not nested too deep to be written again."""
    if not isinstance(value, dict):
        raise BadShape(f"{where} is not an object")
    level: list[Any] = [value]
    for _ in range(FACTS_DEPTH):
        level = [item for each in level for item in _inside(each)]
        if not level:
            return
    raise BadShape(f"{where} is nested deeper than {FACTS_DEPTH} levels")


def _inside(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]


def _texts_by_name(value: Any, where: str) -> None:
    if not isinstance(value, dict):
        raise BadShape(f"{where} is not an object")
    for name, each in value.items():
        text(name, where)
        text(each, where)


def _optional(check: Check) -> Check:
    return lambda value, where: None if value is None else check(value, where)


def _list(check: Check) -> Check:
    def check_list(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple) or len(value) > MAX_ITEMS:
            raise BadShape(f"{where} is not a list of at most {MAX_ITEMS}")
        for item in value:
            check(item, where)

    return check_list


def _row(checks: list[Check]) -> Check:
    def check_row(value: Any, where: str) -> None:
        if not isinstance(value, list | tuple) or len(value) != len(checks):
            raise BadShape(f"{where} is not a list of {len(checks)}")
        for check, item in zip(checks, value, strict=True):
            check(item, where)

    return check_row


def _dataclass(kind: type, ranges: Ranges, without: Collection[str] = ()) -> Check:
    hints = get_type_hints(kind)
    checks = {
        each.name: _checker(
            hints[each.name], ranges.get(f"{kind.__name__}.{each.name}", (0, MAX_INTEGER)), ranges
        )
        for each in fields(kind)
        if each.name not in without
    }

    def check_fields(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise BadShape(f"{where} is not an object")
        if value.keys() != checks.keys():
            odd = min(value.keys() ^ checks.keys())
            raise BadShape(f"{where}: field {odd[:40]!r} is missing or unknown")
        for name, item in value.items():
            checks[name](item, f"{where}.{name}")

    return check_fields
