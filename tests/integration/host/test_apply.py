"""The state on a real kernel: set up, changed by the fewest steps, undone without a trace."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Literal

import pytest
import trio

from tests.support.host_namespace import Namespace, new_namespace
from tunnel.host import (
    DefaultRouteSlot,
    DesiredState,
    HostError,
    Obstacle,
    SlotTakenError,
    apply,
    compute_mtu,
    delete_link,
    describe_link,
    desired_state,
    find_default_route_slot,
    foresee,
    interface_status,
    reconcile,
    remove,
    route_messages,
    routes,
)
from tunnel.host.machine import Machine
from tunnel.host.record import DownHooks, Record, keep_hooks, load_record, record_path, save_record
from tunnel.host.rtnetlink import inside
from tunnel.host.state import Item
from tunnel.linux.netns import call_inside, namespace_id

pytestmark = pytest.mark.root

ADDRESSES = ("10.9.0.1/24", "10.8.0.1/32", "fd00:9::1/64")
ALLOWED = ("10.9.0.7/32", "10.20.0.0/16", "fd00:9::/64", "fd00:20::/48")
EVERYTHING = ("0.0.0.0/0", "::/0", "10.20.0.0/16")


def state(
    interface: str = "tun0",
    addresses: tuple[str, ...] = ADDRESSES,
    allowed: tuple[str, ...] = ALLOWED,
    mtu: int = 1420,
    slot: DefaultRouteSlot | None = None,
    fwmark: int = 0,
) -> DesiredState:
    return desired_state(
        interface,
        [ip_interface(text) for text in addresses],
        [ip_network(text) for text in allowed],
        mtu=mtu,
        slot=slot,
        fwmark=fwmark,
    )


def test_addresses_mtu_and_routes(ns: Namespace, tmp_path: Path) -> None:
    before = ns.snapshot()
    applied = apply(state(), netns=ns.path, state_dir=tmp_path)

    link = ns.ip("address", "show", "tun0")
    assert "mtu 1420" in link
    assert ",UP" in link
    for address in ADDRESSES:
        assert f" {address} " in link
    assert "fe80::" not in link, "no link-local address, as on the kernel's devices"
    routes = ns.ip("-4", "route", "show", "dev", "tun0") + ns.ip(
        "-6", "route", "show", "dev", "tun0"
    )
    assert "10.20.0.0/16" in routes
    assert "fd00:20::/48" in routes
    assert "10.9.0.7" not in routes, "the address covers it already"

    assert applied.undo() is True
    assert ns.snapshot() == before
    assert applied.undo() is False
    assert list(tmp_path.iterdir()) == []


def test_everything_by_the_tunnel(ns: Namespace, tmp_path: Path) -> None:
    before = ns.snapshot()
    slot = find_default_route_slot(netns=ns.path)
    assert slot == DefaultRouteSlot(51820, 32765)
    wanted = state(allowed=EVERYTHING, slot=slot)
    applied = apply(wanted, netns=ns.path, state_dir=tmp_path)

    for version, far in (("-4", "198.51.100.1"), ("-6", "2001:db8:ffff::1")):
        rules = ns.ip(version, "rule").splitlines()
        assert [line for line in rules if "0xca6c" in line] == [
            "32500:\tfrom all fwmark 0xca6c goto 32764",
            "32764:\tnot from all fwmark 0xca6c lookup main suppress_prefixlength 0",
            "32765:\tnot from all fwmark 0xca6c lookup 51820",
        ]
        assert "dev tun0" in ns.ip(version, "route", "get", far)
        assert "dev out0" in ns.ip(version, "route", "get", far, "mark", "51820")
    assert "dev out0" in ns.ip("route", "get", "192.0.2.77"), "specific routes of main stay"
    table = ns.run("nft", "list", "table", "inet", "tunnel-tun0")
    assert 'iifname != "tun0" ip daddr 10.9.0.1 fib saddr type != local counter' in table
    assert "= 1" in ns.run("sysctl", "net.ipv4.conf.all.src_valid_mark")

    assert applied.undo()
    assert ns.snapshot() == before


@pytest.mark.parametrize("first_down", ["tun0", "tun1"])
def test_two_full_tunnels(ns: Namespace, tmp_path: Path, first_down: str) -> None:
    ns.add_tun("tun1")
    before = ns.snapshot()
    for name, address in (("tun0", "10.9.0.1/24"), ("tun1", "10.8.0.1/24")):
        slot = find_default_route_slot(netns=ns.path)
        wanted = state(name, (address, "fd00:9::1/64"), ("0.0.0.0/0", "::/0"), slot=slot)
        apply(wanted, netns=ns.path, state_dir=tmp_path)
        assert f"dev {name}" in ns.ip("route", "get", "198.51.100.1"), "the newest carries it all"
    for version, far in (("-4", "198.51.100.1"), ("-6", "2001:db8:ffff::1")):
        outer = [ns.ip(version, "route", "get", far, "mark", mark) for mark in ("51820", "51821")]
        assert "dev out0" in outer[0], "the first one's UDP stays out of the second"
        assert "dev tun0" in outer[1], "the second one's goes through the first"

    assert remove(first_down, netns=ns.path, state_dir=tmp_path)
    last = "tun1" if first_down == "tun0" else "tun0"
    for version, far in (("-4", "198.51.100.1"), ("-6", "2001:db8:ffff::1")):
        assert f"dev {last}" in ns.ip(version, "route", "get", far)
    assert "dev out0" in ns.ip("route", "get", "192.0.2.77"), "its suppress rule is still there"
    assert "= 1" in ns.run("sysctl", "net.ipv4.conf.all.src_valid_mark")

    assert remove(last, netns=ns.path, state_dir=tmp_path)
    assert ns.snapshot() == before


def test_nested_tunnels_never_form_a_circle(ns: Namespace, tmp_path: Path) -> None:
    """Each goes through those that were up before it, in whatever order they come and go."""
    before = ns.snapshot()
    names = ["tun0", "tun1", "tun2"]
    for name in names[1:]:
        ns.add_tun(name)
    marks: dict[str, int] = {}
    for name in ("tun0", "tun1", "tun2", "tun0", "tun0", "tun2", "tun2", "tun1", "tun0", "tun2"):
        if name in marks:
            assert remove(name, netns=ns.path, state_dir=tmp_path)
            del marks[name]
        else:
            slot = find_default_route_slot(netns=ns.path, state_dir=tmp_path)
            address = f"10.{names.index(name)}.0.1/24"
            wanted = state(name, (address,), ("0.0.0.0/0",), slot=slot)
            apply(wanted, netns=ns.path, state_dir=tmp_path)
            marks[name] = slot.mark
        order = list(marks)
        for place, inner in enumerate(order):
            route = ns.ip("route", "get", "198.51.100.1", "mark", str(marks[inner]))
            assert f"dev {order[place - 1] if place else 'out0'} " in route, order
        newest = order[-1] if order else "out0"
        assert f"dev {newest} " in ns.ip("route", "get", "198.51.100.1")
    assert not marks
    for name in names[1:]:
        ns.ip("link", "del", name)
    assert ns.snapshot() == before


def test_two_that_have_chosen_the_same_place(ns: Namespace, tmp_path: Path) -> None:
    ns.add_tun("tun1")
    before = ns.snapshot()
    slot = find_default_route_slot(netns=ns.path, state_dir=tmp_path)
    one = state("tun0", ("10.9.0.1/24",), ("0.0.0.0/0",), slot=slot)
    # Each of its own family, so that no route of one is in the other's way.
    other = state("tun1", ("fd00:9::1/64",), ("::/0",), slot=slot)
    applied = apply(one, netns=ns.path, state_dir=tmp_path)
    there = ns.snapshot()
    with pytest.raises(SlotTakenError, match="table 51820: another tunnel has just taken it"):
        apply(other, netns=ns.path, state_dir=tmp_path)
    assert ns.snapshot() == there
    slot = find_default_route_slot(netns=ns.path, state_dir=tmp_path)
    assert slot == DefaultRouteSlot(51821, 32763)
    other = state("tun1", ("fd00:9::1/64",), ("::/0",), slot=slot)
    apply(other, netns=ns.path, state_dir=tmp_path)
    # What a tunnel holds it may keep.
    applied.reconcile(replace(one, mtu=1400))
    assert remove("tun0", netns=ns.path, state_dir=tmp_path)
    assert remove("tun1", netns=ns.path, state_dir=tmp_path)
    assert ns.snapshot() == before


def test_place_of_one_that_is_still_being_set_up_is_passed_over(
    ns: Namespace, tmp_path: Path
) -> None:
    slot = DefaultRouteSlot(51820, 32765)
    items = state("tun1", allowed=EVERYTHING, slot=slot).items()
    save_record(Record("tun1", 1, os.stat(ns.path).st_ino, items), tmp_path)
    found = find_default_route_slot(netns=ns.path, state_dir=tmp_path)
    assert found == DefaultRouteSlot(51821, 32763)


def test_mark_whose_table_is_taken_is_passed_over(ns: Namespace) -> None:
    ns.ip("-6", "route", "add", "2001:db8:7::/48", "dev", "out0", "table", "51820")
    assert find_default_route_slot(netns=ns.path).mark == 51821


@contextmanager
def failing(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Item]]:
    """The `number`-th addition fails, after it was done: the hardest case for the undo."""
    added: list[Item] = []
    real = Machine.add

    def add(machine: Machine, item: Item) -> None:
        real(machine, item)
        added.append(item)
        if len(added) == number:
            raise HostError("add", str(item), "injected", "none")

    with monkeypatch.context() as patch:
        patch.setattr(Machine, "add", add)
        yield added


def test_failure_of_each_step_undoes_all_before(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ns.snapshot()
    wanted = state(allowed=EVERYTHING, slot=DefaultRouteSlot())
    for number in range(1, len(wanted.items()) + 1):
        with failing(number, monkeypatch) as added:
            with pytest.raises(HostError, match="injected"):
                apply(wanted, netns=ns.path, state_dir=tmp_path)
            assert len(added) >= number
        assert ns.snapshot() == before, f"after failing at {wanted.items()[number - 1]}"
        assert list(tmp_path.iterdir()) == []


def test_failure_while_reconciling_leaves_the_old_state(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = state()
    apply(old, netns=ns.path, state_dir=tmp_path)
    before, record = ns.snapshot(), load_record("tun0", tmp_path)
    new = state(
        addresses=("10.9.0.2/24", "fd00:9::1/64"), allowed=EVERYTHING, slot=DefaultRouteSlot()
    )
    steps = len(set(new.items()) - set(old.items()))
    assert steps >= 8
    for number in range(1, steps + 1):
        with failing(number, monkeypatch) as added:
            with pytest.raises(HostError, match="injected"):
                reconcile(new, netns=ns.path, state_dir=tmp_path)
            assert len(added) >= number
        assert sorted(ns.snapshot().split()) == sorted(before.split())
        assert load_record("tun0", tmp_path) == record
    reconcile(new, netns=ns.path, state_dir=tmp_path)
    assert "dev tun0" in ns.ip("route", "get", "198.51.100.1")


def test_route_that_another_device_has_is_named(ns: Namespace, tmp_path: Path) -> None:
    ns.ip("route", "add", "10.20.0.0/16", "via", "192.0.2.9")
    before = ns.snapshot()
    with pytest.raises(HostError) as caught:
        apply(state(), netns=ns.path, state_dir=tmp_path)
    (foreseen,) = foresee(state(allowed=("10.20.0.0/16",)), netns=ns.path)
    assert foreseen == Obstacle.from_error("route", caught.value)
    assert caught.value.subject == "route 10.20.0.0/16"
    assert caught.value.remedy
    assert ns.snapshot() == before


def test_reconcile_touches_only_what_differs(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(state(), netns=ns.path, state_dir=tmp_path)
    done: list[str] = []
    real_add, real_remove = Machine.add, Machine.remove

    def add(machine: Machine, item: Item) -> None:
        done.append(f"+ {item}")
        real_add(machine, item)

    def remove_(machine: Machine, item: Item) -> None:
        done.append(f"- {item}")
        real_remove(machine, item)

    monkeypatch.setattr(Machine, "add", add)
    monkeypatch.setattr(Machine, "remove", remove_)
    new = state(addresses=(*ADDRESSES, "10.7.0.1/32"), allowed=(*ALLOWED[:3], "fd00:21::/48"))
    reconcile(new, netns=ns.path, state_dir=tmp_path)
    assert done == ["+ address 10.7.0.1/32", "+ route fd00:21::/48", "- route fd00:20::/48"]

    done.clear()
    reconcile(new, netns=ns.path, state_dir=tmp_path)
    assert done == []

    reconcile(state(mtu=1300), netns=ns.path, state_dir=tmp_path)
    assert "mtu 1300" in ns.ip("link", "show", "tun0")


def test_reconcile_mends_what_others_took_away(ns: Namespace, tmp_path: Path) -> None:
    wanted = state(allowed=EVERYTHING, slot=DefaultRouteSlot())
    apply(wanted, netns=ns.path, state_dir=tmp_path)
    before = sorted(ns.snapshot().split())
    ns.ip("route", "flush", "table", "51820")
    ns.ip("rule", "delete", "table", "main", "suppress_prefixlength", "0")
    ns.run("nft", "flush", "ruleset")
    ns.ip("address", "delete", "10.9.0.1/24", "dev", "tun0")
    ns.ip("link", "set", "tun0", "down")
    reconcile(wanted, netns=ns.path, state_dir=tmp_path)
    assert sorted(ns.snapshot().split()) == before


def test_connected_routes_that_others_deleted_come_back_as_the_kernels_own(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_all = ns.snapshot()
    # Two of one network: its route comes from the first.
    wanted = state(addresses=(*ADDRESSES, "10.9.0.2/24", "fd00:7::1/64"))
    applied = apply(wanted, netns=ns.path, state_dir=tmp_path)
    before = ns.snapshot()
    assert applied.missing() == ()
    networks = ("10.9.0.0/24", "fd00:9::/64", "fd00:7::/64")
    for network in networks:
        ns.ip("route", "delete", network, "dev", "tun0")
    names = [f"connected route {network}" for network in networks]
    assert [str(item) for item in applied.missing()] == names

    done: list[str] = []
    real_add = Machine.add

    def add(machine: Machine, item: Item) -> None:
        done.append(str(item))
        real_add(machine, item)

    monkeypatch.setattr(Machine, "add", add)
    applied.reconcile(wanted)
    assert done == names
    assert ns.snapshot() == before
    assert applied.missing() == ()
    # They go with their addresses, as they would have.
    applied = applied.reconcile(state(addresses=ADDRESSES[1:2]))
    for version in ("-4", "-6"):
        routes = ns.ip(version, "route", "show", "dev", "tun0")
        assert "proto kernel" not in routes
    assert applied.undo()
    assert ns.snapshot() == before_all


def test_connected_routes_that_are_not_due_are_not_missed(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applied = apply(state(addresses=("10.9.0.1/24",)), netns=ns.path, state_dir=tmp_path)

    def missed() -> list[str]:
        return [str(item) for item in applied.missing() if "connected" in str(item)]

    ns.ip("route", "delete", "10.9.0.0/24", "dev", "tun0")
    assert missed() == ["connected route 10.9.0.0/24"]
    # In a VRF the kernel keeps them in another table. Not every kernel has VRFs.
    with monkeypatch.context() as patched:
        patched.setattr(routes, "is_enslaved", lambda netlink, index: True)
        assert missed() == []
    # Without a link they cannot be, and come with it.
    ns.ip("link", "set", "tun0", "down")
    assert missed() == []
    ns.ip("link", "set", "tun0", "up")
    assert "10.9.0.0/24" in ns.ip("route", "show", "dev", "tun0")
    # Without the address neither; it may be there without its route, too.
    ns.ip("address", "delete", "10.9.0.1/24", "dev", "tun0")
    assert missed() == []
    ns.ip("address", "add", "10.9.0.1/24", "dev", "tun0", "noprefixroute")
    assert "10.9.0.0/24" not in ns.ip("route", "show", "dev", "tun0")
    assert missed() == []
    ns.ip("address", "delete", "10.9.0.1/24", "dev", "tun0")
    # Who chose the table of the routes has routes of his own in mind.
    off = desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1420, table="off")
    applied = applied.reconcile(off)
    ns.ip("route", "delete", "10.9.0.0/24", "dev", "tun0")
    assert missed() == []


@pytest.mark.parametrize(
    "meddle",
    [
        ["flush", "table", "inet", "tunnel-tun0"],
        ["flush", "chain", "inet", "tunnel-tun0", "preraw"],
        ["add", "rule", "inet", "tunnel-tun0", "premangle", "accept"],
    ],
)
def test_content_of_the_firewall_that_others_changed_is_seen_and_mended(
    ns: Namespace, tmp_path: Path, meddle: list[str]
) -> None:
    wanted = state(allowed=EVERYTHING, slot=DefaultRouteSlot())
    applied = apply(wanted, netns=ns.path, state_dir=tmp_path)
    before = ns.run("nft", "--stateless", "list", "ruleset")
    assert "daddr 10.9.0.1" in before
    assert applied.missing() == ()
    ns.run("nft", *meddle)
    assert applied.missing() == (wanted.firewall,)
    applied.reconcile(wanted)
    assert ns.run("nft", "--stateless", "list", "ruleset") == before
    assert applied.missing() == ()


def test_address_replaced_within_its_network(ns: Namespace, tmp_path: Path) -> None:
    apply(state(), netns=ns.path, state_dir=tmp_path)
    # Deleting the primary address takes the secondary one along.
    reconcile(
        state(addresses=("10.9.0.2/24",), allowed=("10.20.0.0/16",)),
        netns=ns.path,
        state_dir=tmp_path,
    )
    shown = ns.ip("-br", "address", "show", "tun0").split()
    assert shown[2:] == ["10.9.0.2/24"]
    assert "10.20.0.0/16" in ns.ip("route", "show", "dev", "tun0")


def test_what_others_added_stays(ns: Namespace, tmp_path: Path) -> None:
    apply(state(), netns=ns.path, state_dir=tmp_path)
    ns.ip("address", "add", "10.66.0.1/32", "dev", "tun0")
    ns.ip("rule", "add", "fwmark", "51820", "table", "77", "priority", "100")
    reconcile(state(), netns=ns.path, state_dir=tmp_path)
    remove("tun0", netns=ns.path, state_dir=tmp_path)
    assert "10.66.0.1" in ns.ip("address", "show", "tun0")
    assert "lookup 77" in ns.ip("rule")


def test_down_after_kill(ns: Namespace, tmp_path: Path) -> None:
    ns.ip("link", "delete", "tun0")
    before = ns.snapshot()
    ns.add_tun("tun0")
    apply(state(allowed=EVERYTHING, slot=DefaultRouteSlot()), netns=ns.path, state_dir=tmp_path)
    assert record_path("tun0", tmp_path).exists()
    # With the process the device goes, its addresses and routes with it; a namesake may follow.
    assert delete_link("tun0", netns=ns.path)
    ns.ip("link", "add", "tun0", "type", "bridge")
    ns.ip("address", "add", "10.9.0.1/24", "dev", "tun0")
    assert remove("tun0", netns=ns.path, state_dir=tmp_path) is True
    assert "10.9.0.1/24" in ns.ip("address", "show", "tun0"), "that one is not ours"
    assert delete_link("tun0", netns=ns.path)
    assert describe_link("tun0", netns=ns.path) is None
    assert delete_link("tun0", netns=ns.path) is False
    assert ns.snapshot() == before
    assert list(tmp_path.iterdir()) == []


KILLED = """
import fcntl, struct, sys, time
from ipaddress import ip_interface, ip_network
from pathlib import Path
from tunnel.host import apply, desired_state, find_default_route_slot
tun = open("/dev/net/tun", "r+b", buffering=0)
fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"tun7", 0x1001))  # TUNSETIFF: TUN, NO_PI
everything = [ip_network("0.0.0.0/0"), ip_network("::/0")]
addresses = [ip_interface("10.9.0.1/24"), ip_interface("fd00:9::1/64")]
slot = find_default_route_slot()
state = desired_state("tun7", addresses, everything, mtu=1420, slot=slot)
apply(state, state_dir=Path(sys.argv[1]))
print("up", flush=True)
time.sleep(60)
"""


def test_down_after_kill_9_of_the_process(ns: Namespace, tmp_path: Path) -> None:
    before = ns.snapshot()
    argv = ["ip", "netns", "exec", ns.name, sys.executable, "-c", KILLED, str(tmp_path)]
    root = Path(__file__).parents[3]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            assert "dev tun7" in ns.ip("route", "get", "198.51.100.1")
        finally:
            process.kill()
    assert "0xca6c" in ns.ip("rule"), "what a killed process leaves behind"
    assert remove("tun7", netns=ns.path, state_dir=tmp_path) is True
    assert ns.snapshot() == before
    assert list(tmp_path.iterdir()) == []


def test_up_again_after_kill(ns: Namespace, tmp_path: Path) -> None:
    wanted = state(allowed=EVERYTHING, slot=DefaultRouteSlot())
    apply(wanted, netns=ns.path, state_dir=tmp_path)
    once = sorted(ns.snapshot().split())
    ns.ip("link", "delete", "tun0")
    ns.add_tun("tun0")
    apply(wanted, netns=ns.path, state_dir=tmp_path)
    assert sorted(ns.snapshot().split()) == once


def test_record_of_another_namespace_is_respected(ns: Namespace, tmp_path: Path) -> None:
    with inside(ns.path):
        apply(state(), state_dir=tmp_path)
    with pytest.raises(HostError, match="another network namespace"):
        remove("tun0", state_dir=tmp_path)


def test_record_that_names_its_namespace_is_undone_from_outside(
    ns: Namespace, tmp_path: Path
) -> None:
    apply(state(), netns=ns.path, state_dir=tmp_path)
    assert interface_status("tun0", netns=ns.path) is not None
    assert remove("tun0", state_dir=tmp_path) is True
    status = interface_status("tun0", netns=ns.path)
    assert status is not None
    assert (status.up, status.addresses) == (False, ())
    assert list(tmp_path.iterdir()) == []


def test_record_of_a_namespace_that_is_gone_is_no_obstacle(ns: Namespace, tmp_path: Path) -> None:
    with new_namespace() as gone:
        gone.add_tun("tun0")
        apply(state(), netns=gone.path, state_dir=tmp_path)
        record = load_record("tun0", tmp_path)
        assert delete_link("tun0", netns=ns.path)
        with pytest.raises(HostError, match="no such interface"):
            apply(state(), netns=ns.path, state_dir=tmp_path)
        assert load_record("tun0", tmp_path) == record, "a failure leaves another's record"
    assert remove("tun0", netns=ns.path, state_dir=tmp_path) is True
    assert list(tmp_path.iterdir()) == []


def test_status(ns: Namespace, tmp_path: Path) -> None:
    apply(state(), netns=ns.path, state_dir=tmp_path)
    status = interface_status("tun0", netns=ns.path)
    assert status is not None
    assert (status.mtu, status.up) == (1420, True)
    assert sorted(map(str, status.addresses)) == sorted(ADDRESSES)
    assert "route 10.20.0.0/16" in map(str, status.routes)
    assert interface_status("nope", netns=ns.path) is None


def test_missing_interface_and_namespace(ns: Namespace, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no such interface"):
        apply(state("nope"), netns=ns.path, state_dir=tmp_path)
    with pytest.raises(HostError, match="enter namespace"):
        apply(state(), netns="/run/netns/tho-nope", state_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_full_disk_keeps_the_old_record_whole(ns: Namespace, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        apply(state(), netns=ns.path, state_dir=disk)
        before, record = ns.snapshot(), load_record("tun0", disk)
        with contextlib.suppress(OSError), open(disk / "fill", "wb", 0) as fill:
            while fill.write(b"x" * 4096):
                pass
        more = state(allowed=tuple(f"10.30.{n}.0/24" for n in range(64)))
        with pytest.raises(HostError, match="write state file") as caught:
            reconcile(more, netns=ns.path, state_dir=disk)
        assert caught.value.remedy
        assert load_record("tun0", disk) == record
        assert ns.snapshot() == before
        assert remove("tun0", netns=ns.path, state_dir=disk)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ipv6_switched_off(ns: Namespace, tmp_path: Path) -> None:
    ns.run("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
    before = ns.snapshot()
    only4 = state(addresses=("10.9.0.1/24",), allowed=("0.0.0.0/0",), slot=DefaultRouteSlot())
    apply(only4, netns=ns.path, state_dir=tmp_path).undo()
    assert ns.snapshot() == before
    with pytest.raises(HostError, match="add address fd00:9::1/64") as caught:
        apply(state(), netns=ns.path, state_dir=tmp_path)
    assert "disable_ipv6=0" in caught.value.remedy
    assert ns.snapshot() == before
    assert call_inside(ns.path, lambda: foresee(only4)) == []
    found = call_inside(ns.path, lambda: foresee(state()))
    assert found == [Obstacle.from_error("ipv6", caught.value)]
    assert foresee(state(), netns=ns.path) == [], "where it is moved in, it has IPv6"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("address add 10.20.0.7/16 dev out0", "out0 has an address in 10.20.0.0/16"),
        ("route add 10.20.0.0/16 via 192.0.2.9", "out0 has this route already"),
        ("route add blackhole 10.20.0.0/16", "no device has this route already"),
    ],
)
def test_route_that_is_taken_names_its_holder(
    ns: Namespace, tmp_path: Path, before: str, reason: str
) -> None:
    ns.ip(*before.split())
    with pytest.raises(HostError) as caught:
        apply(state(allowed=("10.20.0.0/16",)), netns=ns.path, state_dir=tmp_path)
    assert caught.value.subject == "route 10.20.0.0/16"
    assert f"File exists: {reason}" in caught.value.reason
    assert "take 10.20.0.0/16 out of AllowedIPs" in caught.value.remedy


@pytest.mark.parametrize(
    "beside",
    [
        "route add 10.20.0.0/16 dev out0 metric 100",
        "-6 route add fd00:20::/48 dev out0 metric 256",
        "route add 10.20.0.0/16 dev out0 table 7",
    ],
)
def test_what_may_stand_beside_it_is_not_in_the_way(
    ns: Namespace, tmp_path: Path, beside: str
) -> None:
    ns.ip(*beside.split())
    assert foresee(state(), netns=ns.path) == []
    apply(state(), netns=ns.path, state_dir=tmp_path)


@pytest.mark.parametrize(
    ("name", "kind"), [("tun0", "tun"), ("out0", "veth"), ("lo", ""), ("none0", None)]
)
def test_kind_of_an_interface(ns: Namespace, name: str, kind: str | None) -> None:
    assert describe_link(name, netns=ns.path) == kind


def test_two_full_tunnels_of_one_mark(ns: Namespace, tmp_path: Path) -> None:
    ns.add_tun("tun1")
    apply(state(allowed=("0.0.0.0/0",), fwmark=7), netns=ns.path, state_dir=tmp_path)
    before = ns.snapshot()
    with pytest.raises(HostError, match=r"add route 0.0.0.0/0 table 7: File exists"):
        apply(
            state("tun1", ("10.8.0.1/24",), ("0.0.0.0/0",), fwmark=7),
            netns=ns.path,
            state_dir=tmp_path,
        )
    assert ns.snapshot() == before


def test_many_routes_are_compared_in_one_pass(ns: Namespace, tmp_path: Path) -> None:
    many = tuple(f"10.{n >> 8}.{n & 255}.0/24" for n in range(1000))
    applied = apply(state(addresses=(), allowed=many), netns=ns.path, state_dir=tmp_path)
    assert len(ns.ip("route", "show", "dev", "tun0").splitlines()) == 1000
    applied = applied.reconcile(state(addresses=(), allowed=many[10:]))
    assert len(ns.ip("route", "show", "dev", "tun0").splitlines()) == 990
    applied.undo()
    assert ns.ip("route", "show", "dev", "tun0") == ""


def test_only_our_own_routes_are_read_beside_many_others(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = "".join(
        f"route add 60.0.{n >> 8}.{n & 255} via 192.0.2.2 table {254 if n % 2 else 1234}\n"
        f"-6 route add fd60::{n:x} via 2001:db8::2 table {254 if n % 2 else 1234}\n"
        for n in range(500)
    )
    lines = [line.removeprefix("-6 ") for line in others.splitlines()]
    batch = tmp_path / "batch"
    for family, wanted in (("-4", lines[::2]), ("-6", lines[1::2])):
        batch.write_text("\n".join(wanted) + "\n")
        ns.ip(family, "-batch", str(batch))
    read: list[route_messages.RouteEntry] = []
    parse = route_messages._route_untrusted

    def count(version: Literal[4, 6], body: bytes) -> route_messages.RouteEntry:
        read.append(parse(version, body))
        return read[-1]

    monkeypatch.setattr(route_messages, "_route_untrusted", count)
    folder = tmp_path / "state"
    slot = find_default_route_slot(netns=ns.path, state_dir=folder)
    applied = apply(state(allowed=EVERYTHING, slot=slot), netns=ns.path, state_dir=folder)
    compute_mtu([ip_address("192.0.2.2")], netns=ns.path)
    applied = applied.reconcile(state(slot=slot))
    assert interface_status("tun0", netns=ns.path) is not None
    applied.undo()
    assert read
    assert not [entry for entry in read if entry.destination.startswith((b"\x3c\0", b"\xfd\x60"))]


def test_what_the_kernel_refuses_is_raised(ns: Namespace) -> None:
    """Only to ask for the routes of a device that is not there is no error."""
    nowhere, network = 0x7FFF_0000, ip_network("198.51.100.0/24")
    with inside(ns.path):
        assert list(route_messages.dump(4, device=nowhere)) == []
        with pytest.raises(OSError, match="No such device"):
            route_messages.add(network, nowhere, 254)
        with pytest.raises(OSError, match="No such process"):
            route_messages.delete(network, nowhere, 254)


@pytest.mark.parametrize("relay", ["127.0.0.1", "127.8.8.8", "::1", "192.0.2.1"])
def test_mtu_of_the_way_to_a_relay_on_this_host(ns: Namespace, relay: str) -> None:
    ns.ip("link", "set", "lo", "up")
    assert compute_mtu([ip_address(relay)], netns=ns.path) == 1420
    ns.ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "mtu", "1300")
    assert compute_mtu(map(ip_address, (relay, "203.0.113.5")), netns=ns.path) == 1220


def test_mtu_from_the_machine(ns: Namespace, tmp_path: Path) -> None:
    near, far, far6 = map(ip_address, ("192.0.2.2", "203.0.113.5", "2001:db8:5::1"))
    assert compute_mtu([], netns=ns.path) == 1420
    ns.ip("link", "set", "out0", "mtu", "1400")
    assert compute_mtu([], netns=ns.path) == 1320, "the default route's device"
    assert compute_mtu([near], netns=ns.path) == 1320
    ns.ip("route", "add", "203.0.113.0/24", "via", "192.0.2.2", "mtu", "1300")
    assert compute_mtu([near, far, far6], netns=ns.path) == 1220, "the smallest"
    ns.ip("route", "add", "unreachable", "2001:db8:5::/48")
    assert compute_mtu([far6], netns=ns.path) == 1320, "no route to it: the default route"
    ns.ip("route", "del", "default")
    ns.ip("-6", "route", "del", "default")
    assert compute_mtu([far6], netns=ns.path) == 1420

    ns.ip("route", "add", "default", "via", "192.0.2.2")
    slot = DefaultRouteSlot()
    wanted = state(allowed=("0.0.0.0/0",), mtu=1320, slot=slot)
    apply(wanted, netns=ns.path, state_dir=tmp_path)
    other = ip_address("198.51.100.9")
    for mark in (0, slot.mark):
        mtu = compute_mtu([other], interface="tun0", mark=mark, netns=ns.path)
        assert mtu == 1320, "the tunnel's own route does not count"


def test_in_a_worker_thread_of_trio_without_leaking_descriptors(
    ns: Namespace, tmp_path: Path
) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    async def main() -> None:
        await trio.to_thread.run_sync(lambda: compute_mtu([], netns=ns.path))
        before = descriptors()
        for _ in range(3):
            await trio.to_thread.run_sync(lambda: apply(state(), netns=ns.path, state_dir=tmp_path))
            await trio.to_thread.run_sync(lambda: remove("tun0", netns=ns.path, state_dir=tmp_path))
        assert descriptors() == before
        # The pool's thread came back from the other namespace.
        assert await trio.to_thread.run_sync(namespace_id) == namespace_id()

    trio.run(main)


def test_down_hooks_stay_on_record_through_each_step_of_a_move(
    ns: Namespace, other: Namespace, tmp_path: Path
) -> None:
    """Whenever the daemon is killed, the next command has to find them."""
    hooks = DownHooks(post_down=("ip link delete hooked",))

    def recorded() -> DownHooks:
        found = load_record("tun0", tmp_path)
        assert found is not None
        return found.hooks

    other.add_tun("tun0")
    apply(state(), netns=ns.path, state_dir=tmp_path)
    keep_hooks("tun0", hooks, tmp_path)
    for place in (other, ns, ns):
        assert remove("tun0", state_dir=tmp_path) is True
        assert recorded() == hooks
        apply(state(), netns=place.path, state_dir=tmp_path)
        assert recorded() == hooks
    record = load_record("tun0", tmp_path)
    assert record is not None
    save_record(replace(record, place="/run/netns/tho-gone", netns=1), tmp_path)
    assert remove("tun0", state_dir=tmp_path) is True
    assert recorded() == hooks
    keep_hooks("tun0", DownHooks(), tmp_path)
    assert list(tmp_path.iterdir()) == []
