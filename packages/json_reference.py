"""What `--json` prints, made from the types: JSON Schemas, and a page about them."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from tunnel.bench.report import BenchReport
from tunnel.cli.firewall import Rules
from tunnel.cli.labtrials import LabReport
from tunnel.cli.peer import PeerReport
from tunnel.cli.trace import TraceReport
from tunnel.control.messages.changes import ReloadResult
from tunnel.control.messages.status import TunnelStatus
from tunnel.doctor.findings import Report

OUTPUTS: Final[dict[str, Any]] = {
    "tunnel show": list[TunnelStatus],
    "tunnel top": list[TunnelStatus],
    "tunnel doctor": list[Report],
    "tunnel diff": ReloadResult,
    "tunnel reload": ReloadResult,
    "tunnel trace": TraceReport,
    "tunnel firewall": Rules,
    "tunnel peer list": list[PeerReport],
    "tunnel lab": LabReport,
    "tunnel bench": BenchReport,
}
"""The type of what each command prints with --json; of `tunnel events` see docs/control.md."""

_ADDED: Final[dict[str, dict[str, dict[str, Any]]]] = {
    "tunnel doctor": {"Report": {"healthy": bool}},
    "tunnel top": {
        "TunnelStatus": {
            "cpu": float,
            "new_drops": dict[str, int],
            "rates": dict[str, dict[str, float]],
        }
    },
}
"""Fields that `to_json` adds to those of the type."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema(command: str) -> dict[str, Any]:
    """The JSON Schema of what the command prints."""
    made = msgspec.json.schema(OUTPUTS[command])
    for name, definition in made["$defs"].items():
        # By a type alone it is not known that `to_json` writes every field.
        for field, kind in _ADDED.get(command, {}).get(name, {}).items():
            definition["properties"][field] = msgspec.json.schema(kind)
            definition["required"].append(field)
        definition["description"] = inspect.cleandoc(definition["description"])
    return {"$schema": _DIALECT, "title": f"{command} --json", **made}


def page() -> str:
    """The page in Markdown: the commands, then the fields of each type."""
    return "\n".join(_lines()) + "\n"


def write(folder: Path) -> None:
    """Write the page, and the schema of each command beside it."""
    (folder / "json.md").write_text(page())
    (folder / "schemas").mkdir(exist_ok=True)
    for command in OUTPUTS:
        text = json.dumps(schema(command), indent=2)
        (folder / "schemas" / _file(command)).write_text(f"{text}\n")


def _file(command: str) -> str:
    return f"{command.removeprefix('tunnel ').replace(' ', '-')}.json"


def _lines() -> Iterator[str]:
    yield from (
        "# What `--json` prints",
        "",
        "Fields may be added in a later version: ignore those that you do not know.",
        "`tunnel events --json` prints one object a line, whose fields depend on its type:",
        "[events](control.md#events).",
        "",
        "| command | prints | JSON Schema |",
        "|---|---|---|",
    )
    types: dict[str, dict[str, Any]] = {}
    for command in OUTPUTS:
        made = schema(command)
        types |= {name: each for name, each in made["$defs"].items() if name not in types}
        added = _ADDED.get(command, {})
        more = [field for fields in added.values() for field in fields]
        also = f", with {', '.join(f'`{field}`' for field in more)}" if more else ""
        file = _file(command)
        yield f"| `{command} --json` | {_words(made)}{also} | [{file}](schemas/{file}) |"
    for name, each in types.items():
        yield from ("", f"## {name}", "", each["description"], "", "| field | type |", "|---|---|")
        for field, kind in each["properties"].items():
            yield f"| `{field}` | {_words(kind)} |"


def _words(kind: Mapping[str, Any]) -> str:
    """What a schema says, in words."""
    if "$ref" in kind:
        name = kind["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in kind:
        return " or ".join(map(_words, kind["anyOf"]))
    if "enum" in kind:
        return ", ".join(f"`{value}`" for value in kind["enum"])
    if kind.get("type") == "array":
        if "prefixItems" in kind:
            return f"list of {', '.join(map(_words, kind['prefixItems']))}"
        return f"list of {_words(kind['items'])}"
    if kind.get("type") == "object":
        return f"object of {_words(kind['additionalProperties'])}"
    return str(kind["type"])
