"""Who may import whom: the floors of the house, held by reading every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS: dict[str, int] = {
    "crypto": 0,
    "tunnel.host": 0,
    "tunnel.lab": 0,
    "tunnel.observe": 0,
    "tunnel.datapath": 0,
    "tunnel.io": 0,
    "tunnel.config": 1,
    "tunnel.protocol": 1,
    "tunnel.control": 2,
    "tunnel.engine": 2,
    "tunnel.daemon": 3,
    "tunnel.cli": 4,
    "tunnel.__main__": 5,
}
"""Height of each room. A module of `tunnel` that is not named here stands beside the daemon."""

FACADE = "tunnel"
"""The package itself; it may offer names of any floor, lazily."""

STRANGERS = {"tunnel.protocol", "tunnel.datapath", "tunnel.io", "tunnel.host"}
"""They never import each other; the engine and the daemon join them."""

KEEPERS_OF_CRYPTO = {"crypto", "tunnel.protocol", "tunnel.config"}
PURE = {"crypto", "tunnel.protocol"}
IMPURE_MODULES = {"trio", "socket", "time", "random", "os", "secrets", "threading", "asyncio"}


def room_of(module: str) -> str:
    """The room a dotted module name is in."""
    parts = module.split(".")
    if parts[0] == "crypto":
        return "crypto"
    room = ".".join(parts[:2])
    return room if room in FLOORS or room == FACADE else "tunnel.daemon"


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that `source` imports, absolute, `from x import y` as x.y and x."""
    package = module if is_package else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def violations(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` imports and must not."""
    here = room_of(module)
    found = []
    for name in imports_of(source, module, is_package=is_package):
        top = name.split(".")[0]
        if here in PURE and top in IMPURE_MODULES:
            found.append(f"{module} imports {name}: {here} knows no clock, socket or randomness")
        if top not in ("crypto", "tunnel"):
            continue
        there = room_of(name)
        if there in (here, FACADE) or here == FACADE:
            continue
        if {here, there} <= STRANGERS:
            found.append(f"{module} imports {name}: {here} and {there} are strangers")
        if FLOORS[there] >= FLOORS[here]:
            found.append(f"{module} imports {name}: {there} is not below {here}")
        if there == "crypto" and here not in KEEPERS_OF_CRYPTO:
            found.append(f"{module} imports {name}: only protocol and config import crypto")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    for top in ("crypto", "tunnel"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            yield ".".join(parts), path


def test_the_house_is_as_drawn() -> None:
    found = []
    names = []
    for module, path in modules():
        names.append(module)
        source = path.read_text(encoding="utf-8")
        found += violations(source, module, is_package=path.name == "__init__.py")
    assert len(names) > 50
    assert found == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crypto.noise", "import os"),
        ("crypto.noise", "from time import monotonic"),
        ("tunnel.protocol.peer", "import trio.lowlevel"),
        ("tunnel.protocol.peer", "from tunnel.io import udp"),
        ("tunnel.protocol.peer", "from ..datapath import reference"),
        ("tunnel.datapath.split", "import tunnel.protocol.peer"),
        ("tunnel.host.links", "from tunnel.config import load"),
        ("tunnel.io.tun", "from tunnel.host import links"),
        ("tunnel.engine", "from crypto.keys import PrivateKey"),
        ("tunnel.engine", "from tunnel import daemon"),
        ("tunnel.config.parser", "from tunnel.protocol import Peer"),
        ("tunnel.control.uapi", "from tunnel.engine import Engine"),
        ("tunnel.daemon", "from tunnel.cli import main"),
        ("tunnel.device.resolve", "from tunnel.cli.show import age"),
    ],
)
def test_a_violation_is_seen(module: str, source: str) -> None:
    assert violations(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("tunnel.protocol.peer", "from crypto.keys import PrivateKey"),
        ("tunnel.protocol.peer", "from . import timers"),
        ("tunnel.engine", "from tunnel.protocol import Interface\nfrom tunnel.io.udp import Udp"),
        ("tunnel.daemon", "from tunnel import host\nfrom tunnel.resolve import resolve"),
        ("tunnel.cli.main", "from tunnel import daemon"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []
