"""Dataclasses as JSON and back, by their types: what one supervisor tells the next. Knows no field.

For data that this program wrote itself; data from a server is checked by `shape`.
"""

from __future__ import annotations

import types
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def encode(value: Any) -> dict[str, Any]:
    """A dataclass as `json` takes it. Strings, numbers and lists may be shared with it."""
    return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, Path):
        return str(value)
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value


def decode(kind: type[T], data: Any) -> T:
    """What `encode` made of a `kind`, after JSON. Raises KeyError, TypeError or ValueError for any other."""
    result: T = _decode(kind, data)
    return result


_hints = cache(get_type_hints)


def _decode(kind: Any, data: Any) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is types.UnionType:
        [wanted] = [each for each in inner if each is not types.NoneType]
        return None if data is None else _decode(wanted, data)
    if origin is dict:
        return {inner[0](name): _decode(inner[1], each) for name, each in data.items()}
    if origin is list:
        return [_decode(inner[0], each) for each in data]
    if origin is tuple:
        kinds = [inner[0]] * len(data) if inner[-1] is Ellipsis else inner
        return tuple(_decode(each, item) for each, item in zip(kinds, data, strict=True))
    if is_dataclass(kind):
        return _fields(kind, data)
    if isinstance(kind, type) and issubclass(kind, tuple):  # a named one
        return kind(*(_decode(each, item) for each, item in zip(_hints(kind).values(), data, strict=True)))
    return Path(data) if kind is Path else data


def _fields(kind: Any, data: dict[str, Any]) -> Any:
    hints = _hints(kind)
    if data.keys() != {each.name for each in fields(kind)}:
        raise TypeError(f"{kind.__name__} has other fields than {', '.join(data)}")
    return kind(**{name: _decode(hints[name], each) for name, each in data.items()})
