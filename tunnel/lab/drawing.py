"""A plan as a picture in text: networks are double lines, hosts are boxes that hang on them.

The network "internet" is at the top. Each other one hangs below the first drawn host that is in it.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from ipaddress import ip_interface

from tunnel.lab.plan import INTERNET, Blueprint, Network

WIDTH = 80
"""Columns that a picture has at most."""

_STEM = 3
"""The column of a box in which its cables leave it."""


@dataclass(frozen=True)
class _Block:
    """Lines of one width; `stem` is the column in which a cable from above meets them."""

    lines: list[str]
    stem: int = _STEM


def draw(plan: Blueprint) -> list[str]:
    """The lines of the picture, each at most WIDTH columns wide."""
    top = next(network for network in plan.networks if network.name == INTERNET)
    picture = _network(plan, top, "", [network for network in plan.networks if network is not top])
    names = [place.name for place in plan.places]
    joined = [
        f"{side.name} ⇄ {peer}"
        for side in plan.sides
        for peer in side.peers
        if names.index(side.name) < names.index(peer)
    ]
    lines = [line.rstrip() for line in picture.lines]
    return [*lines, "", f" encrypted, from wg0 to wg0: {', '.join(joined)}"]


def _network(plan: Blueprint, network: Network, above: str, rest: list[Network]) -> _Block:
    """A network and all that hangs on it; `above` is the host that it hangs on itself."""
    below = [name for name in network.members if name != above]
    hanging = [_place(plan, name, network, rest) for name in below]
    labels = [_label(network)] if not above else [_own(network, above), _label(network)]
    if network.name == INTERNET and plan.wire is not None:
        labels += textwrap.wrap(f"bad wire: {plan.wire_words()}", WIDTH - 2 * _STEM - 4)
    margin = " " * (_STEM + 2) if above else " "
    lines, stems = _beside(hanging, max(len(margin + label) for label in labels))
    width = len(lines[0])
    line = ["═"] * width
    for stem in stems:
        line[stem] = "╤"
    if above:
        line[_STEM] = "╪" if _STEM in stems else "╧"
    up = "│" if above else " "
    head = [f"{' ' * _STEM}{up} {label}".ljust(width) for label in labels]
    return _Block([*head, "".join(line), *lines])


def _place(plan: Blueprint, name: str, network: Network, rest: list[Network]) -> _Block:
    """A host, and the networks below it."""
    below = [other for other in rest if name in other.members]
    left = [other for other in rest if other not in below]
    hanging = [_network(plan, other, name, left) for other in below]
    words = _words(plan, name)
    inside = max(map(len, words)) + 2
    lines, stems = _beside(hanging, inside + 2)
    top, bottom = ["─"] * inside, ["─"] * inside
    top[_STEM - 1] = "┴"
    for stem in stems:
        bottom[stem - 1] = "┬"
    box = [
        f"{' ' * _STEM}│ {_own(network, name)}",
        f"┌{''.join(top)}┐",
        *(f"│ {word.ljust(inside - 2)} │" for word in words),
        f"└{''.join(bottom)}┘",
    ]
    width = max(map(len, [*box, *lines]))
    return _Block([line.ljust(width) for line in [*box, *lines]])


def _beside(blocks: list[_Block], least: int) -> tuple[list[str], list[int]]:
    """Blocks side by side, as lines of one width, `least` or more; the columns of their stems."""
    lines = [""] * max((len(block.lines) for block in blocks), default=0)
    stems = []
    for block in blocks:
        start = len(lines[0]) + 1 if lines[0] else 0
        stems.append(start + block.stem)
        width = len(block.lines[0])
        padded = block.lines + [" " * width] * (len(lines) - len(block.lines))
        lines = [
            f"{line}{' ' if start else ''}{more}" for line, more in zip(lines, padded, strict=True)
        ]
    width = max([least, *map(len, lines)])
    return [line.ljust(width) for line in lines], stems


def _words(plan: Blueprint, name: str) -> list[str]:
    """What stands in the box of a host."""
    place, side = plan.place(name), plan.side(name)
    words = [f"{name}, {place.what}" if place.what else name]
    if side is not None:
        words += [f"wg0 {ip_interface(side.addresses[0]).ip}"]
    if place.publish:
        words.append(f"-p {place.publish}")
    elif place.serves:
        words.append(f"TCP port {place.serves}")
    return words


def _own(network: Network, name: str) -> str:
    return str(ip_interface(network.members[name][0]).ip)


def _label(network: Network) -> str:
    kind = "Docker network " if network.docker else "bridge " if network.bridge else ""
    first = next(iter(network.members.values()))
    return f"{kind}{network.name} {ip_interface(first[0]).network}"
