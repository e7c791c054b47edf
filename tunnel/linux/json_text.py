"""JSON that another program wrote, or that lay in a file: read so that ValueError is all it raises.

`json.loads` also raises RecursionError, of what is nested too deeply. It takes NaN and Infinity,
which are no JSON, and makes an infinity of 1e999, of which no integer can be made.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_T = TypeVar("_T")


def read_json(text: str | bytes | bytearray) -> Any:
    """The value of a JSON text; each number in it is finite. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def as_text(value: object) -> str:
    """The value itself if it is a string: `ipaddress` also takes numbers. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a string")
    return value


def check_fields(made: _T) -> _T:
    """The dataclass itself, if the value of each of its fields, and of theirs, is of the field's
    type. Raises TypeError.
    """
    for name, kind in _types(type(made)).items():
        value = getattr(made, name)
        if not _fits(value, kind):
            raise TypeError(f"{name} is not {kind if get_args(kind) else kind.__name__}")
    return made


_FLOAT_BITS = 1023
"""Of an integer that a float can hold."""

_TYPES: dict[type, dict[str, Any]] = {}
"""Kept, as it takes long to find them."""


def _types(kind: type) -> dict[str, Any]:
    if kind not in _TYPES:
        hints = get_type_hints(kind)
        _TYPES[kind] = {each.name: hints[each.name] for each in dataclasses.fields(kind)}
    return _TYPES[kind]


def _fits(value: object, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return type(value) is not bool and value in arguments
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return (
            isinstance(value, tuple)
            and len(value) == len(arguments)
            and all(map(_fits, value, arguments))
        )
    if origin in (tuple, frozenset):
        return isinstance(value, origin) and all(_fits(one, arguments[0]) for one in value)
    if origin is Mapping:
        return isinstance(value, Mapping) and all(
            _fits(name, arguments[0]) and _fits(one, arguments[1]) for name, one in value.items()
        )
    if kind is float:
        return type(value) is float or (type(value) is int and value.bit_length() < _FLOAT_BITS)
    if kind in (int, bool):
        return type(value) is kind
    if dataclasses.is_dataclass(value) and isinstance(value, kind):
        check_fields(value)
        return True
    return isinstance(value, kind)
