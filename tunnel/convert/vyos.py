"""VyOS: `set` commands, as `show configuration commands` prints them.

Words are quoted as in a shell. A tunnel is `interfaces wireguard wgN`, its routes are
`protocols static route NETWORK interface wgN`, and route6; those of older releases are read, too.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Final

from tunnel.config import PeerConfig, TunnelConfig
from tunnel.config.problems import escape
from tunnel.config.values import plain_address
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, Section, refused
from tunnel.convert.format import Format, Output, Written, chosen, default_route
from tunnel.convert.routes import TunnelRoute, routes_of, table_number
from tunnel.linux.networks import read_network

__all__ = ["VYOS"]

Command = tuple[FileLine, list[str]]

_NAME: Final = re.compile(r"wg[0-9]+")
_ALIAS: Final = re.compile(r"[^\s'\"\\]{1,100}")
_INTERFACE: Final = {
    "private-key": "PrivateKey",
    "port": "ListenPort",
    "fwmark": "FwMark",
    "mtu": "MTU",
}
_PEER: Final = {
    "public-key": "PublicKey",
    "pubkey": "PublicKey",
    "preshared-key": "PresharedKey",
    "persistent-keepalive": "PersistentKeepalive",
    "endpoint": "Endpoint",
}


def _commands(source: ForeignFile) -> Iterator[Command]:
    """The words of each `set`, without it."""
    for place, line in source.lines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            words = shlex.split(line)
        except ValueError:
            fault = "a quotation mark has no other, or the line ends in a backslash"
            raise refused(place, fault, "add what is missing") from None
        if words[:1] == ["set"]:
            yield place, words[1:]


class _Reader:
    def __init__(self, sources: Sequence[ForeignFile], wanted: str) -> None:
        found = [command for source in sources for command in _commands(source)]
        tunnels: dict[str, FileLine] = {}
        for place, words in found:
            if words[:2] == ["interfaces", "wireguard"] and len(words) > 2:
                tunnels.setdefault(words[2], place)
        name = chosen(tunnels, wanted, FileLine(sources[0].name))
        self.draft = Draft(tunnels[name])
        self.draft.name = name
        self._peers: dict[str, Section] = {}
        self._ports: dict[str, dict[str, tuple[str, FileLine]]] = {}
        self._disabled: set[str] = set()
        self._routes: list[TunnelRoute] = []
        for place, words in found:
            match words:
                case ["interfaces", "wireguard", this, *rest] if this == name:
                    self._interface(place, rest)
                case ["protocols", "static", *rest] if name in rest:
                    self._static(place, rest)
                case _ if name in words:
                    self.draft.lose_key(place, " ".join(words[:4]))
        self._finish()

    def _interface(self, place: FileLine, words: list[str]) -> None:
        interface = self.draft.interface
        match words:
            case ["peer", alias, *rest]:
                if alias not in self._peers:
                    self._peers[alias] = self.draft.peer(place)
                    self._peers[alias].friendly_name = alias
                self._peer(alias, place, rest)
            case ["address", value]:
                interface.add("Address", value, place)
            case [key, value] if key in _INTERFACE:
                if (key, value) != ("fwmark", "0"):
                    interface.set(_INTERFACE[key], value, place)
            case ["description", _] | []:
                pass
            case ["disable"]:
                self.draft.lose(place, "disable", "a tunnel is down until `tunnel up`")
            case _:
                self.draft.lose_key(place, " ".join(words[:2]))

    def _peer(self, alias: str, place: FileLine, words: list[str]) -> None:
        peer = self._peers[alias]
        match words:
            case ["allowed-ips", value]:
                peer.add("AllowedIPs", value, place)
            case ["address" | "host-name", value]:
                self._ports.setdefault(alias, {})["host"] = value, place
            case ["port", value]:
                self._ports.setdefault(alias, {})["port"] = value, place
            case ["description", value]:
                peer.friendly_name = value
            case ["disable"]:
                self._disabled.add(alias)
                self.draft.lose(place, f"the peer {alias}, which is disabled", "it is left out")
            case [key, value] if key in _PEER:
                peer.set(_PEER[key], value, place)
            case []:
                pass
            case _:
                self.draft.lose_key(place, f"peer {' '.join(words[:1])}")

    def _static(self, place: FileLine, words: list[str]) -> None:
        table = None
        if words[0] == "table" and len(words) > 2:
            table = table_number(words[1])
            words = words[2:] if table is not None else words
        match words:
            case ["route" | "route6", text, "interface", _] | [
                "interface-route" | "interface-route6",
                text,
                "next-hop-interface",
                _,
            ]:
                try:
                    network = read_network(text, strict=False)
                except ValueError:
                    remedy = "write it as 10.0.0.0/24"
                    raise refused(place, "this is not a route to a network", remedy) from None
                self._routes.append(TunnelRoute(network, table, str(place)))
            case _:
                self.draft.lose_key(place, f"protocols static {' '.join(words[:5])}")

    def _finish(self) -> None:
        for alias, found in self._ports.items():
            host, place = found.get("host", ("", self.draft.interface.place))
            port, port_place = found.get("port", ("", place))
            if host and port:
                at = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._peers[alias].set("Endpoint", at, place)
            else:
                why = "an endpoint needs an address and a port"
                self.draft.lose(port_place, f"peer {alias}: {host or f'port {port}'}", why)
        gone = [self._peers[alias] for alias in self._disabled]
        self.draft.peers = [peer for peer in self.draft.peers if peer not in gone]
        self.draft.routes = self._routes


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    return _Reader(sources, wanted).draft


def _write(config: TunnelConfig) -> Written:
    interface = config.interface
    lost: list[Lost] = []
    name = config.name
    if _NAME.fullmatch(name) is None:
        name = "wg0"
        place = str(config.path or config.name)
        lost.append(Lost(place, f"the name {config.name}", "there it is wg and a number: wg0"))
    own = f"interfaces wireguard {name}"
    secret = interface.private_key and interface.private_key.to_base64()
    lines = [
        *(_set(own, "address", address) for address in interface.addresses),
        _set(own, "private-key", secret),
        _set(own, "port", interface.listen_port),
        _set(own, "mtu", interface.mtu),
        _set(own, "fwmark", interface.fwmark),
    ]
    for alias, peer in _aliases(config.peers):
        of = f"{own} peer {alias}"
        is_name = peer.endpoint is not None and plain_address(peer.endpoint.host) is None
        lines += [
            _set(of, "public-key", peer.public_key.to_base64()),
            _set(of, "preshared-key", peer.preshared_key and peer.preshared_key.to_base64()),
            *(_set(of, "allowed-ips", network) for network in peer.networks),
            _set(of, "host-name" if is_name else "address", peer.endpoint and peer.endpoint.host),
            _set(of, "port", peer.endpoint and peer.endpoint.port),
            _set(of, "persistent-keepalive", peer.persistent_keepalive),
            _set(of, "description", peer.friendly_name if peer.friendly_name != alias else None),
        ]
    for route in routes_of(config):
        static = "protocols static" + ("" if route.table is None else f" table {route.table}")
        kind = "route" if route.network.version == 4 else "route6"
        command = f"set {static} {kind} {route.network} interface {name}"
        if route.network.prefixlen or route.table is not None:
            lines.append(command)
        else:
            lost.append(default_route(config, route.network, command))
    text = "".join(f"{line}\n" for line in lines if line is not None)
    head = "# In configuration mode, before: commit; save\n"
    return Written((Output(f"{config.name}.vyos", head + text),), tuple(lost))


def _aliases(peers: Sequence[PeerConfig]) -> Iterator[tuple[str, PeerConfig]]:
    """Each peer with the word it has there: its name, if it is one and no other has it."""
    taken: set[str] = set()
    for number, peer in enumerate(peers, 1):
        name = peer.friendly_name
        alias = name if _ALIAS.fullmatch(name) and name not in taken else f"peer{number}"
        while alias in taken:
            alias += "x"
        taken.add(alias)
        yield shlex.quote(alias), peer


def _set(node: str, key: str, value: object) -> str | None:
    return f"set {node} {key} {_quoted(str(value))}" if value else None


def _quoted(text: str) -> str:
    """In single quotes, as VyOS prints it. It takes none within."""
    return "'" + escape(text).replace("'", "’") + "'"


VYOS: Final = Format(
    name="vyos",
    title="VyOS (set commands)",
    sign=re.compile(r"^[^\S\n]*set\s+interfaces\s+wireguard\s", re.MULTILINE),
    beside=re.compile(r"^[^\S\n]*set\s", re.MULTILINE),
    keys={
        "PrivateKey": "private-key",
        "ListenPort": "port",
        "FwMark": "fwmark",
        "Address": "address",
        "MTU": "mtu",
        "Table": "protocols static route, route6",
        "PublicKey": "public-key",
        "PresharedKey": "preshared-key",
        "AllowedIPs": "allowed-ips",
        "Endpoint": "address or host-name, port",
        "PersistentKeepalive": "persistent-keepalive",
        "# friendly_name": "the peer's name, description",
    },
    read=_read,
    write=_write,
    hints={"DNS": "name servers are the router's: set system name-server"},
)
