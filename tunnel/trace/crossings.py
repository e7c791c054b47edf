"""One packet's way through netfilter's hooks, gathered from the kernel's trace events.

A *crossing* is one packet (one skb) on its way through the IP stack of one host, from the first
hook that our trace table saw it at to the last. The kernel numbers skbs, and uses numbers again; a
new crossing begins when a packet with a known number is back at a hook it has left.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tunnel.packet.headers import Headers
from tunnel.trace.nftrace import TraceEvent, TraceType, Verdict
from tunnel.trace.ruleset import FAMILIES, Ruleset

_ORDER = {"PREROUTING": 0, "INPUT": 1, "FORWARD": 1, "OUTPUT": 1, "POSTROUTING": 2}


@dataclass(frozen=True, slots=True)
class Decision:
    """One rule that matched, or the policy of a chain; `handle` is None for a policy.

    `table` is written with its family (`inet filter`), `rule` as nft lists it, `verdict` in one or
    two words: accept, drop, jump NAME, return, …; empty for a rule that only did something.
    """

    table: str
    chain: str
    handle: int | None
    rule: str
    verdict: str

    @property
    def is_drop(self) -> bool:
        """Whether the packet ended here."""
        return self.verdict in ("drop", "stolen")

    def __str__(self) -> str:
        if self.handle is None:
            return f"table {self.table}, chain {self.chain}, policy {self.verdict}"
        text = f"table {self.table}, chain {self.chain}, rule with handle {self.handle}"
        return f"{text}: {self.rule}" if self.rule else f"{text} ({self.verdict})"


@dataclass(slots=True)
class HookTrace:
    """A packet at one hook. `left` says that it came to the end of the last chain.

    `entry` and `exit` are its headers at the first and at the last event; interfaces are indices,
    0 where not known. Times are CLOCK_MONOTONIC in seconds.
    """

    name: str
    time: float
    entry: Headers
    exit: Headers
    iif: int = 0
    oif: int = 0
    decisions: list[Decision] = field(default_factory=list)
    left: bool = False

    @property
    def drop(self) -> Decision | None:
        """The decision that ended the packet, if one did."""
        return next((decision for decision in self.decisions if decision.is_drop), None)


@dataclass(slots=True, eq=False)
class Crossing:
    """The hooks that one packet came to, in order; at least one.

    `latest` is the time of the last event, `number` what the kernel calls the packet meanwhile.
    """

    hooks: list[HookTrace]
    latest: float
    number: int

    @property
    def entry(self) -> Headers:
        """The packet as it came."""
        return self.hooks[0].entry

    @property
    def exit(self) -> Headers:
        """The packet as it left, NAT applied."""
        return self.hooks[-1].exit

    @property
    def iif(self) -> int:
        """Index of the interface that it came by; 0 for one that was made here."""
        return self.hooks[0].iif

    @property
    def oif(self) -> int:
        """Index of the interface that it leaves by; 0 for one that stays here."""
        return self.hooks[-1].oif

    @property
    def drop(self) -> Decision | None:
        """The decision that ended it, if one did."""
        return self.hooks[-1].drop

    @property
    def is_complete(self) -> bool:
        """Whether it left the last hook that there is for it."""
        last = self.hooks[-1]
        return last.left and last.name in ("INPUT", "POSTROUTING")


class CrossingBuilder:
    """Turns trace events, in the order of the socket, into crossings.

    `table` is our own table's name. `has_strangers` says that a chain or rule was met that
    `ruleset` does not know: read it again and `update` it.
    """

    def __init__(self, table: str, ruleset: Ruleset) -> None:
        self._table = table
        self._ruleset = ruleset
        self._open: dict[int, Crossing] = {}
        self.has_strangers = False

    def add(self, event: TraceEvent) -> Crossing | None:
        """Take the next event. A crossing is given back when it begins."""
        hook_name = self._hook_name(event)
        crossing = self._open.get(event.packet_id)
        headers = Headers.of_parts(event.network_header, event.transport_header)
        if crossing is None or _is_new(crossing, hook_name, headers):
            # One that others trace too is none of ours until our own rule has marked it.
            marks = event.table == self._table and event.rule_handle is not None
            if not marks or headers is None or hook_name is None:
                return None
            renumbered = self._renumbered(hook_name, headers)
            if renumbered is None:
                hook = HookTrace(hook_name, event.time, headers, headers, event.iif, event.oif)
                crossing = Crossing([hook], event.time, event.packet_id)
                self._open[event.packet_id] = crossing
                return crossing
            crossing = renumbered
            self.forget(crossing)
            crossing.number = event.packet_id
            self._open[event.packet_id] = crossing
        crossing.latest = event.time
        hook = crossing.hooks[-1]
        if hook_name is not None and hook_name != hook.name:
            known = headers or hook.exit
            hook = HookTrace(hook_name, event.time, known, known, event.iif, event.oif)
            crossing.hooks.append(hook)
        if headers is not None:
            hook.exit = headers
            hook.iif, hook.oif = hook.iif or event.iif, event.oif or hook.oif
        self._decide(hook, event)
        return None

    def _renumbered(self, hook_name: str, headers: Headers) -> Crossing | None:
        """The crossing of a packet that has come to this hook under another number.

        A number holds the interface that the packet came by. With br_netfilter, as Docker has it,
        PREROUTING is at the port of a bridge, and the hooks after it are at the bridge.
        """
        if hook_name not in ("INPUT", "FORWARD"):
            return None
        for crossing in reversed(self._open.values()):
            last = crossing.hooks[-1]
            if last.name == "PREROUTING" and last.left and crossing.exit.key == headers.key:
                return crossing
        return None

    def named(self, decision: Decision) -> Decision:
        """The decision with the text of its rule, as far as it is known."""
        if decision.handle is None:
            return decision
        family, _, table = decision.table.partition(" ")
        return replace(decision, rule=self._ruleset.rules.get((family, table, decision.handle), ""))

    def forget(self, crossing: Crossing) -> None:
        """Nothing more is expected of `crossing`."""
        if self._open.get(crossing.number) is crossing:
            del self._open[crossing.number]

    def _hook_name(self, event: TraceEvent) -> str | None:
        """Capitals; None for an event of a chain that others jump to."""
        if event.table == self._table:
            return event.chain.partition("-")[2].upper()
        family = FAMILIES.get(event.table_family, "")
        chain = self._ruleset.chains.get((family, event.table, event.chain))
        return None if chain is None or chain.hook not in _ORDER else chain.hook

    def _decide(self, hook: HookTrace, event: TraceEvent) -> None:
        if event.table == self._table:
            if event.type is TraceType.POLICY and event.chain.startswith("last-"):
                hook.left = True
            return
        if event.type is TraceType.RULE and event.rule_handle is None:
            return  # the end of a chain, not a rule
        family = FAMILIES.get(event.table_family, str(event.table_family))
        handle = event.rule_handle
        if handle is not None and (family, event.table, handle) not in self._ruleset.rules:
            self.has_strangers = True
        verdict = "" if event.verdict in (None, Verdict.CONTINUE) else event.verdict.name.lower()
        if event.jump_to is not None:
            verdict = f"{verdict} {event.jump_to}"
        hook.decisions.append(Decision(f"{family} {event.table}", event.chain, handle, "", verdict))


def _is_new(crossing: Crossing, hook_name: str | None, headers: Headers | None) -> bool:
    """Whether an event at this hook cannot belong to `crossing`."""
    last = crossing.hooks[-1]
    if hook_name is None:
        return False
    if crossing.drop is not None:
        return True
    if hook_name == last.name:
        return last.left
    if _ORDER[hook_name] <= _ORDER[last.name]:
        return True
    # The same number for a packet of another kind: the first one ended unseen.
    return headers is not None and headers.protocol != last.exit.protocol
