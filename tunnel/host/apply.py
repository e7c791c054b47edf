"""Make the machine equal to a desired state, change it, and undo it.

All functions block: call them in a worker thread. They work in the namespace at the path `netns`
(None: the caller's), and keep a record per tunnel in `state_dir`, see `record.py`. On a failure
exactly what was done is undone, and HostError is raised: SlotTakenError if another tunnel has taken
the slot for a default route, so that the caller computes the state with another slot.
"""

import logging
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tunnel.host import docker, netfilter
from tunnel.host.dns import RESOLVCONF, choose_backend, read_servers, unset_dns
from tunnel.host.errors import HostError
from tunnel.host.iproute import IPRoute
from tunnel.host.links import list_addresses, require_ifindex
from tunnel.host.machine import Machine, Report, Undo, current_index, ignore_steps, replaces
from tunnel.host.record import (
    STATE_DIR,
    DownHooks,
    Record,
    delete_record,
    keep_rest,
    load_record,
    other_records,
    record_path,
    save_record,
)
from tunnel.host.resolv_conf import unset_servers
from tunnel.host.rtnetlink import find_ifindex, inside, rtnetlink, step
from tunnel.host.slots import claiming
from tunnel.host.state import Address, Bridge, DesiredState, Dns, Item, Sysctl
from tunnel.host.sysctl import read_sysctl
from tunnel.linux.netns import find_namespace, namespace_id
from tunnel.linux.processes import netns_inode

log = logging.getLogger("tunnel")


@dataclass(frozen=True, slots=True)
class Applied:
    """A state that stands on the machine: change it or undo it."""

    state: DesiredState
    netns: Path | str | None = None
    state_dir: Path = STATE_DIR

    def reconcile(self, state: DesiredState) -> "Applied":
        """See `reconcile`."""
        return reconcile(state, netns=self.netns, state_dir=self.state_dir)

    def missing(self) -> tuple[Item, ...]:
        """See `missing`."""
        return missing(self.state, netns=self.netns, state_dir=self.state_dir)

    def undo(self) -> bool:
        """See `remove`."""
        return remove(self.state.interface, netns=self.netns, state_dir=self.state_dir)


def apply(
    state: DesiredState,
    *,
    netns: Path | str | None = None,
    state_dir: Path = STATE_DIR,
    owner: str = "",
    report: Report = ignore_steps,
) -> Applied:
    """Set everything up for an interface that exists.

    What a killed predecessor of the same name left behind is removed first. `owner` names the
    program that takes it down, if that is not `tunnel`; `report` is called before each step.
    """
    with inside(netns):
        stale = load_record(state.interface, state_dir)
        if stale is not None and stale.netns == namespace_id():
            _remove(stale, state_dir, report)
        _change(state, state_dir, owner, report, place=_place(netns))
    return Applied(state, netns, state_dir)


def reconcile(
    state: DesiredState, *, netns: Path | str | None = None, state_dir: Path = STATE_DIR
) -> Applied:
    """Change what stands, by the fewest steps: what is there and wanted is not touched.

    Adds what is missing on the machine, also if another program removed it, and removes what we
    added before and the new state does not have. Objects that we did not add are left alone. Name
    servers are given to resolvconf again each time.
    """
    with inside(netns):
        _change(state, state_dir, place=_place(netns))
    return Applied(state, netns, state_dir)


def missing(
    state: DesiredState, *, netns: Path | str | None = None, state_dir: Path = STATE_DIR
) -> tuple[Item, ...]:
    """What `reconcile` with the same state would add again: another program removed it."""
    with inside(netns), rtnetlink() as netlink, step("look at", state.interface):
        record = load_record(state.interface, state_dir)
        index = require_ifindex(netlink, state.interface)
        known = record or Record(state.interface, index, namespace_id())
        machine = Machine(
            netlink,
            state.interface,
            index,
            {},
            known.dns,
            known.firewall,
            known.servers,
            bridge=state.bridge,
        )
        items = (*state.items(), *state.connected)
        there = machine.present(items, items)
        return tuple(item for item in items if item not in there)


def keep_servers(interface: str, *, state_dir: Path = STATE_DIR) -> None:
    """Take resolv.conf as it is for what `apply` made of it: a hook of the conf has changed it.

    Raises HostError.
    """
    record = load_record(interface, state_dir)
    if record is not None:
        save_record(replace(record, servers=" ".join(read_servers())), state_dir)


def shut(state: DesiredState) -> bool:
    """Put in place what stays of the state's firewall without a daemon: before the tunnel is there.

    Returns whether there is any. `remove` takes it away. Raises HostError.
    """
    closed = state.firewall.closed() if state.firewall else None
    if closed is not None:
        netfilter.set_firewall(state.interface, closed)
    return closed is not None


def remove(
    interface: str,
    *,
    netns: Path | str | None = None,
    state_dir: Path = STATE_DIR,
    report: Report = ignore_steps,
    fail_closed: bool = False,
) -> bool:
    """Undo what was done for the tunnel, by whatever process: also after a kill -9.

    Idempotent; returns whether there was anything. Goes on after a failure with the rest, keeps
    the record then, and raises the first HostError at the end. With `fail_closed`, a kill switch
    stays, until it is called without.
    """
    record = load_record(interface, state_dir)
    if netns is None and record is not None and record.place:
        if not _still_at(record):
            _put_files_back(record)
            # All the rest went with the namespace, but for hooks: those are of the daemon's.
            keep_rest(replace(record, items=()), state_dir)
            return True
        netns = record.place
    with inside(netns):
        if record is None:
            # Only what has its name can be known without a record.
            if fail_closed or not netfilter.has_firewall(interface):
                return False
            netfilter.remove_firewall(interface)
            docker.stop_passing(interface, interface)
            return True
        if record.netns == namespace_id():
            _remove(record, state_dir, report, fail_closed)
        elif find_namespace(record.netns) is not None:
            raise HostError(
                "remove",
                interface,
                "it was set up in another network namespace",
                f"run it in there, or delete {record_path(interface, state_dir)} to forget it",
            )
        else:
            # All went with the namespace but what was written into files.
            _put_files_back(record)
            unset_dns(interface, 0, record.dns if record.dns == RESOLVCONF else "")
            delete_record(interface, state_dir)
        return True


def _put_files_back(record: Record) -> None:
    """Undo what a namespace does not take with it when it goes."""
    for item in record.items:
        if isinstance(item, Dns) and item.file:
            unset_servers(record.interface, item)


def _remove(record: Record, state_dir: Path, report: Report, fail_closed: bool = False) -> None:
    with rtnetlink() as netlink, step("remove", record.interface):
        index = current_index(netlink, record.interface, record.ifindex)
        held = _held_by_others(record, state_dir)
        machine = Machine(
            netlink,
            record.interface,
            index,
            _own_sysctls(record, state_dir),
            record.dns,
            record.firewall,
            record.servers,
            report,
            fail_closed,
            bridge=_bridge_of(record.items),
        )
        failures = _run_all(
            [
                lambda item=item: machine.remove(item)  # type: ignore[misc]
                for item in reversed(record.items)
                if item not in held
            ]
        )
    if failures:
        raise failures[0]
    keep_rest(replace(record, items=()), state_dir)


def _place(netns: Path | str | None) -> str:
    return "" if netns is None else str(netns)


def _still_at(record: Record) -> bool:
    """Whether the namespace that the record names is at its place; False if there is none."""
    if netns_inode(record.place) == record.netns:
        return True
    if find_namespace(record.netns) is not None:
        raise HostError(
            "remove",
            record.interface,
            f"its network namespace is no longer at {record.place}",
            f"end what runs in it: then it goes, and the tunnel with it; or find it by lsns -t net "
            f"({record.netns})",
        )
    return False


def _change(
    state: DesiredState,
    state_dir: Path,
    owner: str = "",
    report: Report = ignore_steps,
    *,
    place: str = "",
) -> None:
    found = load_record(state.interface, state_dir)
    record = found if found and found.netns == namespace_id() else None
    with rtnetlink() as netlink, step("set up", state.interface):
        index = require_ifindex(netlink, state.interface)
        old = record.items if record else ()
        held = _held_by_others(
            record or Record(state.interface, index, namespace_id(), state.items()), state_dir
        )
        if record and record.ifindex != index:
            # resolved forgot them with the interface of before.
            old = tuple(item for item in old if not isinstance(item, Dns))
        new = _without_foreign(netlink, state, {*old, *held})
        wanted = set(new)
        old = tuple(item for item in old if item in wanted or item not in held)
        planned = Record(
            state.interface,
            index,
            namespace_id(),
            # Everything that may be there at any time until the change is complete.
            items=(*(item for item in old if item not in wanted), *new),
            sysctls=_sysctls_before(state, record, state_dir),
            dns=_dns_backend(new, record),
            firewall=record.firewall if record else "",
            owner=owner or (record.owner if record else ""),
            # Also those of a tunnel that has just left another namespace.
            hooks=found.hooks if found else DownHooks(),
            servers=record.servers if record else "",
            place=place,
        )
        machine = Machine(
            netlink,
            state.interface,
            index,
            _own_sysctls(planned, state_dir),
            planned.dns,
            planned.firewall,
            planned.servers,
            report,
            # What fails on the way up leaves shut what was shut before: see `shut`.
            fail_closed=not old,
            bridge=state.bridge,
        )
        with claiming(netlink, state, state_dir):
            save_record(planned, state_dir)
        undos: list[Undo] = []
        try:
            _step_by_step(machine, old, new, undos)
            if old:
                _settle(machine, (*new, *state.connected), undos)
            done = replace(planned, items=new, firewall=machine.firewall, servers=machine.servers)
            if done != planned:
                save_record(done, state_dir)
        except BaseException as error:
            steps_back = list(reversed(undos))
            if old:
                steps_back.append(lambda: _settle(machine, old, []))
            for failure in _run_all(steps_back):
                # Where nft is missing, for one, there is nothing of its to be undone.
                if not (isinstance(error, HostError) and error.reason == failure.reason):
                    error.add_note(f"while undoing: {failure}")
            _restore_record(found, state.interface, state_dir)
            raise


def _bridge_of(items: Iterable[Item]) -> str:
    return next((item.name for item in items if isinstance(item, Bridge)), "")


def _held_by_others(record: Record, state_dir: Path) -> set[Item]:
    """What others that share the record's bridge need still: their addresses, and the bridge itself
    if it is what they were set up for. Between tunnels, the last port decides about the bridge.
    """
    place = _addressed(record)
    held: set[Item] = set()
    for other in other_records(record.interface, state_dir):
        if other.netns == record.netns and _addressed(other) == place:
            held |= {item for item in other.items if isinstance(item, Address)}
            if other.interface == place:
                held.add(Bridge(place))
    return held


def _addressed(record: Record) -> str:
    return _bridge_of(record.items) or record.interface


def _without_foreign(
    netlink: IPRoute, state: DesiredState, ours: Container[Item]
) -> tuple[Item, ...]:
    """The objects of the state but for the addresses that its bridge had before we came.

    Those are not ours to remove.
    """
    items = state.items()
    index = find_ifindex(netlink, state.addressed) if state.bridge or state.shared else None
    if index is None:
        return items
    foreign = {item for item in list_addresses(netlink, index) if item not in ours}
    return tuple(i for i in items if not (isinstance(i, Address) and i in foreign))


def _step_by_step(
    machine: Machine, old: Sequence[Item], new: Sequence[Item], undos: list[Undo]
) -> None:
    """Additions in order, then removals in reverse; each with its undo noted."""
    places_before = {replaces(item): item for item in old}
    places_after = {replaces(item) for item in new}
    there = machine.present(new, old)
    for item in new:
        if item not in there:
            _add(machine, item, places_before.get(replaces(item)), undos)
        elif isinstance(item, Dns) and machine.dns_backend == RESOLVCONF:
            # What resolvconf has on record cannot be seen, and setting it again changes nothing. So
            # a failure here must not make the change of something else fail.
            try:
                machine.add(item)
            except HostError as error:
                log.warning("%s; the name servers may not be set any more", error)
    for item in reversed(old):
        if replaces(item) not in places_after:
            undos.append(lambda item=item: machine.add(item))  # type: ignore[misc]
            machine.remove(item)


def _settle(machine: Machine, wanted: Sequence[Item], undos: list[Undo]) -> None:
    """Add again what the kernel removed together with something else, or another program removed.

    Removing an IPv4 address can remove others of its network; removing the last one removes all
    IPv4 routes of the interface.
    """
    there = machine.present(wanted, wanted)
    for item in wanted:
        if item not in there:
            _add(machine, item, None, undos)


def _add(machine: Machine, item: Item, replaced: Item | None, undos: list[Undo]) -> None:
    # Noted before it is done: undoing what was not done is harmless, and some are several calls.
    undos.append(machine.prepare(item, replaced if replaced != item else None))
    machine.add(item)


def _run_all(actions: Iterable[Callable[[], None]]) -> list[HostError]:
    failures = []
    for action in actions:
        try:
            action()
        except HostError as error:
            failures.append(error)
    return failures


def _restore_record(record: Record | None, interface: str, state_dir: Path) -> None:
    if record is None:
        delete_record(interface, state_dir)
    else:
        save_record(record, state_dir)


def _own_sysctls(record: Record, state_dir: Path) -> dict[str, str]:
    """The values to put back for this tunnel: not of what another one needs still."""
    others = {
        item.name
        for other in other_records(record.interface, state_dir)
        if other.netns == record.netns
        for item in other.items
        if isinstance(item, Sysctl)
    }
    return {name: value for name, value in record.sysctls if name not in others}


def _sysctls_before(
    state: DesiredState, record: Record | None, state_dir: Path
) -> tuple[tuple[str, str], ...]:
    """The values to put back at the very end, when the last tunnel that set them is gone.

    The first tunnel found the machine's own value; one that comes later finds the first one's,
    and takes over what the first one noted.
    """
    known = dict(record.sysctls) if record else {}
    for item in state.items():
        if isinstance(item, Sysctl) and item.name not in known:
            known[item.name] = read_sysctl(item.name)
            for other in other_records(state.interface, state_dir):
                if other.netns == namespace_id() and item.name in dict(other.sysctls):
                    known[item.name] = dict(other.sysctls)[item.name]
    return tuple(known.items())


def _dns_backend(items: Iterable[Item], record: Record | None) -> str:
    if record is not None and record.dns:
        return record.dns
    needs_one = any(isinstance(item, Dns) and not item.file for item in items)
    return choose_backend() if needs_one else ""
