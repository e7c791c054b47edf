"""TunnelConfig to text: whole (`dump`), or what stock `wg setconf` understands (`strip`)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from tunnel.config.expiry import expiry_text
from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.lexer import HOOKS
from tunnel.config.model import Section, TunnelConfig
from tunnel.config.problems import ConfigErrors, Problem, quote

__all__ = ["Line", "dump", "lines_of", "render_line", "strip", "value_text"]

_PER_LINE: Final = 8
"""Items on a line of a list; more are spread over several lines."""

Line = tuple[str, str]
"""A key as the manual spells it, and its value."""


def dump(config: TunnelConfig) -> str:
    """Write `config` as a conf that `parse` reads back to an equal one.

    Keys that came from a file are written as that file's name. Raises ConfigErrors if a value
    cannot stand on a line of its own, as a hook with a line break cannot.
    """
    interface = config.interface
    sections = [("[Interface]", list(lines_of(interface)))]
    options = list(lines_of(interface.options))
    if options:
        sections.append(("[Tunnel]", options))
    for peer in config.peers:
        # The name is for labels, and for Allow. One with a line break would not end as a comment.
        named = bool(peer.friendly_name) and peer.friendly_name.isprintable()
        comment = f"\n# friendly_name = {peer.friendly_name}" if named else ""
        if peer.expires is not None:
            comment += f"\n# expires = {expiry_text(peer.expires)}"
        sections.append((f"[Peer]{comment}", list(lines_of(peer))))
    return _render(config.name, sections)


def strip(config: TunnelConfig) -> str:
    """Write what `wg setconf` reads: keys and peers, without wg-quick's keys and [Tunnel].

    Keys that came from a file are written out, since `wg` has no such key.
    """
    sections = [("[Interface]", list(lines_of(config.interface, wg=True)))]
    sections += [("[Peer]", list(lines_of(peer, wg=True))) for peer in config.peers]
    return _render(config.name, sections)


def lines_of(section: Section, *, wg: bool = False) -> Iterator[Line]:
    """Yield the lines of a section, without values that are the default.

    With `wg` only keys that `wg setconf` knows; secrets that came from a file are written out.
    """
    for key in keys_of(type(section)).values():
        value = getattr(section, key.field)
        if wg and not key.wg:
            continue
        if key.file and not wg and getattr(section, key.file) is not None:
            continue
        if key.split is None:
            text = value_text(key, value)
            if text is not None:
                yield key.name, text
        else:
            per_line = 1 if key.name.lower() in HOOKS else _PER_LINE
            for start in range(0, len(value), per_line):
                yield key.name, ", ".join(map(key.write, value[start : start + per_line]))


def value_text(key: ConfKey, value: object) -> str | None:
    """The value of a key that is no list as it stands in a conf, None for the default."""
    return None if value == key.default else key.write(value)


def _render(name: str, sections: Sequence[tuple[str, Iterable[Line]]]) -> str:
    blocks = [
        "\n".join([head, *(render_line(name, line) for line in lines)]) for head, lines in sections
    ]
    return "\n\n".join(blocks) + "\n"


def render_line(name: str, line: Line) -> str:
    """Write `Key = value`. Raises ConfigErrors if the value would be read as something else."""
    key, value = line
    # A value that brings its own line break would become a line of its own: a hook, run as root.
    broken = any(character < " " and character != "\t" for character in value)
    if broken or value != value.strip() or ("#" in value and key.lower() not in HOOKS):
        raise ConfigErrors(
            [
                Problem(
                    name,
                    None,
                    key,
                    f"{key} must fit on one line of a conf, and {quote(value)} does not",
                    "remove control characters, '#' and white space around it",
                )
            ]
        )
    return f"{key} = {value}"
