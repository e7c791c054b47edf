"""What crosses the control socket as JSON: one dataclass for each result and event.

The daemon returns them, the client reads them back, and `--json` prints them.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints


class Message:
    """A dataclass of JSON-ready types, of tuples, and of other messages."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def to_json(self) -> dict[str, Any]:
        """The message as JSON-ready types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_json`; fields of a newer version are ignored.

        Raises TypeError if one is missing that has no default.
        """
        types = types_of(cls)
        known = {name: value for name, value in data.items() if name in types}
        return cls(**{name: _decode(types[name], value) for name, value in known.items()})


_TYPES: dict[type[Message], dict[str, Any]] = {}
"""Kept, as it takes long to find them and there may be thousands of peers."""


def types_of(kind: type[Message]) -> dict[str, Any]:
    """The types of a message's fields, by their names."""
    if kind not in _TYPES:
        _TYPES[kind] = get_type_hints(kind)
    return _TYPES[kind]


def _decode(kind: Any, value: Any) -> Any:
    if get_origin(kind) is tuple:
        (each, _) = get_args(kind)
        return tuple(map(each.from_json, value)) if _is_message(each) else tuple(value)
    return kind.from_json(value) if _is_message(kind) else value


def _is_message(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Message)
