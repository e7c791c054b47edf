"""Chains and rules by the numbers that trace events carry."""

from __future__ import annotations

from tunnel.observe.ruleset import BaseChain, Ruleset

STRUCTURE = """{"nftables": [
 {"metainfo": {"version": "1.0.6"}},
 {"table": {"family": "ip", "name": "nat", "handle": 1}},
 {"chain": {"family": "ip", "table": "nat", "name": "POST", "handle": 1, "type": "nat",
            "hook": "postrouting", "prio": 100, "policy": "accept"}},
 {"chain": {"family": "ip", "table": "nat", "name": "mine", "handle": 2}},
 {"rule": {"family": "ip", "table": "nat", "chain": "POST", "handle": 4, "expr": []}},
 {"rule": {"family": "ip", "table": "nat", "chain": "mine", "handle": 3, "expr": []}}]}"""

LISTING = """\
table ip nat { # handle 1
	set here { # handle 9
		type ipv4_addr
	}
	chain POST { # handle 1
		type nat hook postrouting priority srcnat; policy accept;
		oifname "eth0" masquerade comment "a # b" # handle 4
	}

	chain mine { # handle 2
		tcp dport { 1, 2 } drop # handle 3
	}
}
"""


def test_hooks_and_words() -> None:
    found = Ruleset.parse(STRUCTURE, LISTING)
    assert found.chains == {("ip", "nat", "POST"): BaseChain("POSTROUTING", 100)}
    assert found.rules == {
        ("ip", "nat", 4): 'oifname "eth0" masquerade comment "a # b"',
        ("ip", "nat", 3): "tcp dport { 1, 2 } drop",
    }


def test_what_was_deleted_stays_known() -> None:
    found = Ruleset.parse(STRUCTURE, LISTING)
    found.update(Ruleset())
    assert len(found.rules) == 2


def test_no_nft_no_rules() -> None:
    assert Ruleset.parse("", "") == Ruleset()
