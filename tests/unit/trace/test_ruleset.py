"""Chains and rules by the numbers that trace events carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.host import programs
from tunnel.trace.ruleset import BaseChain, Ruleset

LISTING = """\
table ip nat { # handle 1
	set here { # handle 9
		type ipv4_addr
	}
	chain POST { # handle 1
		type nat hook postrouting priority 100; policy accept;
		oifname "eth0" masquerade comment "a # b" # handle 4
	}

	chain closed { # handle 5
		type filter hook forward priority -310; policy drop;
	}

	chain mine { # handle 2
		tcp dport { 1, 2 } drop # handle 3
	}
}
"""


def test_hooks_and_words() -> None:
    found = Ruleset.parse(LISTING)
    assert found.chains == {
        ("ip", "nat", "POST"): BaseChain("POSTROUTING", 100),
        ("ip", "nat", "closed"): BaseChain("FORWARD", -310, "drop"),
    }
    assert ("ip", "nat", "mine") in found.names
    assert found.rules == {
        ("ip", "nat", 4): 'oifname "eth0" masquerade comment "a # b"',
        ("ip", "nat", 3): "tcp dport { 1, 2 } drop",
    }


@pytest.mark.parametrize(
    ("device", "devices"),
    [
        ('device "eth0" ', ("eth0",)),
        ("device eth0.7 ", ("eth0.7",)),
        ('devices = { "eth0", "eth1" } ', ("eth0", "eth1")),
        ("devices = { eth0, eth1 } ", ("eth0", "eth1")),
        ("", ()),
    ],
)
def test_a_chain_at_ingress_knows_its_devices(device: str, devices: tuple[str, ...]) -> None:
    found = Ruleset.parse(
        "table netdev t { # handle 1\n\tchain c { # handle 1\n"
        f"\t\ttype filter hook ingress {device}priority -5; policy drop;\n\t}}\n}}\n"
    )
    expected = BaseChain("INGRESS", -5, "drop", devices)
    assert found.chains == {("netdev", "t", "c"): expected}


def test_what_was_deleted_stays_known() -> None:
    found = Ruleset.parse(LISTING)
    found.update(Ruleset())
    assert len(found.rules) == 2


def test_no_nft_no_rules() -> None:
    assert Ruleset.parse("") == Ruleset()


def test_an_nft_that_takes_too_long_names_no_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nft"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(programs, "_TIMEOUT", 0.1)
    assert Ruleset.read() == Ruleset()


def test_the_elements_of_sets_are_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "nft"
    program.write_text(
        '#!/bin/sh\n[ "$*" = "-a -y -t list ruleset" ] || exit 1\n'
        "printf 'table ip t {\\n\\tchain c { # handle 1\\n"
        "\\t\\ttype filter hook input priority 0; policy drop;\\n\\t}\\n}\\n'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert Ruleset.read().chains["ip", "t", "c"].policy == "drop"
