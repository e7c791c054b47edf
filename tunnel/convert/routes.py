"""Routes into a tunnel: those that a conf means, and the Table that means the routes of a file.

wg-quick's `Table = auto` makes a route for each of AllowedIPs, and for a /0 rules that keep the
tunnel's own packets out of it. Other programs want each route said.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from tunnel.config import TunnelConfig, values
from tunnel.config.problems import Mistake
from tunnel.config.values import Table
from tunnel.linux.networks import Network, is_inside

__all__ = ["AUTO_TABLE", "TunnelRoute", "routes_of", "settle", "table_number"]

AUTO_TABLE: Final = 51820
"""The routing table, and the mark, that wg-quick tries first for a /0."""

MAIN: Final = 254


class TunnelRoute(NamedTuple):
    """A route into the tunnel. `table` is None for main; `place` says where it stands."""

    network: Network
    table: int | None = None
    place: str = ""


def table_number(text: str) -> int | None:
    """The number of a routing table, written as such or as a name of iproute2; None for others."""
    try:
        found = values.table(text)
    except Mistake:
        return None
    return found if isinstance(found, int) else None


def routes_of(config: TunnelConfig) -> list[TunnelRoute]:
    """The routes that `config` makes, without those that its addresses bring."""
    table = config.interface.table
    if table == "off" or config.interface.options.is_tap:
        return []
    number = None if table in ("auto", MAIN) else int(table)
    return [TunnelRoute(network, number) for network in _needed(config)]


def settle(
    config: TunnelConfig, routes: Sequence[TunnelRoute]
) -> tuple[Table, tuple[str, ...], list[tuple[str, str, str]]]:
    """The Table and PostUp with which `config` has these routes, and what is lost of them.

    A lost thing is its place, what it is, and why.
    """
    connected = _Connected(config)
    needed = set(_needed(config))
    # Each once; the dict keeps their order.
    given = {
        (route.network, None if route.table == MAIN else route.table): route
        for route in routes
        if route.network not in connected
    }
    if not given:
        return "off" if needed else "auto", (), []
    tables = {table for _, table in given}
    routed = {network for network, _ in given}
    if len(tables) == 1 and routed == needed:
        return tables.pop() or "auto", (), []
    defaults = [network for network, table in given if not network.prefixlen and table is None]
    if not defaults:
        return "off", tuple(_command(*each) for each in given), []
    # By a command, a default route would lead the tunnel's own packets into it, too.
    lost = [
        (route.place, f"the route to {network}", "AllowedIPs make the routes here")
        for (network, table), route in given.items()
        if network not in needed or table
    ]
    lost += [
        (next(iter(given.values())).place, f"no route to {network}", "AllowedIPs make one here")
        for network in sorted(needed - routed, key=str)
        if not any(is_inside(network, each) for each in defaults)
    ]
    return "auto", (), lost


def _command(network: Network, table: int | None) -> str:
    into = "" if table is None else f" table {table}"
    return f"ip -{network.version} route add {network} dev %i{into}"


def _needed(config: TunnelConfig) -> list[Network]:
    """AllowedIPs that need a route, in order, each once."""
    connected = _Connected(config)
    return [network for network in dict.fromkeys(config.networks) if network not in connected]


class _Connected:
    """The networks to which the addresses of the interface bring routes, and what is in them."""

    def __init__(self, config: TunnelConfig) -> None:
        self._networks = {address.network for address in config.interface.addresses}
        self._lengths = {(each.version, each.prefixlen) for each in self._networks}

    def __contains__(self, network: Network) -> bool:
        return any(
            network.supernet(new_prefix=length) in self._networks
            for version, length in self._lengths
            if version == network.version and length <= network.prefixlen
        )
