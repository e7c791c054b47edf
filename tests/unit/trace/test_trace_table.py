"""The trace table as nft reads it."""

from __future__ import annotations

import pytest
import trio

from tunnel.packet.filter import Filter
from tunnel.trace.trace_table import TraceTableError, render, table_name, trace_table


def test_one_chain_first_and_one_last_at_each_hook() -> None:
    lines = render("t", "wg0", 51820, Filter.parse("icmp")).splitlines()
    assert lines[0] == "add table inet t { flags owner; }"
    chains = [line for line in lines if line.startswith("add chain")]
    assert len(chains) == 10
    for hook in ("prerouting", "input", "forward", "output", "postrouting"):
        for priority in (-310, 310):
            base = f"type filter hook {hook} priority {priority}; policy accept;"
            assert sum(base in chain for chain in chains) == 1


def test_only_the_flow_and_our_own_datagrams_are_marked() -> None:
    lines = render("t", "wg0", 4444, Filter.parse("tcp port 80")).splitlines()
    rules = [line.removeprefix("add rule inet t ") for line in lines if "add rule" in line]
    outer = [rule for rule in rules if "udp" in rule]
    for rule in rules:
        if rule in outer:
            # Of this host only, and what anybody can forge at a low rate.
            incoming = ' iifname != "wg0" fib daddr type local udp dport 4444 ' in rule
            outgoing = ' oifname != "wg0" fib saddr type local udp sport 4444 ' in rule
            assert incoming != outgoing
            rate = "200/second burst 400" if "@th,64,8 == 4" in rule else "10/second burst 20"
        else:
            assert '"wg0" tcp sport 80' in rule or '"wg0" tcp dport 80' in rule
            rate = "50/second burst 100"
        assert rule.endswith(f"limit rate {rate} packets meta nftrace set 1")
    assert len(outer) == 8


def test_names_hold_what_interface_names_may() -> None:
    assert table_name("wg-0_a.b").startswith("tunnel-trace-wg-0_a.b-")
    assert table_name("a=b").startswith("tunnel-trace-a/3db-")


def test_missing_nft_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")

    async def make() -> None:
        async with trace_table("wg0", 1, Filter(), 1.0):
            pass

    with pytest.raises(TraceTableError, match="apt-get install nftables"):
        trio.run(make)
