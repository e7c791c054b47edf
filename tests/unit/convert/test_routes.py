"""Which Table and which commands give the routes of a file."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from tests.support.confs import OTHER, PEER, PRIVATE, read
from tunnel.convert.routes import TunnelRoute, routes_of, settle

CONF = (
    f"[Interface]\nPrivateKey = {PRIVATE}\nAddress = 10.0.0.1/24\n{{table}}"
    f"[Peer]\nPublicKey = {PEER}\nAllowedIPs = {{allowed}}\n"
    f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.0.0.3/32\n"
)


def routes(*texts: str) -> list[TunnelRoute]:
    """Routes written as NETWORK or NETWORK@TABLE."""
    found = []
    for text in texts:
        network, _, table = text.partition("@")
        found.append(TunnelRoute(ip_network(network), int(table) if table else None, f"at {text}"))
    return found


@pytest.mark.parametrize(
    ("allowed", "there", "table", "commands"),
    [
        ("10.0.0.2/32", (), "auto", ()),
        ("10.1.0.0/16", (), "off", ()),
        ("10.1.0.0/16", ("10.1.0.0/16",), "auto", ()),
        ("10.1.0.0/16", ("10.1.0.0/16@254",), "auto", ()),
        ("10.1.0.0/16", ("10.1.0.0/16", "10.0.0.0/25"), "auto", ()),
        ("10.1.0.0/16", ("10.1.0.0/16@7",), 7, ()),
        ("0.0.0.0/0, ::/0", ("0.0.0.0/0", "::/0"), "auto", ()),
        (
            "10.1.0.0/16, fd01::/64",
            ("10.1.0.0/16", "fd01::/64@7"),
            "off",
            ("ip -4 route add 10.1.0.0/16 dev %i", "ip -6 route add fd01::/64 dev %i table 7"),
        ),
        (
            "0.0.0.0/0",
            ("10.2.0.0/16", "10.2.0.0/16@7"),
            "off",
            ("ip -4 route add 10.2.0.0/16 dev %i", "ip -4 route add 10.2.0.0/16 dev %i table 7"),
        ),
    ],
)
def test_routes_that_can_be_had(
    allowed: str, there: tuple[str, ...], table: object, commands: tuple[str, ...]
) -> None:
    config = read(CONF.format(table="", allowed=allowed))
    assert settle(config, routes(*there)) == (table, commands, [])


def test_a_default_route_is_no_command_and_the_difference_is_told() -> None:
    config = read(CONF.format(table="", allowed="0.0.0.0/0, ::/0, 10.1.0.0/16"))
    table, commands, lost = settle(config, routes("0.0.0.0/0", "10.7.0.0/16@7"))
    assert (table, commands) == ("auto", ())
    assert [(place, what) for place, what, _ in lost] == [
        ("at 10.7.0.0/16@7", "the route to 10.7.0.0/16"),
        ("at 0.0.0.0/0", "no route to ::/0"),
    ]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", ["10.1.0.0/16"]),
        ("Table = main\n", ["10.1.0.0/16"]),
        ("Table = 7\n", ["10.1.0.0/16@7"]),
        ("Table = off\n", []),
    ],
)
def test_the_routes_of_a_conf(table: str, expected: list[str]) -> None:
    config = read(CONF.format(table=table, allowed="10.1.0.0/16, 10.0.0.2/32"))
    found = [(route.network, route.table) for route in routes_of(config)]
    assert found == [(route.network, route.table) for route in routes(*expected)]
