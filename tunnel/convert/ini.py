"""Sections of `Key=value` lines, as systemd and GLib write them: alike, but in their quoting."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from tunnel.config.problems import escape, quote
from tunnel.convert.draft import FileLine, ForeignFile, refused

__all__ = ["NAME", "Block", "Item", "blocks", "name_comment"]

NAME: Final = "# friendly_name"
"""The key of an item that is a comment: the name of a peer, as exporters of metrics read it."""

_NAMED: Final = re.compile(r"#\s*friendly_name\s*=\s*(.*)", re.IGNORECASE)
_HEADER: Final = re.compile(r"\[([^\[\]\x00-\x1f]+)\]")


@dataclass(frozen=True, slots=True)
class Item:
    """A key and its value, white space around them removed, quoting as it stands."""

    key: str
    value: str
    place: FileLine


@dataclass(slots=True)
class Block:
    """A section and its items, in order. Sections of one name are not one."""

    title: str
    place: FileLine
    items: list[Item] = field(default_factory=list)

    def last(self) -> dict[str, Item]:
        """The last item of each key."""
        return {item.key: item for item in self.items}


def blocks(source: ForeignFile, *, comments: str, continued: bool) -> Iterator[Block]:
    """The sections of `source`. `comments` are the characters that begin one.

    With `continued`, a line that ends in a backslash goes on in the next one, and comments between
    them are skipped, as systemd.syntax(7) says. Raises ConfigErrors.
    """
    block: Block | None = None
    begun: tuple[FileLine, list[str]] | None = None
    # The line behind the last one ends one that would go on.
    for place, raw in chain(source.lines(), [(FileLine(source.name), "")]):
        line = raw.strip()
        named = _NAMED.fullmatch(line)
        if named is not None and block is not None and "peer" in block.title.lower():
            block.items.append(Item(NAME, named[1], place))
        if line[:1] in tuple(comments) or (not line and begun is None):
            continue
        if begun is not None:
            begun[1].append(line)
        else:
            begun = place, [line]
        if continued and line.endswith("\\"):
            begun[1][-1] = line[:-1] + " "
            continue
        (place, pieces), begun = begun, None
        line = "".join(pieces).strip()
        header = _HEADER.fullmatch(line)
        if header is not None:
            if block is not None:
                yield block
            block = Block(header[1], place)
            continue
        key, equals, value = line.partition("=")
        if not equals:
            raise refused(place, "this line (not shown) has no '='", "write it as Key=value")
        if block is None:
            fault = f"{quote(key.strip())} stands before the first section"
            raise refused(place, fault, "put its section on a line of its own above it")
        block.items.append(Item(key.strip(), value.strip(), place))
    if block is not None:
        yield block


def name_comment(name: str) -> str:
    """The line that keeps the name of a peer, if it has one."""
    return f"{NAME} = {escape(name)}\n" if name else ""
