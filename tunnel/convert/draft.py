"""What an importer found, in our keys, each with its place; and the conf that is made of it.

No importer judges a value: that is done by the parser of confs, whose errors are given the place
in the foreign file. What has no key of ours is said as Lost, never dropped in silence.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple

from tunnel.config import ConfigErrors, Problem, TunnelConfig, parse
from tunnel.config.keys import keys_of
from tunnel.config.model import SECTIONS
from tunnel.config.problems import Mistake, escape
from tunnel.config.render import render_line
from tunnel.config.values import dns
from tunnel.convert.routes import TunnelRoute, settle
from tunnel.linux.networks import Network, read_network

__all__ = ["Draft", "FileLine", "ForeignFile", "Lost", "Section", "refused"]

_LINE: Final = re.compile(r"\bline ([0-9]+)\b")


class FileLine(NamedTuple):
    """A line of a foreign file; None for the file as a whole."""

    file: str
    line: int | None = None

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A foreign file: its name in messages, its text, and its folder."""

    name: str
    text: str
    folder: Path = Path()

    def lines(self) -> Iterator[tuple[FileLine, str]]:
        """Each line with its place."""
        for number, line in enumerate(self.text.split("\n"), 1):
            yield FileLine(self.name, number), line


@dataclass(frozen=True, slots=True)
class Lost:
    """What a conversion does not carry: where it stands, what it is, and why or what to do."""

    place: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}: {self.why}"

    def to_json(self) -> dict[str, str]:
        """The same as JSON-ready types."""
        return asdict(self)


def refused(place: FileLine, fault: str, remedy: str) -> ConfigErrors:
    """The error of a foreign file that cannot be read, to be raised."""
    return ConfigErrors([Problem(escape(place.file), place.line, "", fault, remedy)])


@dataclass(slots=True)
class Section:
    """A section of the conf to be made. A peer's name is in `friendly_name`."""

    title: str
    place: FileLine
    friendly_name: str = ""
    _entries: dict[str, dict[str, FileLine]] = field(default_factory=dict)

    def set(self, key: str, value: str, place: FileLine) -> None:
        """Give a key this value, in place of what it had."""
        self._entries[key] = {value: place}

    def add(self, key: str, value: str, place: FileLine) -> None:
        """Add a value to those of a list; once only."""
        self._entries.setdefault(key, {}).setdefault(value, place)

    def clear(self, key: str) -> None:
        """Forget the values of a key."""
        self._entries.pop(key, None)

    def get(self, key: str) -> str | None:
        """The last value of a key."""
        return next(reversed(self._entries.get(key, {})), None)

    def networks(self) -> Iterator[tuple[Network, FileLine]]:
        """AllowedIPs, without what is none: the parser of confs will refuse that."""
        for value, place in self._entries.get("AllowedIPs", {}).items():
            with contextlib.suppress(ValueError):
                yield read_network(value, strict=False), place

    def lines(self) -> Iterator[tuple[str, str, FileLine]]:
        """Each key with a value, in the order of the table of keys."""
        for key in keys_of(SECTIONS[self.title]).values():
            for value, place in self._entries.get(key.name, {}).items():
                yield key.name, value, place


class Draft:
    """A conf in the making. `name` is the interface's, as far as the file says it.

    `routes` are those that the file sets up, None where the routes follow AllowedIPs as ours do.
    `keyless` says where the private key is if it is not in the file. With `text`, that is the conf
    already.
    """

    def __init__(self, place: FileLine) -> None:
        self.name = ""
        self.interface = Section("Interface", place)
        self.options = Section("Tunnel", place)
        self.peers: list[Section] = []
        self.routes: list[TunnelRoute] | None = None
        self.keyless = "it has no private key"
        self.lost: list[Lost] = []
        self.text: str | None = None

    def peer(self, place: FileLine) -> Section:
        """Begin a peer."""
        self.peers.append(Section("Peer", place))
        return self.peers[-1]

    def lose(self, place: FileLine, what: str, why: str) -> None:
        """Note what is not carried."""
        self.lost.append(Lost(escape(str(place)), escape(what), why))

    def lose_key(self, place: FileLine, what: str) -> None:
        """Note a setting that a conf has no key for."""
        self.lose(place, what, "a conf has no key for this")

    def add_dns(self, text: str, place: FileLine) -> None:
        """Add a name server or a search domain; one of another form than ours is lost."""
        try:
            dns(text)
        except Mistake:
            self.lose(place, f"the name server {text}", "DNS takes addresses and domains alone")
        else:
            self.interface.add("DNS", text, place)

    def config(self, name: str, folder: Path) -> TunnelConfig:
        """The conf, checked; key files are looked for in `folder`. Raises ConfigErrors."""
        if not (self.interface.get("PrivateKey") or self.interface.get("PrivateKeyFile")):
            remedy = "give the file of the key with --private-key-file"
            raise refused(self.interface.place, self.keyless, remedy)
        made = self._parsed(name, folder)
        if self.routes is not None:
            table, hooks, lost = settle(made, self.routes)
            self.lost += [Lost(escape(place), what, why) for place, what, why in lost]
            made = replace(made, interface=replace(made.interface, table=table, post_up=hooks))
        return made

    def _parsed(self, name: str, folder: Path) -> TunnelConfig:
        lines: list[str] = []
        places: list[FileLine] = []
        for section in (self.interface, self.options, *self.peers):
            lines.append(f"[{section.title}]")
            places.append(section.place)
            if section.friendly_name:
                lines.append(f"# friendly_name = {escape(section.friendly_name).strip()}")
                places.append(section.place)
            for key, value, place in section.lines():
                places.append(place)
                try:
                    lines.append(render_line(name, (key, value)))
                except ConfigErrors as error:
                    raise _placed(error, places, [len(places)]) from None
        try:
            return parse("\n".join(lines), name=name, folder=folder)
        except ConfigErrors as error:
            raise _placed(error, places, [problem.line for problem in error.problems]) from None


def _placed(
    error: ConfigErrors, places: Sequence[FileLine], lines: Iterable[int | None]
) -> ConfigErrors:
    """The error with places in the foreign file for lines of the conf that was made of it."""

    def place(line: int) -> FileLine:
        return places[min(line, len(places)) - 1]

    problems = []
    for problem, line in zip(error.problems, lines, strict=True):
        where = place(line or 1)
        fault = _LINE.sub(lambda found: str(place(int(found[1]))), problem.fault)
        problems.append(
            replace(problem, file=escape(where.file), line=where.line, fault=escape(fault))
        )
    return ConfigErrors(problems, more=error.more)
