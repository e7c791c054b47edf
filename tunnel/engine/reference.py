"""docs/drops.md, made from the enums of drop reasons: python -m tunnel.engine.reference."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import StrEnum

from tunnel.datapath.drops import DatapathDrop
from tunnel.engine.common import EngineDrop
from tunnel.io.drops import IoDrop
from tunnel.protocol.drops import ProtocolDrop
from tunnel.switch.drops import SwitchDrop

__all__ = ["SOURCES", "page", "reasons"]

SOURCES: dict[type[StrEnum], str] = {
    ProtocolDrop: "The protocol",
    EngineDrop: "The engine",
    DatapathDrop: "The datapath",
    SwitchDrop: "The switch, with `Mode = tap`",
    IoDrop: "Between the daemon and the kernel",
}
"""Every enum of reasons, and the heading that it gets."""

_HEAD = """\
# Drop reasons

Made from the code by `python -m tunnel.engine.reference > docs/drops.md`.

Every dropped packet is counted under one of these names. `tunnel show` prints the totals, the
metrics have the name as the label `reason`, and the event `drops` reports new ones. A name in
capitals, such as EPERM, is the kernel's error.
"""


def page() -> str:
    """The text of docs/drops.md."""
    parts = [_HEAD]
    for enum, title in SOURCES.items():
        rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in reasons(enum))
        parts.append(f"## {title}\n\n| reason | meaning |\n| --- | --- |\n{rows}\n")
    return "\n".join(parts)


def reasons(enum: type[StrEnum]) -> Iterator[tuple[str, str]]:
    """Each reason, and what the code says of it: in a string below it, or a comment beside it."""
    source = inspect.getsource(enum)
    lines = source.splitlines()
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    for node, below in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(node, ast.Assign):
            continue
        beside = " ".join(lines[node.lineno - 1 : node.end_lineno]).partition("#")[2]
        text = beside.strip()
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            text = " ".join(str(below.value.value).split())
        yield str(ast.literal_eval(node.value)), text


if __name__ == "__main__":
    sys.stdout.write(page())
