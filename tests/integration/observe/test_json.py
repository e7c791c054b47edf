"""What the commands print with --json fits the schemas of the documentation."""

from __future__ import annotations

import json
import subprocess
import sys

import jsonschema
import pytest

from packages.json_reference import OUTPUTS, schema
from tests.support.pairs import Pair

pytestmark = pytest.mark.root


def _check(command: str, printed: str) -> None:
    # Strictly: a field that the schema does not have is one that the documentation lacks.
    made = schema(command)
    for definition in made["$defs"].values():
        definition["additionalProperties"] = False
    jsonschema.Draft202012Validator(made).validate(json.loads(printed))


def test_what_is_printed_fits_the_schema(pair: Pair) -> None:
    a = pair.a
    host, conf = a.node.host, str(a.conf)
    host.ping("10.77.0.2")
    with a.conf.open("a") as file:
        file.write("[Peer]\n# friendly_name = phone\nPublicKey = ")
        file.write(a.tunnel("genkey"))
    lines = {
        "tunnel show": ("show", "--json"),
        "tunnel top": ("top", "--once", "--json"),
        "tunnel doctor": ("doctor", "--json"),
        "tunnel diff": ("diff", conf, "--json"),
        "tunnel reload": ("reload", conf, "--json"),
        "tunnel trace": (*("trace", "--json", "icmp", "--", "ping", "-c", "1", "10.77.0.2"),),
        "tunnel firewall": ("firewall", conf, "--dry-run", "--json"),
        "tunnel peer list": ("peer", "list", conf, "--json"),
    }
    # The others are below, and that of the bench is held by its own types.
    assert set(lines) == set(OUTPUTS) - {"tunnel lab", "tunnel bench"}
    for command, line in lines.items():
        result = host.run([*a.command, *line], environment=a.environment, check=False)
        assert result.returncode in (0, 1), result.stderr
        _check(command, result.stdout)


@pytest.mark.parametrize("options", [[], ["--topology", "nat", "--loss", "1%"]])
def test_a_lab_fits_it(options: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tunnel", "lab", "--json", *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    _check("tunnel lab", result.stdout)
