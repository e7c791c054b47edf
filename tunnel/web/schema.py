"""Messages as JSON Schema (2020-12), and bodies read by it: both from the types of their fields."""

from __future__ import annotations

import dataclasses
import inspect
import types
from typing import Any, TypeVar, Union, get_args, get_origin

from tunnel.control.messages import Message, types_of
from tunnel.linux.json_text import read_json
from tunnel.web.errors import WebError

MAX_TEXT = 4096
"""Characters of a text in a body."""

MAX_ITEMS = 256
"""Items of a list in a body."""

_PLAIN: dict[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number"}

_M = TypeVar("_M", bound=Message)


def schema_of(kind: type[Message]) -> dict[str, Any]:
    """The schema of a message; other messages are referred to."""
    hints = types_of(kind)
    fields = dataclasses.fields(kind)
    return {
        "type": "object",
        "description": " ".join((inspect.getdoc(kind) or "").split()),
        "properties": {field.name: _schema(hints[field.name]) for field in fields},
        "required": [field.name for field in fields if field.default is dataclasses.MISSING],
        "additionalProperties": False,
    }


def reference(kind: type[Message]) -> dict[str, Any]:
    """A reference to the schema of a message in an OpenAPI description."""
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _schema(hint: Any) -> dict[str, Any]:
    origin = get_origin(hint)
    if origin is tuple:
        return {"type": "array", "items": _schema(get_args(hint)[0])}
    if origin in (Union, types.UnionType):
        (inner,) = (each for each in get_args(hint) if each is not types.NoneType)
        return {"type": [_PLAIN[inner], "null"]}
    return {"type": _PLAIN[hint]} if hint in _PLAIN else reference(hint)


def read_untrusted(kind: type[_M], data: bytes | bytearray) -> _M:
    """The message that a body is. Raises WebError."""
    try:
        body = read_json(data)
    except ValueError:
        raise _refused("the body is not JSON") from None
    if not isinstance(body, dict):
        raise _refused("a JSON object is expected")
    hints = types_of(kind)
    fields = dataclasses.fields(kind)
    unknown = body.keys() - {field.name for field in fields}
    if unknown:
        raise _refused(f"there is no field {min(unknown)[:40]!r} here")
    for field in fields:
        if field.name in body:
            body[field.name] = _read(hints[field.name], body[field.name], field.name)
        elif field.default is dataclasses.MISSING:
            raise _refused(f"the field {field.name!r} is missing")
    return kind(**body)


def _read(hint: Any, value: object, name: str) -> object:
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise _refused(f"{name!r} must be a list of at most {MAX_ITEMS} items")
        return tuple(_read(get_args(hint)[0], each, name) for each in value)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (hint,) = (each for each in get_args(hint) if each is not types.NoneType)
    if type(value) is not hint:
        raise _refused(f"{name!r} must be of type {_PLAIN[hint]}")
    if isinstance(value, str) and len(value) > MAX_TEXT:
        raise _refused(f"{name!r} must have at most {MAX_TEXT} characters")
    return value


def _refused(message: str) -> WebError:
    return WebError(400, "body", message)
