"""The names behind a trace event's numbers: at which hook a chain hangs, how a rule reads.

`nft -a -y -t list ruleset` has all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tunnel.host import HostError, list_ruleset

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""NFPROTO_* as nft writes them."""

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_BLOCK = re.compile(r"\t(\S+) (\S+) \{")
_HOOK = re.compile(r"\t\ttype \S+ hook (\S+) .*priority ([^;]+);(?: policy (\S+);)?")
_DEVICES = re.compile(r" devices? (?:= \{ ?([^}]*)\}|(\S+))")
_RULE = re.compile(r"\t\t\s*(.*\S)\s+# handle ([0-9]{1,20})$")
_PRIORITY = re.compile(r"-?[0-9]{1,10}")


@dataclass(frozen=True, slots=True)
class BaseChain:
    """Where a base chain hangs. `hook` in capitals, as the kernel's documents write them.

    `policy` is the verdict on what no rule decides. `devices` are those of a chain at ingress or
    egress; another chain sees the packets of all.
    """

    hook: str
    priority: int
    policy: str = "accept"
    devices: tuple[str, ...] = ()


@dataclass
class Ruleset:
    """Base chains by (family, table, chain), texts of rules by (family, table, handle).

    `homes` are the chains of the rules, by the same. `names` are all chains, base chains or not.
    """

    chains: dict[tuple[str, str, str], BaseChain] = field(default_factory=dict)
    rules: dict[tuple[str, str, int], str] = field(default_factory=dict)
    homes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    names: set[tuple[str, str, str]] = field(default_factory=set)

    @classmethod
    def read(cls) -> Ruleset:
        """As this network namespace has it now; empty if nft fails. Blocks."""
        try:
            return cls.parse(list_ruleset())
        except HostError:
            return cls()

    @classmethod
    def parse(cls, listing: str) -> Ruleset:
        """From the output of `nft -a -y -t list ruleset`."""
        found = cls()
        table, chain = ("", ""), None
        for line in listing.splitlines():
            if opened := _TABLE.match(line):
                table, chain = (opened[1], opened[2]), None
            elif opened := _BLOCK.match(line):
                # Sets, maps and the like have handles too, and lines that look like rules.
                chain = (*table, opened[2]) if opened[1] == "chain" else None
                if chain is not None:
                    found.names.add(chain)
            elif chain is None:
                continue
            elif opened := _HOOK.match(line):
                priority = int(opened[2]) if _PRIORITY.fullmatch(opened[2]) else 0
                policy = opened[3] or "accept"
                found.chains[chain] = BaseChain(
                    opened[1].upper(), priority, policy, _devices(opened[0])
                )
            elif opened := _RULE.match(line):
                found.rules[*table, int(opened[2])] = opened[1]
                found.homes[*table, int(opened[2])] = chain[2]
        return found

    def renamed(self, name: Callable[[str], str]) -> Ruleset:
        """The same with other names of tables."""
        return Ruleset(
            {(each[0], name(each[1]), each[2]): chain for each, chain in self.chains.items()},
            {(each[0], name(each[1]), each[2]): rule for each, rule in self.rules.items()},
            {(each[0], name(each[1]), each[2]): home for each, home in self.homes.items()},
            {(family, name(table), chain) for family, table, chain in self.names},
        )

    def update(self, later: Ruleset) -> None:
        """Add what `later` has; rules deleted since stay known, handles are never used again."""
        self.chains.update(later.chains)
        self.rules.update(later.rules)
        self.homes.update(later.homes)
        self.names |= later.names


def _devices(hook: str) -> tuple[str, ...]:
    found = _DEVICES.search(hook)
    if found is None:
        return ()
    names = (found[1] or found[2]).split(",")
    return tuple(name.strip().strip('"') for name in names if name.strip())
