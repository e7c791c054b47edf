"""`tunnel up`, and an interface that is changed, set down, moved or deleted by somebody else."""

from __future__ import annotations

import pytest

from tests.support.daemons import remains, rewrite, status
from tests.support.pairs import Pair
from tunnel.lab import Host
from tunnel.lab.peers import OurEnd

pytestmark = pytest.mark.root

LARGEST_MTU = 34_736


def log_of(host: Host) -> str:
    return host.run(["cat", "/run/tunnel/wg0.log"]).stdout


def ping_whole(host: Host, address: str, size: int) -> None:
    """Packets of `size` bytes in all, not to be split inside the tunnel."""
    headers = 48 if ":" in address else 28
    size_option = ["-M", "do", "-s", str(size - headers)]
    host.run(["ping", "-n", "-i", "0.2", "-c", "2", "-w", "10", *size_option, address])


def wait_mtu(end: OurEnd, mtu: int) -> None:
    end.node.host.wait_for(lambda: status(end)["mtu"] == mtu, 10, f"an MTU of {mtu}")


def test_mtu_is_followed(pair: Pair) -> None:
    for mtu in (LARGEST_MTU, 1280, 1420):
        for end in (pair.a, pair.b):
            end.node.host.ip(f"link set wg0 mtu {mtu}")
            wait_mtu(end, mtu)
        for version in (4, 6):
            ping_whole(pair.hosts[0], pair.b.node.address(version), mtu)
    assert f"the MTU is now {LARGEST_MTU}" in log_of(pair.hosts[0])


def test_changed_mtu_is_a_difference_that_reload_takes_back(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ip("link set wg0 mtu 1300")
    wait_mtu(pair.a, 1300)
    said = "+ link up mtu 1420: was taken away or changed from outside\n"
    assert pair.a.tunnel("diff", "wg0") == said
    assert pair.a.tunnel("reload", "wg0") == said
    wait_mtu(pair.a, 1420)
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"


def test_down_and_up_again_brings_routes_and_addresses_back(pair: Pair) -> None:
    a, b = pair.hosts
    for end in (pair.a, pair.b):
        rewrite(end, "AllowedIPs = ", "AllowedIPs = 10.88.0.0/16, fd88::/64, ")
        end.tunnel("reload", "wg0")
    a.ping(pair.b.node.address())

    def state() -> tuple[str, ...]:
        commands = (["address"], ["route"], ["-6", "route"])
        return tuple(a.run(["ip", *line, "show", "dev", "wg0"]).stdout for line in commands)

    before = state()
    assert "10.88.0.0/16" in before[1]
    assert "fd88::/64" in before[2]
    a.ip("link set wg0 down")
    a.wait_for(lambda: "set down" in log_of(a), 10, "the daemon to see it")
    b.run(["ping", "-n", "-c", "1", "-W", "1", pair.a.node.address()], check=False)
    a.wait_for(lambda: "interface_down" in status(pair.a)["drops"], 10, "a dropped packet")
    a.ip("link set wg0 up")
    a.wait_for(lambda: state() == before, 10, "everything to be back")
    for version in (4, 6):
        a.ping(pair.b.node.address(version))
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"
    pair.a.down()
    assert remains(a) == []


def test_what_others_took_away_is_a_difference_and_comes_back(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ip("address delete fd77::1/64 dev wg0")
    said = "+ address fd77::1/64: was taken away or changed from outside\n"
    assert pair.a.tunnel("diff", "wg0") == said
    assert pair.a.tunnel("reload", "wg0") == said
    a.ping(pair.b.node.address(6))


def test_connected_routes_are_put_back_too(pair: Pair) -> None:
    a, _ = pair.hosts
    networks = ("10.77.0.0/24", "fd77::/64")
    for network in networks:
        a.ip(f"route delete {network} dev wg0")
    said = "".join(
        f"+ connected route {network}: was taken away or changed from outside\n"
        for network in networks
    )
    assert pair.a.tunnel("diff", "wg0") == said
    assert pair.a.tunnel("reload", "wg0") == said
    for version in (4, 6):
        a.ping(pair.b.node.address(version))
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"


def test_connected_routes_that_a_hook_sees_to_are_left_alone(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ip("route delete 10.77.0.0/24 dev wg0")
    rewrite(pair.a, "Address = ", "PostUp = ip route del 10.77.0.0/24 dev %i\nAddress = ")
    assert "connected route" not in pair.a.tunnel("diff", "wg0")
    assert "connected route" not in pair.a.tunnel("reload", "wg0")
    assert "10.77.0.0/24" not in a.run(["ip", "route", "show", "dev", "wg0"]).stdout


def test_moved_it_works_there_and_is_followed(pair: Pair) -> None:
    a, b = pair.hosts
    inner = pair.lab.host("inner")
    a.ip(f"link set wg0 netns {inner.pid}")
    inner.add_addresses("wg0", pair.a.node.addresses)
    inner.ip("link set wg0 up")
    for version in (4, 6):
        inner.ping(pair.b.node.address(version))
    b.ping(pair.a.node.address())
    for host in (inner, b):
        host.ip(f"link set wg0 mtu {LARGEST_MTU}")
    wait_mtu(pair.a, LARGEST_MTU)
    ping_whole(inner, pair.b.node.address(), LARGEST_MTU)
    # The outside stays where it was; going down from there removes all.
    assert ":51820" in a.run(["ss", "-Hulpn"]).stdout
    pair.a.down()
    assert remains(a) == []
    assert "wg0" not in inner.interfaces()


def test_deleted_where_it_was_moved_to_it_ends_the_daemon(pair: Pair) -> None:
    a, _ = pair.hosts
    inner = pair.lab.host("inner")
    a.ip(f"link set wg0 netns {inner.pid}")
    inner.ip("link delete wg0")
    a.wait_for(lambda: not a.pids(), 10, "the daemon to leave")
    assert remains(a) == []


def test_foreign_address_is_nothing_that_reload_changes(pair: Pair) -> None:
    a, _ = pair.hosts
    a.ip("address add 10.78.0.1/24 dev wg0")
    assert pair.a.tunnel("diff", "wg0") == "reload would change nothing\n"
    pair.a.tunnel("reload", "wg0")
    assert "10.78.0.1/24" in [str(found.address) for found in a.addresses("wg0")]
