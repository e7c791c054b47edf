"""The names behind a trace event's numbers: at which hook a chain hangs, how a rule reads.

`nft -j list ruleset` tells the structure, and `nft -a list ruleset` the same rules as people write
them; a rule is found in both by its handle.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field

FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""NFPROTO_* as nft writes them."""

_TABLE = re.compile(r"table (\S+) (\S+) \{")
_RULE = re.compile(r"\s+(.*\S)\s+# handle (\d+)$")
_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class BaseChain:
    """Where a base chain hangs. `hook` in capitals, as the kernel's documents write them."""

    hook: str
    priority: int


@dataclass
class Ruleset:
    """Base chains by (family, table, chain), texts of rules by (family, table, handle)."""

    chains: dict[tuple[str, str, str], BaseChain] = field(default_factory=dict)
    rules: dict[tuple[str, str, int], str] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Ruleset:
        """As this network namespace has it now; what nft cannot tell is missing. Blocks."""
        return cls.parse(_list("-j"), _list("-a"))

    @classmethod
    def parse(cls, structure: str, listing: str) -> Ruleset:
        """From the outputs of `nft -j list ruleset` and `nft -a list ruleset`."""
        found = cls()
        for item in json.loads(structure or "{}").get("nftables", []):
            chain = item.get("chain")
            if chain is not None and "hook" in chain:
                place = (chain["family"], chain["table"], chain["name"])
                found.chains[place] = BaseChain(chain["hook"].upper(), int(chain["prio"]))
            rule = item.get("rule")
            if rule is not None:
                found.rules[rule["family"], rule["table"], rule["handle"]] = ""
        table = ("", "")
        for line in listing.splitlines():
            if opened := _TABLE.match(line):
                table = (opened[1], opened[2])
            elif opened := _RULE.match(line):
                # Chains and sets have handles as well; what is a rule the structure knows.
                place = (*table, int(opened[2]))
                if place in found.rules and not opened[1].endswith("{"):
                    found.rules[place] = opened[1]
        return found

    def update(self, later: Ruleset) -> None:
        """Add what `later` has; rules deleted since stay known, handles are never used again."""
        self.chains.update(later.chains)
        self.rules.update(later.rules)


def _list(option: str) -> str:
    ran = subprocess.run(
        ["nft", option, "list", "ruleset"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
        check=False,
    )
    return ran.stdout
