"""systemd-networkd: a .netdev with keys and peers, and a .network with addresses and routes.

systemd.netdev(5), sections [NetDev], [WireGuard] and [WireGuardPeer]; systemd.network(5), sections
[Match], [Network], [Address], [Route], [RoutingPolicyRule] and [Link].
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tunnel.config import TunnelConfig
from tunnel.config.parser import place_of
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, Section, refused
from tunnel.convert.format import Format, Output, Written
from tunnel.convert.ini import NAME, Block, Item, blocks, name_comment
from tunnel.convert.routes import AUTO_TABLE, TunnelRoute, routes_of, table_number
from tunnel.linux.networks import Network, read_network

__all__ = ["NETWORKD"]

_YES: Final = frozenset({"1", "yes", "y", "true", "t", "on"})
_NO: Final = frozenset({"0", "no", "n", "false", "f", "off"})
_AUTO: Final = frozenset({"", "auto"})

_MAIN: Final = 254
_BYTES: Final = re.compile(r"([0-9]{1,9})(K?)")
_RULE: Final = frozenset({"FirewallMark", "InvertRule", "Table", "Family", "Priority"})
_SUPPRESS: Final = frozenset({"SuppressPrefixLength", "Table", "Family", "Priority"})

_INTERFACE: Final = {
    "PrivateKey": "PrivateKey",
    "PrivateKeyFile": "PrivateKeyFile",
    "ListenPort": "ListenPort",
    "FirewallMark": "FwMark",
}
_PEER: Final = {
    "PublicKey": "PublicKey",
    "PresharedKey": "PresharedKey",
    "PresharedKeyFile": "PresharedKeyFile",
    "Endpoint": "Endpoint",
    "PersistentKeepalive": "PersistentKeepalive",
}
_SILENT: Final = frozenset({"Kind", "Name", "Description"})
"""Keys of [NetDev] and [Match] that are what a conf says by its name and format."""


class _Reader:
    """Collects what the sections of both files say into a draft."""

    def __init__(self, sources: Sequence[ForeignFile], wanted: str) -> None:
        found = [
            block for source in sources for block in blocks(source, comments="#;", continued=True)
        ]
        tunnels = [block for block in found if block.title == "WireGuard"]
        place = tunnels[0].place if tunnels else FileLine(sources[0].name)
        self.draft = Draft(place)
        self._tables: list[tuple[Item | None, Section]] = []
        self._routes: list[tuple[Block, Network, int | None]] = []
        self._rules: list[Block] = []
        if len(tunnels) > 1:
            raise refused(tunnels[1].place, "a second [WireGuard]", "import one tunnel at a time")
        self._has_network = any(block.title == "Network" for block in found)
        self._table: Item | None = None
        for block in found:
            reader = _SECTIONS.get(block.title)
            if reader is None:
                self.draft.lose_key(block.place, f"[{block.title}]")
            else:
                reader(self, block)
        if wanted and self.draft.name and wanted != self.draft.name:
            raise refused(place, f"the tunnel is {self.draft.name}, not {wanted}", "name that one")
        if not self._has_network:
            self.draft.lose(
                FileLine(sources[0].name), "addresses, DNS and routes",
                "they are in a .network file: name that file, too",
            )  # fmt: skip

    def netdev(self, block: Block) -> None:
        """[NetDev]: what kind of interface it is, and its name and MTU."""
        for key, item in block.last().items():
            if key == "Name":
                self.draft.name = item.value
            elif key == "Kind" and item.value.lower() != "wireguard":
                raise refused(item.place, "this is not a WireGuard interface", "name another file")
            elif key == "MTUBytes":
                self._mtu(item)
            elif key not in _SILENT:
                self.draft.lose_key(item.place, key)

    def wireguard(self, block: Block) -> None:
        """[WireGuard]: this host."""
        self.draft.interface.place = block.place
        items = block.last()
        for key, item in items.items():
            if key == "RouteTable":
                self._table = item
            elif key == "ListenPort" and item.value.lower() in _AUTO:
                continue
            elif key == "PrivateKey" and item.value.startswith("@"):
                name = item.value.removeprefix("@")
                self.draft.keyless = f"the private key is the credential {name!r} of systemd"
            elif key in _INTERFACE:
                self._value(self.draft.interface, _INTERFACE[key], item)
            else:
                self.draft.lose_key(item.place, key)
        _file_before_key(self.draft.interface, "PrivateKey")

    def peer(self, block: Block) -> None:
        """[WireGuardPeer]: AllowedIPs add up, an empty one begins anew."""
        peer = self.draft.peer(block.place)
        table: Item | None = None
        for item in block.items:
            if item.key == "AllowedIPs":
                for network in item.value.split(","):
                    if network.strip():
                        peer.add("AllowedIPs", network.strip(), item.place)
                if not item.value:
                    peer.clear("AllowedIPs")
            elif item.key == "RouteTable":
                table = item
            elif item.key == NAME:
                peer.friendly_name = item.value
            elif item.key in _PEER:
                self._value(peer, _PEER[item.key], item)
            else:
                self.draft.lose_key(item.place, item.key)
        _file_before_key(peer, "PresharedKey")
        self._tables.append((table, peer))

    def match(self, block: Block) -> None:
        """[Match]: which interface it is for."""
        for item in block.items:
            if item.key not in _SILENT:
                self.draft.lose_key(item.place, item.key)

    def link(self, block: Block) -> None:
        """[Link]: the MTU."""
        for item in block.items:
            if item.key == "MTUBytes":
                self._mtu(item)
            else:
                self.draft.lose_key(item.place, item.key)

    def network(self, block: Block) -> None:
        """[Network]: addresses and DNS."""
        interface = self.draft.interface
        for item in block.items:
            if item.key == "Address":
                self._address(item)
            elif item.key in ("DNS", "Domains"):
                for word in item.value.split():
                    # The catch-all that a conf's DNS always has.
                    if word != "~.":
                        self.draft.add_dns(word, item.place)
                if not item.value:
                    interface.clear("DNS")
            elif item.key == "DNSDefaultRoute" and item.value.lower() in _YES:
                continue
            elif item.key == "IPMasquerade" and item.value == "both":
                self.draft.options.set("Masquerade", "auto", item.place)
            else:
                self.draft.lose_key(item.place, item.key)

    def address(self, block: Block) -> None:
        """[Address]."""
        for item in block.items:
            if item.key == "Address":
                self._address(item)
            else:
                self.draft.lose_key(item.place, item.key)

    def route(self, block: Block) -> None:
        """[Route]."""
        items = block.last()
        kind = items.pop("Type", None)
        where, table = items.pop("Destination", None), items.pop("Table", None)
        if kind is not None and kind.value != "unicast":
            self.draft.lose_key(block.place, f"[Route] of Type={kind.value}")
            return
        gateway = items.pop("Gateway", None)
        if where is None and gateway is None:
            self.draft.lose_key(block.place, "[Route] without Destination")
            return
        every = "::/0" if gateway is not None and ":" in gateway.value else "0.0.0.0/0"
        text = where.value if where is not None else every
        try:
            network = read_network(text, strict=False)
        except ValueError:
            remedy = "write it as 10.0.0.0/24"
            raise refused(block.place, "this route's Destination is no network", remedy) from None
        for item in items.values():
            if item.key not in ("Scope", "GatewayOnLink"):
                self.draft.lose_key(item.place, item.key)
        self._routes.append((block, network, _number(table) if table else None))

    def rule(self, block: Block) -> None:
        """[RoutingPolicyRule]: kept until the mark is known."""
        self._rules.append(block)

    def finished(self) -> Draft:
        """The draft, with the routes of both files."""
        draft = self.draft
        mark = _integer(draft.interface.get("FwMark") or "0")
        known = [block for block in self._rules if _is_ours(block, mark)]
        # What wg-quick's rules do: all packets without the mark, by the table of the default route.
        tables = [block.last()["Table"] for block in known if "Table" in block.last()]
        aside = {_number(table) for table in tables} - {_MAIN}
        for block in self._rules:
            if block not in known or not aside:
                draft.lose_key(block.place, "[RoutingPolicyRule]")
        if aside == {mark} == {AUTO_TABLE}:
            draft.interface.clear("FwMark")
        routes = [
            TunnelRoute(network, None if table in aside else table, str(block.place))
            for block, network, table in self._routes
        ]
        for own, peer in self._tables:
            item = own or self._table
            if item is None or item.value.lower() in _NO:
                continue
            table = _number(item)
            for network, place in peer.networks():
                routes.append(TunnelRoute(network, None if table in aside else table, str(place)))
        draft.routes = routes if self._has_network or routes else None
        return draft

    def _value(self, section: Section, key: str, item: Item) -> None:
        """Take a value that counts if it is not empty."""
        if item.value:
            section.set(key, item.value, item.place)
        else:
            section.clear(key)

    def _address(self, item: Item) -> None:
        if item.value:
            self.draft.interface.add("Address", item.value, item.place)
        else:
            self.draft.interface.clear("Address")

    def _mtu(self, item: Item) -> None:
        found = _BYTES.fullmatch(item.value)
        scale = {"": 1, "K": 1024}[found[2]] if found else 1
        value = str(int(found[1]) * scale) if found else item.value
        self.draft.interface.set("MTU", value, item.place)


_SECTIONS: Final[dict[str, Callable[[_Reader, Block], None]]] = {
    "NetDev": _Reader.netdev,
    "WireGuard": _Reader.wireguard,
    "WireGuardPeer": _Reader.peer,
    "Match": _Reader.match,
    "Link": _Reader.link,
    "Network": _Reader.network,
    "Address": _Reader.address,
    "Route": _Reader.route,
    "RoutingPolicyRule": _Reader.rule,
}


def _file_before_key(section: Section, key: str) -> None:
    """Where both are there, systemd reads the file."""
    if section.get(f"{key}File") is not None:
        section.clear(key)


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0  # the parser of confs will say so


def _number(item: Item) -> int:
    number = table_number(item.value)
    if number is None:
        fault = f"{item.key} is neither a number nor a name of /etc/iproute2/rt_tables"
        raise refused(item.place, fault, "write the number of the table")
    return number


def _is_ours(block: Block, mark: int) -> bool:
    """Whether a rule is one of those that wg-quick makes for a default route."""
    items = block.last()
    if set(items) <= _SUPPRESS and "SuppressPrefixLength" in items:
        table = _number(items["Table"]) if "Table" in items else _MAIN
        return items["SuppressPrefixLength"].value == "0" and table == _MAIN
    inverted = "InvertRule" in items and items["InvertRule"].value.lower() in _YES
    return (
        set(items) <= _RULE
        and inverted
        and "Table" in items
        and "FirewallMark" in items
        and 0 < mark == _integer(items["FirewallMark"].value)
    )


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    return _Reader(sources, wanted).finished()


def _write(config: TunnelConfig) -> Written:
    interface = config.interface
    routes = routes_of(config)
    versions = sorted({r.network.version for r in routes if not r.network.prefixlen})
    is_aside = bool(versions) and interface.table in ("auto", _MAIN)
    mark = interface.fwmark or (AUTO_TABLE if is_aside else 0)
    device = {"Name": config.name, "Kind": "wireguard", "MTUBytes": interface.mtu}
    netdev = [_section("NetDev", device)]
    wireguard = {
        **_secret(config, "PrivateKey", interface.private_key, interface.private_key_file),
        "ListenPort": interface.listen_port,
        "FirewallMark": mark,
        "RouteTable": (routes[0].table or "main") if routes and not is_aside else None,
    }
    netdev.append(_section("WireGuard", wireguard))
    for peer in config.peers:
        items = {
            "PublicKey": peer.public_key.to_base64(),
            **_secret(config, "PresharedKey", peer.preshared_key, peer.preshared_key_file),
            "AllowedIPs": ",".join(map(str, peer.networks)),
            "Endpoint": peer.endpoint,
            "PersistentKeepalive": peer.persistent_keepalive,
        }
        netdev.append(_section("WireGuardPeer", items, peer.friendly_name))
    network = [_section("Match", {"Name": config.name})]
    lines = [("Address", str(address)) for address in interface.addresses]
    lines += [("DNS", str(server)) for server in interface.dns]
    if interface.dns_entries:
        lines.append(("Domains", " ".join(["~.", *(d for d in interface.dns_search if d != "~.")])))
        lines.append(("DNSDefaultRoute", "yes"))
    if interface.options.masquerade == "auto":
        lines.append(("IPMasquerade", "both"))
    network.append(_block("Network", lines))
    if is_aside:
        for route in routes:
            table = None if route.network.prefixlen else mark
            items = {"Destination": route.network, "Table": table}
            network.append(_section("Route", items))
        for version in versions:
            network += _rules(version, mark)
    files = (
        Output(f"{config.name}.netdev", "\n".join([_HEAD.format(config.name), *netdev])),
        Output(f"{config.name}.network", "\n".join(network), secret=False),
    )
    lost: tuple[Lost, ...] = ()
    if interface.options.masquerade not in ("", "auto"):
        why = "IPMasquerade= is for every way out"
        lost = (Lost(place_of(config, "Masquerade") or config.name, "Masquerade", why),)
    return Written(files, lost)


_HEAD = """\
# Put both files into /etc/systemd/network. systemd-networkd must be able to read this one:
# chgrp systemd-network {0}.netdev && chmod 640 {0}.netdev
"""


def _rules(version: int, mark: int) -> Iterator[str]:
    """What wg-quick does for a default route, with the priorities that the kernel gives it."""
    family = f"ipv{version}"
    main = {"Family": family, "Table": "main", "SuppressPrefixLength": "0", "Priority": 32764}
    yield _section("RoutingPolicyRule", main)
    others = {"FirewallMark": mark, "InvertRule": "yes", "Table": mark, "Priority": 32765}
    yield _section("RoutingPolicyRule", {"Family": family, **others})


def _secret(config: TunnelConfig, key: str, secret: object, file: str | None) -> dict[str, object]:
    if file is not None:
        folder = config.path.parent if config.path is not None else Path()
        return {f"{key}File": (folder / file).absolute()}
    return {key: secret.to_base64() if hasattr(secret, "to_base64") else None}


def _section(title: str, items: Mapping[str, object], name: str = "") -> str:
    return _block(title, ((k, str(v)) for k, v in items.items() if v), name)


def _block(title: str, lines: Iterable[tuple[str, str]], name: str = "") -> str:
    head = f"[{title}]\n{name_comment(name)}"
    return head + "".join(f"{key}={value}\n" for key, value in lines)


NETWORKD: Final = Format(
    name="networkd",
    title="systemd-networkd (.netdev and .network)",
    sign=re.compile(r"^[^\S\n]*\[(NetDev|WireGuard|WireGuardPeer)\]", re.MULTILINE),
    keys={
        "PrivateKey": "PrivateKey=, PrivateKeyFile=",
        "ListenPort": "ListenPort=",
        "FwMark": "FirewallMark=",
        "Address": "Address=",
        "MTU": "MTUBytes=",
        "Table": "RouteTable=, [Route], [RoutingPolicyRule]",
        "DNS": "DNS=, Domains=",
        "PublicKey": "PublicKey=",
        "PresharedKey": "PresharedKey=, PresharedKeyFile=",
        "AllowedIPs": "AllowedIPs=",
        "Endpoint": "Endpoint=",
        "PersistentKeepalive": "PersistentKeepalive=",
        "# friendly_name": "a comment",
        "Masquerade": "IPMasquerade=both",
    },
    read=_read,
    write=_write,
)
