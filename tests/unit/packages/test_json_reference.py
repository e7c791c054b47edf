"""Every command with --json has a schema, and what it prints fits it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import jsonschema
import pytest

from packages.json_reference import OUTPUTS, schema
from tests.support.statuses import STATUS
from tunnel.bench.figures import Metric
from tunnel.bench.report import as_json
from tunnel.cli.reference import CommandHelp, commands


def _all(found: Iterator[CommandHelp]) -> Iterator[CommandHelp]:
    for command in found:
        yield command
        yield from _all(iter(command.below))


def test_every_command_with_json_has_a_schema() -> None:
    options = {
        command.title: [name for each in command.parameters for name in each.names]
        for _, group in commands()
        for command in _all(group)
    }
    # Its fields depend on the type of the event.
    assert {title for title in options if "--json" in options[title]} == {
        *OUTPUTS,
        "tunnel events",
    }


def test_what_a_bench_prints_fits() -> None:
    figures = {"ours": {"tcp": [6.0, 6.5]}, "bare": {"tcp": [3.0]}}
    report = as_json(figures, [Metric("tcp", "TCP", "Gbit/s")], rounds=2, seconds=1.5)
    jsonschema.Draft202012Validator(schema("tunnel bench")).validate(report)


def test_a_value_of_another_type_does_not_fit() -> None:
    status = STATUS.to_json()
    validator = jsonschema.Draft202012Validator(schema("tunnel show"))
    validator.validate(json.loads(json.dumps([status])))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate([status | {"mtu": "1420"}])
