"""OpenWrt: sections of /etc/config/network, as UCI writes them.

A line is `config TYPE ['NAME']`, `option KEY 'VALUE'` or `list KEY 'VALUE'`. Words are quoted as in
a shell: 'as it is', "with \\ before a character", or not at all; what touches is one word.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tunnel.config import TunnelConfig
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, refused
from tunnel.convert.format import Format, Output, Written, chosen
from tunnel.convert.routes import TunnelRoute, routes_of, table_number
from tunnel.linux.networks import read_network

__all__ = ["OPENWRT"]

_ON: Final = frozenset({"1", "on", "true", "yes", "enabled"})
_TOKEN: Final = re.compile(
    r"(?P<end>[\n;])|(?P<blank>[^\S\n]+|#[^\n]*)"
    r"|(?P<piece>'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.|[^\s'\"\\#;]+)",
    re.DOTALL,
)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)
_NAME: Final = re.compile(r"[A-Za-z0-9_]+")
_DEFAULT_PORT: Final = "51820"


@dataclass(slots=True)
class _Section:
    kind: str
    name: str
    place: FileLine
    options: dict[str, tuple[list[str], FileLine]] = field(default_factory=dict)

    def take(self, key: str) -> tuple[str, FileLine]:
        """The value of an option, "" without one; taken out, so that the others are left."""
        values, place = self.options.pop(key, ([], self.place))
        return " ".join(values), place

    def take_list(self, key: str) -> Iterator[tuple[str, FileLine]]:
        """The items of a list, which may be an option with blanks in it, too."""
        values, place = self.options.pop(key, ([], self.place))
        yield from ((word, place) for value in values for word in value.split())


def _commands(source: ForeignFile) -> Iterator[tuple[FileLine, list[str]]]:
    """The words of each command. A quoted word may have line breaks."""
    text, at, line = source.text, 0, 1
    place, words, is_open = FileLine(source.name, 1), list[list[str]](), False
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            fault = "a quotation mark has no other, or the file ends in a backslash"
            raise refused(FileLine(source.name, line), fault, "add what is missing")
        if found["piece"] is None:
            is_open = False
            if found["end"] is not None and words:
                yield place, ["".join(pieces) for pieces in words]
                words = []
        else:
            if not words:
                place = FileLine(source.name, line)
            piece = _plain(found["piece"])
            if is_open:
                words[-1].append(piece)
            else:
                words.append([piece])
            is_open = True
        line += found[0].count("\n")
        at = found.end()
    if words:
        yield place, ["".join(pieces) for pieces in words]


def _plain(piece: str) -> str:
    if piece.startswith("'"):
        return piece[1:-1]
    if piece.startswith('"'):
        piece = piece[1:-1]
    return _ESCAPE.sub(r"\1", piece)


def _sections(source: ForeignFile) -> list[_Section]:
    found: list[_Section] = []
    for place, words in _commands(source):
        match words:
            case ["package", _]:
                continue
            case ["config", kind]:
                found.append(_Section(kind, "", place))
            case ["config", kind, name]:
                found.append(_Section(kind, name, place))
            case ["option" | "list", _, _] if not found:
                fault = "an option stands before the first section"
                raise refused(place, fault, "put its `config` line above it")
            case ["option", key, value]:
                found[-1].options[key] = [value], place
            case ["list", key, value]:
                values, first = found[-1].options.get(key, ([], place))
                values.append(value)
                found[-1].options[key] = values, first
            case _:
                fault = "this line (not shown) is none of UCI"
                remedy = "write it as config, option or list; `uci export network` prints such"
                raise refused(place, fault, remedy)
    return found


class _Reader:
    def __init__(self, sources: Sequence[ForeignFile], wanted: str) -> None:
        found = [section for source in sources for section in _sections(source)]
        tunnels = {
            section.name: section
            for section in found
            if section.kind == "interface" and section.take("proto")[0] == "wireguard"
        }
        own = tunnels[chosen(tunnels, wanted, FileLine(sources[0].name))]
        self.draft = Draft(own.place)
        self.draft.name = own.name
        self._routes: list[TunnelRoute] = []
        self._interface(own)
        for section in found:
            if section.kind == f"wireguard_{own.name}":
                self._peer(section)
            elif section.kind in ("route", "route6"):
                self._route(section, own.name)
            elif section is not own and any(own.name in v for v, _ in section.options.values()):
                self.draft.lose_key(section.place, f"config {section.kind}")
        self.draft.routes = self._routes

    def _interface(self, section: _Section) -> None:
        interface = self.draft.interface
        for key, ours in (
            ("private_key", "PrivateKey"), ("listen_port", "ListenPort"), ("mtu", "MTU"),
            ("fwmark", "FwMark"),
        ):  # fmt: skip
            value, place = section.take(key)
            if key == "private_key" and value == "generate":
                self.draft.keyless = "the private key is yet to be generated"
            elif value:
                interface.set(ours, value, place)
        for address, place in section.take_list("addresses"):
            interface.add("Address", address, place)
        for key in ("dns", "dns_search"):
            for word, place in section.take_list(key):
                self.draft.add_dns(word, place)
        self._tables = {4: self._table(section, "ip4table"), 6: self._table(section, "ip6table")}
        # What rules do here in place of host routes.
        section.take("nohostroute")
        self._others(section, "interface")

    def _table(self, section: _Section, key: str) -> int | None:
        value, place = section.take(key)
        number = table_number(value)
        if value and number is None:
            self.draft.lose(place, f"{key} {value}", "write the number of the table as Table")
        return number

    def _peer(self, section: _Section) -> None:
        disabled, place = section.take("disabled")
        if disabled.lower() in _ON:
            self.draft.lose(place, "a peer that is disabled", "it is left out")
            return
        peer = self.draft.peer(section.place)
        for key, ours in (
            ("public_key", "PublicKey"), ("preshared_key", "PresharedKey"),
            ("persistent_keepalive", "PersistentKeepalive"),
        ):  # fmt: skip
            value, place = section.take(key)
            if value:
                peer.set(ours, value, place)
        for network, place in section.take_list("allowed_ips"):
            peer.add("AllowedIPs", network, place)
        host, place = section.take("endpoint_host")
        port, _ = section.take("endpoint_port")
        if host:
            bare = host.strip("[]")
            at = f"[{bare}]" if ":" in bare else bare
            peer.set("Endpoint", f"{at}:{port or _DEFAULT_PORT}", place)
        peer.friendly_name = section.take("description")[0]
        if section.take("route_allowed_ips")[0].lower() in _ON:
            self._routes += [
                TunnelRoute(network, self._tables[network.version], str(place))
                for network, place in peer.networks()
            ]
        private, place = section.take("private_key")
        if private:
            self.draft.lose(place, "private_key of a peer", "it belongs to the peer alone")
        self._others(section, "peer")

    def _route(self, section: _Section, name: str) -> None:
        if section.take("interface")[0] != name:
            return
        target, place = section.take("target")
        mask, _ = section.take("netmask")
        table = self._table(section, "table")
        section.take("gateway")
        try:
            network = read_network(f"{target}/{mask}" if mask else target, strict=False)
        except ValueError:
            remedy = "write it as 10.0.0.0/24"
            raise refused(place, "target is not a network", remedy) from None
        self._routes.append(TunnelRoute(network, table, str(section.place)))
        self._others(section, section.kind)

    def _others(self, section: _Section, what: str) -> None:
        for key, (_, place) in section.options.items():
            self.draft.lose_key(place, f"{what}: {key}")


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    return _Reader(sources, wanted).draft


def _write(config: TunnelConfig) -> Written:
    interface = config.interface
    place = str(config.path or config.name)
    lost: list[Lost] = []
    name = config.name
    if _NAME.fullmatch(name) is None:
        name = re.sub(r"\W", "_", name, flags=re.ASCII)
        lost.append(Lost(place, f"the name {config.name}", f"only letters, digits and _: {name}"))
    routes = routes_of(config)
    routed = {route.network for route in routes}
    table = next((route.table for route in routes), None)
    lines = [
        f"# Add it to /etc/config/network, then: ifup {name}",
        _config("interface", name),
        _option("proto", "wireguard"),
        _option("private_key", interface.private_key and interface.private_key.to_base64()),
        _option("listen_port", interface.listen_port),
        _option("mtu", interface.mtu),
        _option("fwmark", interface.fwmark and hex(interface.fwmark)),
        *(_list("addresses", address) for address in interface.addresses),
        *(_list("dns", server) for server in interface.dns),
        *(_list("dns_search", domain) for domain in interface.dns_search),
        *(_option(key, table) for key in ("ip4table", "ip6table")),
    ]
    for peer in config.peers:
        needed = [network for network in peer.networks if network in routed]
        lines += [
            "",
            _config(f"wireguard_{name}"),
            _option("description", peer.friendly_name),
            _option("public_key", peer.public_key.to_base64()),
            _option("preshared_key", peer.preshared_key and peer.preshared_key.to_base64()),
            *(_list("allowed_ips", network) for network in peer.networks),
            _option("route_allowed_ips", 1 if needed else None),
            _option("endpoint_host", peer.endpoint and peer.endpoint.host),
            _option("endpoint_port", peer.endpoint and peer.endpoint.port),
            _option("persistent_keepalive", peer.persistent_keepalive),
        ]
    text = "".join(f"{line}\n" for line in lines if line is not None)
    return Written((Output(f"{config.name}.uci", text),), tuple(lost))


def _config(kind: str, name: str = "") -> str:
    return f"config {kind} {_quoted(name)}" if name else f"config {kind}"


def _option(key: str, value: object) -> str | None:
    return f"\toption {key} {_quoted(str(value))}" if value else None


def _list(key: str, value: object) -> str:
    return f"\tlist {key} {_quoted(str(value))}"


def _quoted(text: str) -> str:
    inner = text.replace("'", "'\\''")
    return f"'{inner}'"


OPENWRT: Final = Format(
    name="openwrt",
    title="OpenWrt (/etc/config/network)",
    sign=re.compile(r"^[^\S\n]*config\s+'?(interface|wireguard_\w+)\b", re.MULTILINE),
    keys={
        "PrivateKey": "private_key",
        "ListenPort": "listen_port",
        "FwMark": "fwmark",
        "Address": "addresses",
        "MTU": "mtu",
        "Table": "route_allowed_ips, ip4table, ip6table",
        "DNS": "dns, dns_search",
        "PublicKey": "public_key",
        "PresharedKey": "preshared_key",
        "AllowedIPs": "allowed_ips",
        "Endpoint": "endpoint_host, endpoint_port",
        "PersistentKeepalive": "persistent_keepalive",
        "# friendly_name": "description",
    },
    read=_read,
    write=_write,
)
