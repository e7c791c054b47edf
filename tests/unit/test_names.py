"""One name, one class: no two public classes of the product share a name."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

SHARED = {
    # To be renamed.
    "Handshakes": {"tunnel.daemon.prometheus", "tunnel.protocol.handshakes"},
    "TransportHeader": {"crypto.messages", "tunnel.datapath.ip"},
}
"""Names that several modules may have, and which."""


def public_classes(source: str) -> Iterator[str]:
    """Names of the classes at the top of a module that do not begin with `_`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name


def shared(sources: Iterable[tuple[str, str]]) -> dict[str, set[str]]:
    """Names of several classes, and their modules. `sources` are names and texts of modules."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module, source in sources:
        for name in public_classes(source):
            found[name].add(module)
    return {name: modules for name, modules in found.items() if len(modules) > 1}


def product() -> Iterator[tuple[str, str]]:
    for top in ("crypto", "tunnel"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts), path.read_text("utf-8")


def test_no_two_classes_share_a_name() -> None:
    sources = list(product())
    assert len(sources) > 100
    found = shared(sources)
    assert {name: found[name] for name in found if not found[name] <= SHARED.get(name, set())} == {}


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ("class A: ...", "class A: ...", {"A"}),
        ("class A: ...", "class B: ...", set()),
        ("class _A: ...", "class _A: ...", set()),
        ("class A:\n    class B: ...", "class B: ...", set()),
    ],
)
def test_a_shared_name_is_seen(one: str, other: str, names: set[str]) -> None:
    assert set(shared([("m", one), ("n", other)])) == names
