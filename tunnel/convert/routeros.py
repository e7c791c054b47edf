"""MikroTik RouterOS 7: commands as `/export show-sensitive` prints them, or as they are typed.

A menu is `/interface/wireguard` or `/interface wireguard`; on a line of its own it holds for those
that follow. A backslash ends a line that goes on. Values are bare words, or in quotation marks with
\\", \\\\, \\$, \\n, \\r, \\t, \\_ for a blank, and \\XX in hexadecimal.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tunnel.config import PeerConfig, TunnelConfig
from tunnel.convert.draft import Draft, FileLine, ForeignFile, refused
from tunnel.convert.format import Format, Output, Written, chosen, default_route
from tunnel.convert.routes import TunnelRoute, routes_of, table_number
from tunnel.linux.networks import read_network

__all__ = ["ROUTEROS"]

_VERBS: Final = frozenset({"add", "set"})
_TOKEN: Final = re.compile(
    r"\s+|(?P<key>[A-Za-z0-9_.-]+)=(?:\"(?P<quoted>(?:[^\"\\]|\\.)*)\"|(?P<bare>[^\s\"\[\]{};]*))"
    r"|(?P<word>[^\s=\"\[\]{};]+)|(?P<other>.)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)
_ESCAPED: Final = {"n": "\n", "r": "\r", "t": "\t", "_": " "}
_SECONDS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_TIME: Final = re.compile(r"(?:[0-9]{1,6}[wdhms]){1,5}")
_CLOCK: Final = re.compile(r"([0-9]{1,4}):([0-9]{2}):([0-9]{2})")

_INTERFACES: Final = ("interface", "wireguard")
_PEERS: Final = ("interface", "wireguard", "peers")
_ADDRESSES: Final = (("ip", "address"), ("ipv6", "address"))
_ROUTES: Final = (("ip", "route"), ("ipv6", "route"))
_CLIENT: Final = "client-"
_ROUTE_DEFAULTS: Final = {
    "distance": "1", "pref-src": "", "scope": "30", "target-scope": "10",
    "suppress-hw-offload": "no", "check-gateway": "none",
}  # fmt: skip


@dataclass(slots=True)
class _Command:
    """An `add` or `set` in a menu, with its values."""

    menu: tuple[str, ...]
    verb: str
    values: dict[str, str]
    place: FileLine

    @property
    def is_disabled(self) -> bool:
        """Whether it makes something that is off."""
        return self.values.pop("disabled", "no") in ("yes", "true")


def _lines(source: ForeignFile) -> Iterator[tuple[FileLine, str]]:
    """The lines, with those that go on in the next put together."""
    pieces: list[str] = []
    first = FileLine(source.name, 1)
    for place, raw in source.lines():
        line = raw.rstrip("\r")
        if not pieces:
            first = place
        elif pieces:
            line = line.lstrip()
        is_open = line.endswith("\\") and not line.lstrip().startswith("#")
        pieces.append(line[:-1] if is_open else line)
        if not is_open:
            yield first, "".join(pieces)
            pieces = []
    if pieces:
        yield first, "".join(pieces)


def _commands(source: ForeignFile) -> Iterator[_Command]:
    menu: tuple[str, ...] = ()
    for place, line in _lines(source):
        if not line.strip() or line.lstrip().startswith(("#", ":")):
            continue
        words: list[str] = []
        values: dict[str, str] = {}
        for found in _TOKEN.finditer(line):
            key = found["key"]
            if key is not None:
                text = found["bare"] if found["quoted"] is None else _plain(found["quoted"])
                values[key] = text
            elif found["word"] is not None and not values:
                words.append(found["word"])
            elif found["other"] == '"':
                fault = "a quotation mark has no other"
                raise refused(place, fault, "add what is missing")
        is_absolute = bool(words) and words[0].startswith("/")
        path = [part for word in words for part in word.split("/") if part]
        verb = next((number for number, part in enumerate(path) if part in _VERBS), len(path))
        here = tuple(path[:verb]) if is_absolute else (*menu, *path[:verb])
        if verb == len(path):
            menu = here if is_absolute else menu
            continue
        yield _Command(here, path[verb], values, place)


def _plain(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code, 16)) if len(code) == 2 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(character, text)


class _Reader:
    def __init__(self, sources: Sequence[ForeignFile], wanted: str) -> None:
        found = [command for source in sources for command in _commands(source)]
        tunnels = {
            command.values.get("name", "wireguard1"): command
            for command in found
            if command.menu == _INTERFACES and command.verb == "add"
        }
        own = tunnels[chosen(tunnels, wanted, FileLine(sources[0].name))]
        self.draft = Draft(own.place)
        self.draft.name = own.values.pop("name", "wireguard1")
        self.draft.keyless = "it has no private key: `/export show-sensitive` prints it"
        self._name = self.draft.name
        self._routes: list[TunnelRoute] = []
        self._interface(own)
        for command in found:
            self._take(command, own)
        self.draft.routes = self._routes

    def _take(self, command: _Command, own: _Command) -> None:
        values, place = command.values, command.place
        if command is own:
            return
        is_of_it = command.verb == "add" and values.get("interface") == self._name
        if is_of_it and command.menu in (_PEERS, *_ADDRESSES):
            del values["interface"]
            if command.menu == _PEERS:
                self._peer(command)
            else:
                self._address(command)
            return
        gateway = values.get("gateway", "").rpartition("%")[2]
        if command.verb == "add" and command.menu in _ROUTES and gateway == self._name:
            self._route(command)
            return
        if self._name in values.values():
            self.draft.lose_key(place, f"/{'/'.join(command.menu)}")

    def _interface(self, command: _Command) -> None:
        values, place = command.values, command.place
        if command.is_disabled:
            self.draft.lose(place, "disabled=yes", "a tunnel is down until `tunnel up`")
        for key, ours in (
            ("private-key", "PrivateKey"), ("listen-port", "ListenPort"), ("mtu", "MTU"),
        ):  # fmt: skip
            value = values.pop(key, "")
            if value:
                self.draft.interface.set(ours, value, place)
        self._others(command)

    def _address(self, command: _Command) -> None:
        values, place = command.values, command.place
        address = values.pop("address", "")
        if command.is_disabled:
            self.draft.lose(place, f"the address {address}", "it is disabled there")
            return
        self.draft.interface.add("Address", address, place)
        for key in ("network", "advertise", "no-dad", "comment"):
            values.pop(key, None)
        self._others(command)

    def _peer(self, command: _Command) -> None:
        values, place = command.values, command.place
        if command.is_disabled:
            self.draft.lose(place, "a peer that is disabled", "it is left out")
            return
        peer = self.draft.peer(place)
        for key, ours in (("public-key", "PublicKey"), ("preshared-key", "PresharedKey")):
            value = values.pop(key, "")
            if value:
                peer.set(ours, value, place)
        for network in values.pop("allowed-address", "").split(","):
            if network.strip():
                peer.add("AllowedIPs", network.strip(), place)
        host, port = values.pop("endpoint-address", ""), values.pop("endpoint-port", "0")
        if host and port != "0":
            peer.set("Endpoint", f"[{host}]:{port}" if ":" in host else f"{host}:{port}", place)
        elif host:
            self.draft.lose(place, f"endpoint-address={host}", "there is no endpoint-port")
        keepalive = values.pop("persistent-keepalive", "")
        if keepalive:
            peer.set("PersistentKeepalive", _seconds(keepalive), place)
        name = values.pop("name", "")
        peer.friendly_name = values.pop("comment", "") or name
        for key in [key for key in values if key.startswith(_CLIENT)]:
            del values[key]  # what the router writes into the conf of the other side
        if values.pop("private-key", ""):
            self.draft.lose(place, "private-key of a peer", "it belongs to the peer alone")
        self._others(command)

    def _route(self, command: _Command) -> None:
        values, place = command.values, command.place
        text = values.pop("dst-address", "::/0" if command.menu[0] == "ipv6" else "0.0.0.0/0")
        values.pop("gateway")
        table = values.pop("routing-table", "main")
        if command.is_disabled:
            self.draft.lose(place, f"the route to {text}", "it is disabled there")
            return
        try:
            network = read_network(text, strict=False)
        except ValueError:
            remedy = "write it as 10.0.0.0/24"
            raise refused(place, "dst-address is not a network", remedy) from None
        number = table_number(table)
        if not number:
            why = "write the number of its table as Table"
            self.draft.lose(place, f"the route to {text} in {table}", why)
        else:
            self._routes.append(TunnelRoute(network, number, str(place)))
        for key, default in _ROUTE_DEFAULTS.items():
            if values.get(key) == default:
                del values[key]
        self._others(command)

    def _others(self, command: _Command) -> None:
        for key in command.values:
            if key != "comment":
                self.draft.lose_key(command.place, f"/{'/'.join(command.menu)}: {key}")


def _seconds(text: str) -> str:
    """A time as RouterOS writes it, in seconds; as it is if it is none."""
    clock = _CLOCK.fullmatch(text)
    if clock is not None:
        return str(int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3]))
    if _TIME.fullmatch(text):
        parts = re.findall(r"([0-9]+)([wdhms])", text)
        return str(sum(int(number) * _SECONDS[unit] for number, unit in parts))
    return text


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    return _Reader(sources, wanted).draft


def _write(config: TunnelConfig) -> Written:
    interface = config.interface
    routes = routes_of(config)
    lines = [
        f"# In a terminal of RouterOS 7, or: /import file-name={config.name}.rsc",
        _line("interface/wireguard", {
            "name": config.name,
            "private-key": interface.private_key and interface.private_key.to_base64(),
            "listen-port": interface.listen_port,
            "mtu": interface.mtu,
        }),
        *(_peer_line(config.name, peer) for peer in config.peers),
    ]  # fmt: skip
    for address in interface.addresses:
        menu = "ip" if address.version == 4 else "ipv6"
        advertise = None if address.version == 4 else "no"
        own = {"address": address, "interface": config.name, "advertise": advertise}
        lines.append(_line(f"{menu}/address", own))
    for table in dict.fromkeys(route.table for route in routes if route.table is not None):
        lines.append(f"/routing/table/add fib name={table}")
    lost = []
    for route in routes:
        menu = "ip" if route.network.version == 4 else "ipv6"
        to = {"dst-address": route.network, "gateway": config.name, "routing-table": route.table}
        line = _line(f"{menu}/route", to)
        if route.network.prefixlen or route.table is not None:
            lines.append(line)
        else:
            lost.append(default_route(config, route.network, line))
    return Written((Output(f"{config.name}.rsc", "\n".join([*lines, ""])),), tuple(lost))


def _peer_line(name: str, peer: PeerConfig) -> str:
    return _line("interface/wireguard/peers", {
        "interface": name,
        "comment": peer.friendly_name,
        "public-key": peer.public_key.to_base64(),
        "preshared-key": peer.preshared_key and peer.preshared_key.to_base64(),
        "endpoint-address": peer.endpoint and peer.endpoint.host,
        "endpoint-port": peer.endpoint and peer.endpoint.port,
        "allowed-address": ",".join(map(str, peer.networks)),
        "persistent-keepalive": peer.persistent_keepalive and f"{peer.persistent_keepalive}s",
    })  # fmt: skip


def _line(menu: str, values: Mapping[str, object]) -> str:
    words = (f"{key}={_value(str(value))}" for key, value in values.items() if value)
    return f"/{menu}/add {' '.join(words)}"


def _value(text: str) -> str:
    """As a word, or in quotation marks; without what would be more than a value."""
    if _BARE.fullmatch(text):
        return text
    inner = "".join(
        character if character.isalnum() or character in _PLAIN else _escaped(character)
        for character in text
    )
    return f'"{inner}"'


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\{code:02X}" if code < 0x80 else character


_BARE: Final = re.compile(r"[A-Za-z0-9./:_,%-]+")
_PLAIN: Final = frozenset(" +/=.,:;_-()@<>'")

ROUTEROS: Final = Format(
    name="routeros",
    title="MikroTik RouterOS 7 (commands)",
    sign=re.compile(r"^[^\S\n]*/interface[ /]wireguard\b", re.MULTILINE),
    beside=re.compile(r"^[^\S\n]*/[a-z]", re.MULTILINE),
    keys={
        "PrivateKey": "private-key",
        "ListenPort": "listen-port",
        "Address": "/ip/address, /ipv6/address",
        "MTU": "mtu",
        "Table": "/ip/route, /ipv6/route",
        "PublicKey": "public-key",
        "PresharedKey": "preshared-key",
        "AllowedIPs": "allowed-address",
        "Endpoint": "endpoint-address, endpoint-port",
        "PersistentKeepalive": "persistent-keepalive",
        "# friendly_name": "comment",
    },
    read=_read,
    write=_write,
    hints={"DNS": "name servers are the router's: /ip/dns/set servers="},
)
