"""Golden text per state: what wg-quick(8) would set up, in its order."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from textwrap import dedent

from tunnel.host.state import (
    DefaultRouteSlot,
    DesiredState,
    Table,
    connected_networks,
    describe,
    desired_state,
    difference,
    has_default_route,
    longest_prefix_first,
)


def state(
    addresses: str,
    allowed: str,
    *,
    table: Table = "auto",
    fwmark: int = 0,
    slot: DefaultRouteSlot | None = None,
    dns: str = "",
    search: str = "",
    firewall: bool = True,
) -> DesiredState:
    return desired_state(
        "tun0",
        [ip_interface(text) for text in addresses.split()],
        [ip_network(text) for text in allowed.split()],
        mtu=1420,
        table=table,
        fwmark=fwmark,
        slot=slot,
        dns=[ip_address(text) for text in dns.split()],
        dns_search=search.split(),
        firewall=firewall,
    )


def golden(text: str) -> str:
    return dedent(text).removeprefix("\n")


def test_the_addresses_of_a_port_are_the_bridges() -> None:
    built = replace(state("10.9.0.1/24", ""), bridge="br0")
    assert describe(built) == golden(
        """
        interface tun0
          bridge br0
          port of bridge br0
          address 10.9.0.1/24
          link up mtu 1420
        """
    )
    assert (built.addressed, state("", "").addressed) == ("br0", "tun0")


def test_longest_prefix_first_and_what_addresses_cover_is_skipped() -> None:
    built = state(
        "10.9.0.1/24 10.8.0.1/32 fd00:9::1/64 fd00:8::1/128",
        "10.20.0.0/16 10.9.0.0/24 10.9.0.7/32 10.9.0.0/16 10.8.0.1/32 10.20.0.0/16 "
        "fd00:9::5/128 fd00:20::/48 fd00:8::1/128",
    )
    assert describe(built) == golden(
        """
        interface tun0
          address 10.9.0.1/24
          address 10.8.0.1/32
          address fd00:9::1/64
          address fd00:8::1/128
          link up mtu 1420
          route fd00:20::/48
          route 10.8.0.1/32
          route 10.20.0.0/16
          route 10.9.0.0/16
        """
    )


def test_default_route_of_both_families() -> None:
    built = state("10.9.0.1/32 fd00::1/128", "0.0.0.0/0 ::/0 10.20.0.0/16")
    assert built.mark == 51820
    assert describe(built) == golden(
        """
        interface tun0 fwmark 0xca6c
          address 10.9.0.1/32
          address fd00::1/128
          link up mtu 1420
          sysctl net.ipv4.conf.all.src_valid_mark = 1
          firewall ipv4+ipv6 mark 0xca6c guarding 10.9.0.1, fd00::1
          route 10.20.0.0/16
          route 0.0.0.0/0 table 51820
          route ::/0 table 51820
          rule ipv4 32500: fwmark 0xca6c goto 32764
          rule ipv4 32764: not fwmark 0xca6c lookup main suppress_prefixlength 0
          rule ipv4 32765: not fwmark 0xca6c lookup 51820
          rule ipv6 32500: fwmark 0xca6c goto 32764
          rule ipv6 32764: not fwmark 0xca6c lookup main suppress_prefixlength 0
          rule ipv6 32765: not fwmark 0xca6c lookup 51820
        """
    )


def test_default_route_of_one_family_leaves_the_other_alone() -> None:
    built = state("10.9.0.1/32 fd00::1/128", "::/0", slot=DefaultRouteSlot(51823, 32700))
    assert describe(built) == golden(
        """
        interface tun0 fwmark 0xca6f
          address 10.9.0.1/32
          address fd00::1/128
          link up mtu 1420
          firewall ipv6 mark 0xca6f guarding fd00::1
          route ::/0 table 51823
          rule ipv6 32500: fwmark 0xca6f goto 32699
          rule ipv6 32699: not fwmark 0xca6f lookup main suppress_prefixlength 0
          rule ipv6 32700: not fwmark 0xca6f lookup 51823
        """
    )


def test_configured_mark_is_the_table_too() -> None:
    built = state("10.9.0.1/32", "0.0.0.0/0", fwmark=0x1234, slot=DefaultRouteSlot(51820, 32765))
    assert built.mark == 0x1234
    assert [route.table for route in built.routes] == [0x1234]
    assert {rule.mark for rule in built.rules} == {0x1234}


def test_table_off_and_by_number() -> None:
    off = state("10.9.0.1/24", "0.0.0.0/0 10.20.0.0/16", table="off", fwmark=7)
    assert (off.routes, off.rules, off.firewall, off.mark) == ((), (), None, 7)
    numbered = state("10.9.0.1/24", "0.0.0.0/0 10.9.0.0/24", table=1234)
    assert describe(numbered) == golden(
        """
        interface tun0
          address 10.9.0.1/24
          link up mtu 1420
          route 10.9.0.0/24 table 1234
          route 0.0.0.0/0 table 1234
        """
    )


def test_dns_needs_a_server_and_firewall_can_be_left_out() -> None:
    built = state("10.9.0.1/24", "", dns="10.9.0.53 fd00::53", search="lan example.org")
    assert "  dns 10.9.0.53 fd00::53 search lan example.org\n" in describe(built)
    assert state("10.9.0.1/24", "", search="lan").dns is None
    assert state("10.9.0.1/24", "0.0.0.0/0", firewall=False).firewall is None


def test_halves_of_everything_are_ordinary_routes() -> None:
    built = state("10.9.0.1/24", "0.0.0.0/1 128.0.0.0/1")
    assert built.rules == ()
    assert [str(route.destination) for route in built.routes] == ["0.0.0.0/1", "128.0.0.0/1"]


def test_helpers() -> None:
    networks = [ip_network(text) for text in ("10.0.0.0/8", "::/0", "10.0.0.0/8", "fd00::/16")]
    assert [str(net) for net in longest_prefix_first(networks)] == [
        "fd00::/16",
        "10.0.0.0/8",
        "::/0",
    ]
    assert has_default_route(networks)
    assert not has_default_route(networks, "off")
    assert not has_default_route(networks, 7)
    assert not has_default_route(networks[:1])
    addresses = [ip_interface(text) for text in ("10.0.0.1/32", "10.1.0.1/31", "fd00::1/128")]
    assert [str(net) for net in connected_networks(addresses)] == ["10.1.0.0/31", "fd00::1/128"]


def test_difference_says_what_a_reload_would_do() -> None:
    old = state("10.9.0.1/24", "10.20.0.0/16 10.21.0.0/16")
    new = state("10.9.0.2/24", "10.20.0.0/16", dns="10.9.0.53")
    assert difference(old, new) == [
        "- address 10.9.0.1/24",
        "- route 10.21.0.0/16",
        "+ address 10.9.0.2/24",
        "+ dns 10.9.0.53",
    ]
    assert difference(new, new) == []


def test_mtu_too_small_for_ipv6_leaves_ipv4() -> None:
    """The kernel would take the address off the interface, and its route with it."""
    addresses = (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64"))
    networks = [ip_network("10.1.0.0/16"), ip_network("fd00::2/128")]
    small = desired_state("wg0", addresses, networks, mtu=1279)
    assert small == desired_state("wg0", addresses[:1], networks[:1], mtu=1279)
    assert desired_state("wg0", addresses, networks, mtu=1280).addresses == addresses
