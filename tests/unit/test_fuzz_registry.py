"""Each module that reads bytes of others is tried by a fuzz target, or there is a reason."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tests.support.fuzz.registry import MODULES_WITHOUT, ROOMS_WITHOUT, TARGETS
from tests.support.fuzz.target import CORPUS
from tunnel.errors import TunnelError

ROOT = Path(__file__).parent.parent.parent
READERS = frozenset(
    [
        "loads",
        "read_json",
        "recv",
        "recvfrom",
        "recvmsg",
        "recv_into",
        "recvmsg_into",
        "receive_some",
        "getaddrinfo",
        "unpack_from",
        "iter_unpack",
        "read_text",
        "read_bytes",
        "read_plain",
        "stdin",
    ]
)
"""Names by which a module gets at bytes that another has written."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Each module that there is, but for those of rooms without targets."""
    for room in ("crypto", "tunnel"):
        for path in sorted((ROOT / room).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            if not name.startswith(tuple(f"{each}." for each in ROOMS_WITHOUT)):
                yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def untrusted_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name) | ast.AsyncFunctionDef(name) if name.endswith("_untrusted"):
                yield name


def reads_bytes(tree: ast.Module) -> bool:
    used = (
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute | ast.Name)
    )
    return not READERS.isdisjoint(used) or any(untrusted_functions(tree))


def test_each_module_that_reads_bytes_has_a_target_or_a_reason() -> None:
    reading = {name for name, tree in sources() if reads_bytes(tree)}
    tried = {module for target in TARGETS.values() for module in target.reads}
    assert reading - tried - set(MODULES_WITHOUT) == set(), "add a target, or the reason"
    assert set(MODULES_WITHOUT) - reading == set(), "reads nothing, and needs no reason"
    assert set(MODULES_WITHOUT) & tried == set(), "has a target, and needs no reason"


def test_each_target_has_a_corpus_and_each_corpus_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(target.corpus() for target in TARGETS.values())
    assert sum(len(data) for target in TARGETS.values() for data in target.corpus().values()) < 1e6


def test_the_corpora_reach_each_module_and_each_untrusted_function() -> None:
    """A target that stops short of what it is for is found."""
    called: set[tuple[str, str]] = set()
    ever: set[tuple[str, str]] = set()

    def see(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            called.add((frame.f_globals.get("__name__", ""), frame.f_code.co_name))

    for target in TARGETS.values():
        called.clear()
        sys.setprofile(see)
        try:
            for data in target.corpus().values():
                with suppress(target.refusal or TunnelError):
                    target.run(data)
        finally:
            sys.setprofile(None)
        reached = {module for module, _ in called}
        assert set(target.reads) <= reached, f"{target.name} reaches no function of a module"
        ever |= called
    untrusted = {(name, each) for name, tree in sources() for each in untrusted_functions(tree)}
    assert untrusted - ever == set()
