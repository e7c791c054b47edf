"""Who may import whom: the rooms of the house and their floors, held by reading every module.

Run by itself, it prints the house: python tests/unit/test_house.py
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FLOORS: dict[str, int] = {
    "crypto": 0,
    "tunnel.errors": 0,
    "tunnel.linux": 0,
    "tunnel.host": 1,
    "tunnel.io": 1,
    "tunnel.log": 1,
    "tunnel.packet": 1,
    "tunnel.systemd": 1,
    "tunnel.config": 2,
    "tunnel.datapath": 2,
    "tunnel.lab": 2,
    "tunnel.protocol": 2,
    "tunnel.switch": 2,
    "tunnel.bench": 3,
    "tunnel.convert": 3,
    "tunnel.engine": 3,
    "tunnel.control": 4,
    "tunnel.device": 5,
    "tunnel.trace": 5,
    "tunnel.capture": 6,
    "tunnel.daemon": 7,
    "tunnel.doctor": 8,
    "tunnel.containers": 8,
    "tunnel.web": 8,
    "tunnel.wg_quick": 8,
    "tunnel.api": 8,
    "tunnel.pair": 9,
    "tunnel.testing": 9,
    "tunnel.cli": 10,
    "tunnel.__main__": 11,
}
"""Height of each room. A module that is in none of them fails the test."""

FACADE = "tunnel"
"""The package itself; it may offer names of any floor, lazily."""

STRANGERS = {"tunnel.protocol", "tunnel.datapath", "tunnel.io", "tunnel.host", "tunnel.switch"}
"""They never import each other; the engine and the device join them."""

KEEPERS_OF_CRYPTO = {"crypto", "tunnel.protocol", "tunnel.config"}
PURE = {"crypto", "tunnel.protocol", "tunnel.switch"}
IMPURE_MODULES = {"trio", "socket", "time", "random", "os", "secrets", "threading", "asyncio"}

Graph = Mapping[str, set[str]]


def room_of(module: str) -> str | None:
    """The room a dotted module name is in; None for a loose one."""
    if module == FACADE:
        return FACADE
    parts = module.split(".")
    room = parts[0] if parts[0] == "crypto" else ".".join(parts[:2])
    return room if room in FLOORS else None


def imports_of(source: str, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that `source` imports, absolute, type-only ones too (`from x import y`: x.y)."""
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
    if here is None:
        return [f"{module} is in no room"]
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
        if there is None:
            found.append(f"{module} imports {name}, which is in no room")
            continue
        if {here, there} <= STRANGERS:
            found.append(f"{module} imports {name}: {here} and {there} are strangers")
        if FLOORS[there] >= FLOORS[here]:
            found.append(f"{module} imports {name}: {there} is not below {here}")
        if there == "crypto" and here not in KEEPERS_OF_CRYPTO:
            found.append(f"{module} imports {name}: only protocol and config import crypto")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the product: its dotted name and its file."""
    for top in ("crypto", "tunnel"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = list(path.relative_to(ROOT).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            yield ".".join(parts), path


def arrows(sources: Mapping[str, tuple[str, bool]]) -> Graph:
    """Module to the modules of ours that it imports. `sources` gives text and is-package by name.

    A submodule's way through its own package's `__init__` is left out: that is how a package
    offers its names.
    """
    graph: defaultdict[str, set[str]] = defaultdict(set)
    for module, (source, is_package) in sources.items():
        for imported in imports_of(source, module, is_package=is_package):
            name = imported
            while name and name not in sources:
                name = name.rpartition(".")[0]
            if name and name != module and not module.startswith(f"{name}."):
                graph[module].add(name)
    return graph


def circles(graph: Graph) -> list[list[str]]:
    """Groups of modules that import each other, directly or not (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        order[node] = lowest[node] = len(order)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in order:
                visit(other)
            if other in stack:
                lowest[node] = min(lowest[node], lowest[other])
        if lowest[node] == order[node]:
            start = stack.index(node)
            group, stack[start:] = stack[start:], []
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def read_house() -> Graph:
    """The arrows between all modules of the product."""
    return arrows(
        {
            module: (path.read_text(encoding="utf-8"), path.name == "__init__.py")
            for module, path in modules()
        }
    )


def room_arrows(graph: Graph) -> Graph:
    """The arrows between rooms."""
    rooms: defaultdict[str, set[str]] = defaultdict(set)
    for module, imported in graph.items():
        here = room_of(module)
        for name in imported:
            there = room_of(name)
            if here and there and here != there and FACADE not in (here, there):
                rooms[here].add(there)
    return rooms


def test_the_house_is_as_drawn() -> None:
    found = []
    names = []
    for module, path in modules():
        names.append(module)
        source = path.read_text(encoding="utf-8")
        found += violations(source, module, is_package=path.name == "__init__.py")
    assert len(names) > 50
    assert found == []


def test_every_room_that_is_drawn_is_there() -> None:
    assert {room_of(module) for module, _ in modules()} == {*FLOORS, FACADE}


def test_no_circle_of_modules() -> None:
    assert circles(read_house()) == []


def test_no_circle_of_rooms() -> None:
    assert circles(room_arrows(read_house())) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("crypto.noise", "import os"),
        ("crypto.noise", "from time import monotonic"),
        ("tunnel.protocol.peer", "import trio.lowlevel"),
        ("tunnel.protocol.peer", "from tunnel.io import udp"),
        ("tunnel.protocol.peer", "from ..datapath import reference"),
        ("tunnel.datapath.split", "import tunnel.protocol.peer"),
        ("tunnel.switch.switch", "from tunnel.protocol import Peer"),
        ("tunnel.switch.mac_table", "import time"),
        ("tunnel.host.links", "from tunnel.config import load"),
        ("tunnel.io.tun", "from tunnel.host import links"),
        ("tunnel.engine", "from crypto.keys import PrivateKey"),
        ("tunnel.engine", "from tunnel import daemon"),
        ("tunnel.config.parser", "from tunnel.protocol import Peer"),
        ("tunnel.control.uapi_client", "from tunnel.device import uapi"),
        ("tunnel.daemon", "from tunnel.cli import main"),
        ("tunnel.device.resolve", "from tunnel.cli.status import age"),
        ("tunnel.loose", "import os"),
        ("tunnel.api", "from tunnel.loose import name"),
        (
            "tunnel.engine.common",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tunnel import daemon",
        ),
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
        ("tunnel.daemon", "from tunnel import host\nfrom tunnel.device.resolve import resolve"),
        ("tunnel.cli.main", "from tunnel import daemon"),
    ],
)
def test_what_is_allowed_is_allowed(module: str, source: str) -> None:
    assert violations(source, module) == []


SHARED_BY_TESTS = ("tests.support", "tests.soak", "tests.conformance")
"""The last two have programs, which have tests, too."""


def test_helpers_of_tests_live_in_support() -> None:
    """No test module imports another, nor a conftest; what tests share is in tests/support.

    The programs of tests/soak run for hours, and in a test for seconds; so do the rules of
    tests/conformance.
    """
    found = []
    others = {"support", "setup", "soak", "conformance", "packages"}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        place = path.relative_to(ROOT / "tests")
        is_test = path.name.startswith(("test_", "conftest", "__init"))
        if place.parts[0] not in others and not is_test:
            found.append(f"{place} is no test: it belongs into tests/support")
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name in imports_of(path.read_text(encoding="utf-8"), module, is_package=False):
            if name.startswith("tests.") and not name.startswith(SHARED_BY_TESTS):
                found.append(f"{place} imports {name}")
    assert found == []


STOPWATCHES = {"perf_counter", "perf_counter_ns", "process_time", "thread_time"}
CLOCKS = {"time", "monotonic"}


def timed_asserts(source: str) -> list[int]:
    """Lines that measure how long something took: that depends on the machine, and on its load.

    A deadline for an event is no such thing. Work is counted instead (support/operations.py), and
    times are for `tunnel bench`.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute | ast.Name):
            name = node.attr if isinstance(node, ast.Attribute) else node.id
            if name in STOPWATCHES:
                found.append(node.lineno)
        elif isinstance(node, ast.Assert):
            found += [
                inner.lineno
                for inner in ast.walk(node)
                if isinstance(inner, ast.BinOp)
                and any(
                    isinstance(part, ast.Call)
                    and isinstance(part.func, ast.Attribute)
                    and part.func.attr in CLOCKS
                    and ast.unparse(part.func.value) == "time"
                    for part in (inner.left, inner.right)
                )
            ]
    return found


def test_no_test_asserts_a_wall_clock_time() -> None:
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if (lines := timed_asserts(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    "source",
    ["start = time.perf_counter()", "assert time.monotonic() - start < 5", "thread_time()"],
)
def test_a_timed_assert_is_seen(source: str) -> None:
    assert timed_asserts(source)


def test_a_circle_is_seen_type_only_imports_too() -> None:
    graph = arrows(
        {
            "a": ("", True),
            "a.one": ("from a import two", False),
            "a.two": ("if TYPE_CHECKING:\n    from a.three import x", False),
            "a.three": ("def f():\n    import a.one", False),
            "a.four": ("from a.one import y", False),
        }
    )
    assert circles(graph) == [["a.one", "a.three", "a.two"]]


def print_house() -> None:
    """Print the rooms floor by floor, whom each imports, and what is wrong."""
    graph = read_house()
    rooms = room_arrows(graph)
    for room in sorted(FLOORS, key=lambda name: (-FLOORS[name], name)):
        count = sum(room_of(module) == room for module, _ in modules())
        below = ", ".join(sorted(name.removeprefix("tunnel.") for name in rooms.get(room, ())))
        print(f"{FLOORS[room]:3} {room:18} {count:3} modules  imports {below or 'nothing'}")
    loose = [module for module, _ in modules() if room_of(module) is None]
    upward = [
        f"{here} -> {there}"
        for here, others in rooms.items()
        for there in others
        if FLOORS[there] >= FLOORS[here]
    ]
    print(
        f"{len(FLOORS)} rooms, {sum(map(len, rooms.values()))} arrows; "
        f"loose modules: {loose or 'none'}; upward arrows: {upward or 'none'}; "
        f"circles: {circles(graph) + circles(rooms) or 'none'}"
    )


if __name__ == "__main__":
    print_house()
