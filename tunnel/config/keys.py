"""What there is to say about one key of a conf, and how to find the keys of a section.

The table itself is model.py: the fields of its dataclasses carry a ConfKey each.
"""

import dataclasses
import difflib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Final, Literal

from tunnel.config.values import squeeze

__all__ = [
    "ConfKey",
    "Reload",
    "closest",
    "comma_separated",
    "key",
    "keys_of",
    "whole_line",
    "words",
]

_KEY: Final = "key"


class Reload(Enum):
    """What `tunnel reload` does about a changed value."""

    LIVE = "at once; sessions of unchanged peers go on"
    HOST = "at once, on the host"
    SOCKET = "at once, on the UDP socket"
    DOWN = "used when the tunnel goes down"
    UP = "used when the tunnel comes up again"


@dataclass(frozen=True, slots=True)
class ConfKey:
    """How the value of a field stands in a conf.

    `read` takes a text, and raises Mistake or returns a value that may be Doubtful; `write` is its
    inverse. With `split`, the field is a tuple: the key may be repeated, and `split` gives the
    items of one line.
    """

    name: str
    """As the manual spells it."""
    read: Callable[[str], object]
    write: Callable[[Any], str]  # of the field's own type, which differs from key to key
    meaning: str
    reload: Reload
    example: str
    split: Callable[[str], list[str]] | None = None
    empty: Literal["error", "warning", "fine"] = "error"
    """What an empty value is: left to `read`, ignored with a warning, or ignored."""
    unique: bool = False
    """Whether an item that comes twice is an error."""
    wg: bool = False
    """Whether `wg setconf` knows the key."""
    file: str = ""
    """The field with the name of the file that holds the value, for a secret that may be in one."""
    is_file: bool = False
    """Whether the value is the name of such a file."""
    required: str = ""
    """The remedy if the key is missing; empty for an optional key."""
    unless: tuple[str, ...] = ()
    """Keys of the section of which any makes this one optional."""
    field: str = ""
    """The name of the field that carries this key."""
    default: object = None
    """The value of the field without the key; dataclasses.MISSING for a required one."""


def key(
    name: str,
    read: Callable[[str], object],
    meaning: str,
    *,
    reload: Reload,
    example: str,
    write: Callable[[Any], str] = str,
    split: Callable[[str], list[str]] | None = None,
    empty: Literal["error", "warning", "fine"] = "error",
    unique: bool = False,
    wg: bool = False,
    file: str = "",
    is_file: bool = False,
    required: str = "",
    unless: tuple[str, ...] = (),
) -> dict[str, ConfKey]:
    """The metadata of a field that stands in a conf as `name`, as ConfKey documents it."""
    entry = ConfKey(
        name,
        read,
        write,
        meaning,
        reload,
        example,
        split,
        empty,
        unique,
        wg,
        file,
        is_file,
        required,
        unless,
    )
    return {_KEY: entry}


def keys_of(section: type) -> dict[str, ConfKey]:
    """The keys of a section's dataclass in the order of its fields, by name in lower case."""
    return _keys_of(section)


@lru_cache
def _keys_of(section: type[Any]) -> dict[str, ConfKey]:
    return {
        each.metadata[_KEY].name.lower(): dataclasses.replace(
            each.metadata[_KEY], field=each.name, default=each.default
        )
        for each in dataclasses.fields(section)
        if _KEY in each.metadata
    }


def words(text: str) -> list[str]:
    """The items of a list as wg-quick reads it: separated by commas or white space."""
    return text.replace(",", " ").split()


def comma_separated(text: str) -> list[str]:
    """The items of a list as `wg` reads it: separated by commas, white space means nothing."""
    squeezed = squeeze(text)
    return squeezed.split(",") if squeezed else []


def whole_line(text: str) -> list[str]:
    """A shell command, `#` and commas included, as the only item of its line."""
    return [text] if text else []


@lru_cache(maxsize=1024)
def closest(name: str, candidates: tuple[str, ...]) -> str | None:
    """The candidate that a misspelled name most likely means."""
    if len(name) > 32:
        return None
    found = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return found[0] if found else None
