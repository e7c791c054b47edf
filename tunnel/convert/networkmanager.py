"""NetworkManager: the keyfile of a connection, nm-settings-keyfile(5).

The syntax is GLib's: `#` begins a comment, `;` ends an item of a list, and \\s, \\n, \\t, \\r, \\;
and \\\\ stand for characters. A peer is a group [wireguard-peer.PUBLICKEY].
"""

import re
import uuid
from collections.abc import Iterator, Sequence
from typing import Final

from tunnel.config import PeerConfig, TunnelConfig
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, refused
from tunnel.convert.format import Format, Output, Written
from tunnel.convert.ini import NAME, Block, Item, blocks, name_comment
from tunnel.convert.routes import TunnelRoute, routes_of, table_number
from tunnel.linux.networks import read_network

__all__ = ["NETWORKMANAGER"]

_PEER: Final = "wireguard-peer."
_ESCAPE: Final = re.compile(r"\\(.)")
_ESCAPED: Final = {"s": " ", "n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
_ITEM: Final = re.compile(r"((?:[^;\\]|\\(?:.|$))*)(?:;|$)")
_NUMBERED: Final = re.compile(r"(address|addresses|route|routes)([0-9]*)")
_NOT_SAVED: Final = {"1": "is kept by an agent of a user's session", "2": "is asked for each time"}

_SILENT: Final = {
    "connection": {"id", "uuid", "type", "timestamp", "interface-name", "permissions"},
    # Networks of a tunnel have no router that advertises.
    "ipv6": {"addr-gen-mode", "may-fail"},
    "ipv4": {"may-fail"},
    "proxy": set[str](),
}


class _Reader:
    def __init__(self, sources: Sequence[ForeignFile], wanted: str) -> None:
        if len(sources) > 1:
            fault = "a connection is one keyfile, and this is another"
            raise refused(FileLine(sources[1].name), fault, "import one at a time")
        found = list(blocks(sources[0], comments="#", continued=False))
        groups = {block.title: block for block in found}
        place = groups["wireguard"].place if "wireguard" in groups else FileLine(sources[0].name)
        self.draft = Draft(place)
        self._routes: list[TunnelRoute] = []
        self._tables: dict[int, int | None] = {4: None, 6: None}
        self._defaults = {4: True, 6: True}
        self._disabled: set[int] = set()
        self._follow = True
        self._no_rules: dict[int, Item] = {}
        kind = groups["connection"].last().get("type") if "connection" in groups else None
        if "wireguard" not in groups or (kind is not None and kind.value != "wireguard"):
            raise refused(place, "this is not a WireGuard connection", "name another file")
        for block in found:
            if block.title == "connection":
                self._connection(block)
            elif block.title == "wireguard":
                self._wireguard(block)
            elif block.title.startswith(_PEER):
                self._peer(block)
            elif block.title in ("ipv4", "ipv6"):
                self._ip(block, int(block.title[-1]))
            else:
                self._others(block, block.last())
        if wanted and self.draft.name and wanted != self.draft.name:
            raise refused(place, f"the tunnel is {self.draft.name}, not {wanted}", "name that one")

    def finished(self) -> Draft:
        """The draft, with the routes that NetworkManager would make."""
        for peer in self.draft.peers if self._follow else ():
            for network, place in peer.networks():
                version = network.version
                if network.prefixlen or self._defaults[version]:
                    self._routes.append(TunnelRoute(network, self._tables[version], str(place)))
                if not network.prefixlen and self._tables[version] is None:
                    item = self._no_rules.pop(version, None)
                    if item is not None:
                        why = "rules keep the tunnel's own packets out of a default route here"
                        self.draft.lose(item.place, f"{item.key}={item.value}", why)
        self.draft.routes = [r for r in self._routes if r.network.version not in self._disabled]
        return self.draft

    def _connection(self, block: Block) -> None:
        items = block.last()
        if "interface-name" in items:
            self.draft.name = items["interface-name"].value
        self._others(block, items)

    def _wireguard(self, block: Block) -> None:
        interface = self.draft.interface
        items = block.last()
        flags = items.pop("private-key-flags", None)
        for key, ours in (
            ("private-key", "PrivateKey"), ("listen-port", "ListenPort"), ("fwmark", "FwMark"),
            ("mtu", "MTU"),
        ):  # fmt: skip
            item = items.pop(key, None)
            if item is not None and item.value not in ("", "0"):
                interface.set(ours, _text(item.value), item.place)
        if flags is not None and flags.value not in ("", "0"):
            interface.clear("PrivateKey")
            why = _NOT_SAVED.get(flags.value, "is not in the file")
            self.draft.keyless = f"the private key {why} (private-key-flags={flags.value})"
            interface.place = flags.place
        follow = items.pop("peer-routes", None)
        self._follow = follow is None or follow.value.lower() not in ("false", "0", "no")
        for version in (4, 6):
            item = items.pop(f"ip{version}-auto-default-route", None)
            if item is not None and item.value in ("0", "false"):
                self._no_rules[version] = item
        self._others(block, items)

    def _peer(self, block: Block) -> None:
        peer = self.draft.peer(block.place)
        peer.set("PublicKey", block.title.removeprefix(_PEER), block.place)
        items = block.last()
        secret, flags = items.pop("preshared-key", None), items.pop("preshared-key-flags", None)
        # Without the flags NetworkManager does not read it (NOT_REQUIRED is what it assumes).
        if secret is not None and (flags is None or flags.value == "4"):
            why = "without preshared-key-flags=0 NetworkManager does not use it"
            self.draft.lose(secret.place, "preshared-key", why)
        elif flags is not None and flags.value in _NOT_SAVED:
            self.draft.lose(flags.place, "the preshared key", _NOT_SAVED[flags.value])
        elif secret is not None:
            peer.set("PresharedKey", _text(secret.value), secret.place)
        allowed = items.pop("allowed-ips", None)
        for text in _list(allowed.value) if allowed is not None else ():
            peer.add("AllowedIPs", text, allowed.place if allowed is not None else block.place)
        for key, ours in (
            ("endpoint", "Endpoint"),
            ("persistent-keepalive", "PersistentKeepalive"),
        ):
            item = items.pop(key, None)
            if item is not None and item.value:
                peer.set(ours, _text(item.value), item.place)
        name = items.pop(NAME, None)
        peer.friendly_name = name.value if name is not None else ""
        self._others(block, items)

    def _ip(self, block: Block, version: int) -> None:
        items = block.last()
        table = items.pop("route-table", None)
        never = items.pop("never-default", None)
        method = items.pop("method", None)
        if table is not None and table.value not in ("0", "254"):
            self._tables[version] = table_number(table.value)
            if self._tables[version] is None:
                raise refused(table.place, "route-table is not the number of a table", "correct it")
        self._defaults[version] = never is None or never.value.lower() not in ("true", "1", "yes")
        if method is not None and method.value in ("disabled", "ignore"):
            self._disabled.add(version)
        elif method is not None and method.value != "manual":
            self.draft.lose_key(method.place, f"{block.title}.method={method.value}")
        for key, item in list(items.items()):
            numbered = _NUMBERED.fullmatch(key)
            if numbered is not None and numbered[1].startswith("address"):
                address, _, gateway = items.pop(key).value.partition(",")
                self.draft.interface.add("Address", address.strip(), item.place)
                if gateway.strip():
                    self.draft.lose(item.place, "the gateway", "a tunnel has none: see AllowedIPs")
            elif numbered is not None:
                options = items.pop(f"{key}_options", None)
                self._route(items.pop(key), options, version)
        for text, item in _each(items.pop("dns", None)):
            self.draft.add_dns(text, item.place)
        for text, item in _each(items.pop("dns-search", None)):
            # The catch-all that a conf's DNS always has.
            if text not in ("~", "~."):
                self.draft.add_dns(text, item.place)
        priority = items.pop("dns-priority", None)
        if priority is not None and not priority.value.startswith("-"):
            self.draft.lose(priority.place, "dns-priority", "a conf's DNS is asked for every name")
        self._others(block, items)

    def _route(self, item: Item, options: Item | None, version: int) -> None:
        destination, _, rest = item.value.partition(",")
        try:
            network = read_network(destination.strip(), strict=False)
        except ValueError:
            fault, remedy = f"{item.key} is not a route", "write it as 10.0.0.0/24"
            raise refused(item.place, fault, remedy) from None
        table = self._tables[version]
        for option in options.value.split(",") if options is not None else ():
            name, _, value = option.partition("=")
            number = table_number(value.strip()) if name.strip() == "table" else None
            if number is not None:
                table = number
            else:
                assert options is not None
                self.draft.lose_key(options.place, f"{options.key}: {name.strip()}")
        metric = rest.partition(",")[2].strip()
        if metric not in ("", "0"):
            self.draft.lose_key(item.place, f"the metric of {item.key}")
        self._routes.append(TunnelRoute(network, table, str(item.place)))

    def _others(self, block: Block, items: dict[str, Item]) -> None:
        for key, item in items.items():
            if key not in _SILENT.get(block.title, ()):
                self.draft.lose_key(item.place, f"{block.title}.{key}")


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    return _Reader(sources, wanted).finished()


def _text(value: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), value)


def _list(value: str) -> list[str]:
    """The items of a list; old keyfiles separate by commas, too."""
    found = (_text(text).strip() for text in _ITEM.findall(value))
    return [item for text in found for item in re.split(r"[,\s]+", text) if item]


def _each(item: Item | None) -> Iterator[tuple[str, Item]]:
    if item is not None:
        yield from ((text, item) for text in _list(item.value))


def _write(config: TunnelConfig) -> Written:
    interface = config.interface
    lost: list[Lost] = []
    routes = routes_of(config)
    table = interface.table if isinstance(interface.table, int) else None
    versions = {address.version for address in interface.addresses}
    wireguard: dict[str, object] = {
        "private-key": interface.private_key.to_base64() if interface.private_key else None,
        "listen-port": interface.listen_port,
        "fwmark": interface.fwmark,
        "mtu": interface.mtu,
        "peer-routes": "false" if interface.table == "off" else None,
    }
    for version in (4, 6):
        is_default = any(
            not network.prefixlen and network.version == version for network in config.networks
        )
        if is_default and interface.table != "auto":
            wireguard[f"ip{version}-auto-default-route"] = "0"
    groups = [
        f"# Copy it to /etc/NetworkManager/system-connections/{config.name}.nmconnection (mode\n"
        "# 0600), then: nmcli connection reload\n",
        _group("connection", {
            "id": config.name,
            "uuid": uuid.uuid5(_NAMESPACE, config.name),
            "type": "wireguard",
            "interface-name": config.name,
        }),
        _group("wireguard", wireguard),
        *map(_peer_group, config.peers),
    ]  # fmt: skip
    place = str(config.path or config.name)
    for version in (4, 6):
        own = [address for address in interface.addresses if address.version == version]
        servers = [server for server in interface.dns if server.version == version]
        needs = [route for route in routes if route.network.version == version]
        items: dict[str, object] = {
            f"address{number}": address for number, address in enumerate(own, 1)
        }
        if not own:
            lost += [
                Lost(place, f"DNS = {server}", f"needs an IPv{version} address in Address")
                for server in servers
            ]
            lost += [
                Lost(place, f"the route to {route.network}", f"needs an IPv{version} address")
                for route in needs
            ]
            groups.append(_group(f"ipv{version}", {"method": "disabled"}))
            continue
        search = list(interface.dns_search) if version == min(versions) else []
        if servers or search:
            items["dns"] = "".join(f"{server};" for server in servers)
            items["dns-search"] = "".join(f"{each};" for each in dict.fromkeys([*search, "~."]))
            items["dns-priority"] = -50
        items["method"] = "manual"
        items["route-table"] = table
        groups.append(_group(f"ipv{version}", items))
    if interface.dns_search and not versions:
        lost.append(Lost(place, "DNS", "needs an address in Address"))
    output = Output(f"{config.name}.nmconnection", "\n".join(groups))
    return Written((output,), tuple(lost))


_NAMESPACE: Final = uuid.UUID("9f1b3c52-6a0e-4f0b-9a55-0f6d6f4c7a11")
"""Of the names of connections: the same conf is always the same connection."""


def _peer_group(peer: PeerConfig) -> str:
    items: dict[str, object] = {"endpoint": peer.endpoint}
    if peer.preshared_key is not None:
        items["preshared-key"] = peer.preshared_key.to_base64()
        items["preshared-key-flags"] = "0"
    items["persistent-keepalive"] = peer.persistent_keepalive
    items["allowed-ips"] = "".join(f"{network};" for network in peer.networks)
    return _group(f"{_PEER}{peer.public_key.to_base64()}", items, peer.friendly_name)


def _group(title: str, items: dict[str, object], name: str = "") -> str:
    lines = (f"{key}={value}\n" for key, value in items.items() if value or value == "0")
    return f"[{title}]\n{name_comment(name)}" + "".join(lines)


NETWORKMANAGER: Final = Format(
    name="networkmanager",
    title="NetworkManager (a keyfile)",
    sign=re.compile(r"^[^\S\n]*\[(connection|wireguard-peer\.[^\]]*)\]", re.MULTILINE),
    keys={
        "PrivateKey": "private-key",
        "ListenPort": "listen-port",
        "FwMark": "fwmark",
        "Address": "address1, …",
        "MTU": "mtu",
        "Table": "peer-routes, route-table",
        "DNS": "dns, dns-search",
        "PublicKey": "[wireguard-peer.KEY]",
        "PresharedKey": "preshared-key",
        "AllowedIPs": "allowed-ips",
        "Endpoint": "endpoint",
        "PersistentKeepalive": "persistent-keepalive",
        "# friendly_name": "a comment",
    },
    read=_read,
    write=_write,
)
