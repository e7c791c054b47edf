"""A free slot (mark and rule priority) for a full tunnel's default route, and claiming it.

A slot is chosen long before the routes are set: the UDP socket needs its mark, and a PreUp hook may
take its time. So a slot is claimed only by the record written just before the machine is changed; a
tunnel that finds its slot taken at that moment chooses another.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunnel.host.errors import HostError, SlotTakenError
from tunnel.host.iproute import IPRoute
from tunnel.host.record import STATE_DIR, Record, load_record, other_records
from tunnel.host.routes import has_routes
from tunnel.host.rtnetlink import VERSIONS, family, inside, rtnetlink, step
from tunnel.host.state import (
    BYPASS_PRIORITY,
    FIRST_MARK,
    MAIN_TABLE,
    MARK_PRIORITY,
    DefaultRouteSlot,
    DesiredState,
    Item,
    Rule,
)
from tunnel.linux.netns import namespace_id

_LAST_MARK = 0xFFFFFFFE
_LAST_PRIORITY = BYPASS_PRIORITY + 2


def find_default_route_slot(
    *, netns: Path | str | None = None, state_dir: Path = STATE_DIR
) -> DefaultRouteSlot:
    """A free mark and rule priority for a full tunnel.

    The mark is the first number from 51820 whose table is empty in both families. The priority
    goes before that of every full tunnel already there: as with wg-quick, the newest one carries
    the traffic, and when it is taken down the one before it does again.
    """
    with inside(netns), rtnetlink() as netlink, step("find", "a free routing table"):
        claimed = _claimed("", state_dir)
        rules = _rules(netlink)
        # A tunnel between its rules and its routes has an empty table which is taken all the same.
        taken = {int(rule.get_attr("FRA_TABLE") or 0) for rule in rules}
        taken |= {rule.table for rule in claimed}
        mark = FIRST_MARK
        while mark < _LAST_MARK and (mark in taken or has_routes(mark)):
            mark += 1
        used = [
            int(rule.get_attr("FRA_PRIORITY") or 0)
            for rule in rules
            if rule.get_attr("FRA_FWMARK") is not None
            or rule.get_attr("FRA_SUPPRESS_PREFIXLEN") == 0
        ]
        used += [rule.priority for rule in claimed]
    window = [number for number in used if _LAST_PRIORITY < number <= MARK_PRIORITY]
    priority = min(window) - 1 if window else MARK_PRIORITY
    return DefaultRouteSlot(mark, max(priority, _LAST_PRIORITY))


def slot_of(record: Record) -> DefaultRouteSlot | None:
    """The slot that the tunnel of `record` holds; None if it has no default route."""
    for item in record.items:
        if isinstance(item, Rule) and item.invert and not item.suppress_default:
            return DefaultRouteSlot(item.mark, item.priority)
    return None


@contextmanager
def claiming(netlink: IPRoute, state: DesiredState, state_dir: Path) -> Iterator[None]:
    """Write the record of `state` in the body: that claims its slot.

    Raises SlotTakenError when another tunnel has claimed the slot since it was chosen.
    """
    slot = state.slot
    if slot is None:
        yield
        return
    with _alone(state_dir):
        own = load_record(state.interface, state_dir)
        held = own is not None and own.netns == namespace_id() and slot.mark in _tables(own.items)
        others = _claimed(state.interface, state_dir)
        taken = _tables(others)
        if not held:
            taken |= {int(rule.get_attr("FRA_TABLE") or 0) for rule in _rules(netlink)}
            if has_routes(slot.mark):
                taken.add(slot.mark)
        # The last priority is shared, when there are that many.
        crossed = slot.priority > _LAST_PRIORITY and slot.priority in {r.priority for r in others}
        if crossed or slot.mark in taken:
            raise SlotTakenError(
                "take",
                f"routing table {slot.mark}",
                "another tunnel has just taken it",
                "try again",
            )
        yield


def _claimed(interface: str, state_dir: Path) -> list[Rule]:
    """The rules of all tunnels of this namespace but `interface`, those still to come included."""
    return [
        item
        for record in other_records(interface, state_dir)
        if record.netns == namespace_id()
        for item in record.items
        if isinstance(item, Rule)
    ]


def _tables(items: Iterable[Item]) -> set[int]:
    return {item.table for item in items if isinstance(item, Rule) and item.table != MAIN_TABLE}


def _rules(netlink: IPRoute) -> list[Any]:
    return [rule for version in VERSIONS for rule in netlink.rule("dump", family=family(version))]


@contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """No other tunnel claims a slot meanwhile. The kernel drops the lock after kill -9, too."""
    try:
        state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError.from_errno("lock", str(state_dir), error.errno or 0) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
