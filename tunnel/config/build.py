"""Sorted entries to dataclasses: each value parsed, each mistake given its place."""

import shlex
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from typing import TypeVar

from tunnel.config import files, values
from tunnel.config.keys import SPELLING
from tunnel.config.model import (
    AllowedIP,
    EndpointConfig,
    InterfaceConfig,
    PeerConfig,
    Table,
    TunnelOptions,
)
from tunnel.config.problems import Mistake, Problems, quote, quote_name
from tunnel.config.sections import Group, Sections, Value

__all__ = ["Builder"]

_T = TypeVar("_T")
_Default = TypeVar("_Default")


class Builder:
    """Turns one conf's sections into dataclasses. Key files are looked for in `folder`."""

    def __init__(self, sections: Sections, folder: Path, problems: Problems) -> None:
        self._sections = sections
        self._folder = folder
        self._problems = problems

    def options(self) -> TunnelOptions:
        """Build what [Tunnel] says."""
        group = self._sections.tunnel
        return TunnelOptions(
            datapath=self._scalar(group, "datapath", values.datapath, "auto"),
            tun_offload=self._scalar(group, "tunoffload", values.switch, True),
            tun_tso=self._scalar(group, "tuntso", values.switch, True),
            tun_uso=self._scalar(group, "tunuso", values.switch, True),
            udp_offload=self._scalar(group, "udpoffload", values.switch, True),
            udp_gso=self._scalar(group, "udpgso", values.switch, True),
            udp_gro=self._scalar(group, "udpgro", values.switch, True),
            metrics=self._scalar(group, "metrics", values.metrics, "unix"),
        )

    def interface(self) -> InterfaceConfig | None:
        """Build what [Interface] says, or None (reported) without a usable private key."""
        group = self._sections.interface
        private_key, private_key_file = self._key(group, "privatekey", values.private_key)
        if not group.get("privatekey") and not group.get("privatekeyfile"):
            self._problems.error(
                group.line,
                "PrivateKey",
                "nothing",
                "a PrivateKey or a PrivateKeyFile under [Interface]",
                "make a key by `tunnel genkey` and add it",
            )
        dns, dns_search = self._dns(group)
        listen_port = self._scalar(group, "listenport", values.listen_port, 0)
        fwmark = self._scalar(group, "fwmark", values.fwmark, 0)
        addresses = self._addresses(group)
        mtu = self._scalar(group, "mtu", values.mtu, None)
        automatic: Table = "auto"
        table: Table = self._scalar(group, "table", values.table, automatic)
        pre_up, post_up, pre_down, post_down = (
            tuple(self._commands(group, key)) for key in ("preup", "postup", "predown", "postdown")
        )
        save_config = self._scalar(group, "saveconfig", values.boolean, False)
        options = self.options()
        if private_key is None:
            return None
        return InterfaceConfig(
            private_key=private_key,
            private_key_file=private_key_file,
            listen_port=listen_port,
            fwmark=fwmark,
            addresses=addresses,
            mtu=mtu,
            table=table,
            dns=dns,
            dns_search=dns_search,
            pre_up=pre_up,
            post_up=post_up,
            pre_down=pre_down,
            post_down=post_down,
            save_config=save_config,
            options=options,
        )

    def peer(self, group: Group) -> PeerConfig | None:
        """Build what one [Peer] says, or None (reported) without a usable public key."""
        if not group.get("publickey"):
            self._problems.error(
                group.line,
                "PublicKey",
                "nothing",
                "a PublicKey under this [Peer]",
                "add the key that `tunnel pubkey` printed on the peer",
            )
        public_key = self._scalar(group, "publickey", values.public_key, None)
        preshared_key, preshared_key_file = self._key(group, "presharedkey", values.preshared_key)
        allowed_ips = self._allowed_ips(group)
        endpoint = self._endpoint(group)
        keepalive = self._scalar(group, "persistentkeepalive", values.keepalive, 0)
        if public_key is None:
            return None
        return PeerConfig(
            public_key=public_key,
            preshared_key=preshared_key,
            preshared_key_file=preshared_key_file,
            allowed_ips=allowed_ips,
            endpoint=endpoint,
            persistent_keepalive=keepalive,
            friendly_name=group.friendly_name,
        )

    def _report(self, line: int, key: str, text: str, mistake: Mistake) -> None:
        found = quote(text) if mistake.found is None else mistake.found
        self._problems.error(line, SPELLING[key], found, mistake.expected, mistake.remedy)

    def _last(self, group: Group, key: str) -> Value | None:
        """Return the value that counts if a key can only have one: the last, as for `wg`."""
        entries = group.get(key)
        if len(entries) > 1:
            self._problems.warning(
                entries[-1].line,
                SPELLING[key],
                f"a second value, the first is on line {entries[0].line}",
                "one",
                "the last one counts; remove the others",
            )
        return entries[-1] if entries else None

    def _scalar(
        self, group: Group, key: str, parse: Callable[[str], _T], default: _Default
    ) -> _T | _Default:
        entry = self._last(group, key)
        if entry is None:
            return default
        if not entry.text and key in ("mtu", "table"):
            # wg-quick cannot tell an empty value from an absent line.
            self._problems.warning(
                entry.line, SPELLING[key], "nothing", "a value", "remove the line, or fill it in"
            )
            return default
        try:
            return parse(entry.text)
        except Mistake as mistake:
            self._report(entry.line, key, entry.text, mistake)
            return default

    def _key(
        self, group: Group, key: str, parse: Callable[[str], _T]
    ) -> tuple[_T | None, str | None]:
        """Read a secret that stands in the conf or in a file: the key, and the file's name."""
        file_key = key + "file"
        inline, filed = self._last(group, key), self._last(group, file_key)
        if inline is not None and filed is not None:
            self._problems.error(
                max(inline.line, filed.line),
                SPELLING[file_key],
                f"{SPELLING[key]} as well, on line {inline.line}",
                "one of the two",
                f"remove {SPELLING[key]} to have the key in the file",
            )
            return None, None
        if filed is not None:
            try:
                name = values.file_name(filed.text)
                return parse(self._key_text(name, filed.line, file_key)), name
            except Mistake as mistake:
                found = quote(filed.text)
                if mistake.found is not None:
                    found = f"{found}, {mistake.found}"
                self._problems.error(
                    filed.line, SPELLING[file_key], found, mistake.expected, mistake.remedy
                )
                return None, None
        return self._scalar(group, key, parse, None), None

    def _key_text(self, name: str, line: int, key: str) -> str:
        path = self._folder / name
        content = files.read(path, limit=files.KEY_LIMIT, what="a file with a key")
        if files.others_may(path, content.status):
            self._problems.warning(
                line,
                SPELLING[key],
                f"{quote(name)} which every user may open",
                "a file for its owner only",
                f"chmod 600 {quote_name(shlex.quote(str(path)))}",
            )
        # Whatever is no base64 is refused by the key's parser, so any decoding will do.
        return content.data.decode("latin-1").strip()

    def _addresses(self, group: Group) -> tuple[IPv4Interface | IPv6Interface, ...]:
        seen: dict[IPv4Interface | IPv6Interface, int] = {}
        for line, text in self._words(group, "address"):
            try:
                address = values.address(text)
            except Mistake as mistake:
                self._report(line, "address", text, mistake)
                continue
            if address in seen:
                self._problems.error(
                    line,
                    "Address",
                    f"{quote(text)} a second time, the first is on line {seen[address]}",
                    "every address once",
                    "remove one of the two",
                )
            seen.setdefault(address, line)
        return tuple(seen)

    def _dns(self, group: Group) -> tuple[tuple[IPv4Address | IPv6Address, ...], tuple[str, ...]]:
        servers: dict[IPv4Address | IPv6Address, None] = {}
        domains: dict[str, None] = {}
        for line, text in self._words(group, "dns"):
            try:
                server = values.dns_address(text)
                if server is None:
                    domains[values.search_domain(text)] = None
                else:
                    servers[server] = None
            except Mistake as mistake:
                self._report(line, "dns", text, mistake)
        return tuple(servers), tuple(domains)

    def _words(self, group: Group, key: str) -> Iterator[Value]:
        """Yield the items of a list of wg-quick's: commas and white space part them."""
        for line, text in group.get(key):
            words = text.replace(",", " ").split()
            if not words:
                self._problems.warning(
                    line, SPELLING[key], "nothing", "a value", "remove the line, or fill it in"
                )
            for word in words:
                yield Value(line, word)

    def _commands(self, group: Group, key: str) -> Iterator[str]:
        for line, text in group.get(key):
            if not text:
                self._problems.warning(
                    line, SPELLING[key], "nothing", "a command", "remove the line, or fill it in"
                )
                continue
            try:
                yield values.hook(text)
            except Mistake as mistake:
                self._report(line, key, text, mistake)

    def _allowed_ips(self, group: Group) -> tuple[AllowedIP, ...]:
        found: list[AllowedIP] = []
        for line, text in group.get("allowedips"):
            if not text:
                continue  # `wg` reads it as: nothing is allowed yet
            for item in "".join(text.split()).split(","):
                try:
                    allowed, had_host_bits = values.allowed_ip(item)
                except Mistake as mistake:
                    self._report(line, "allowedips", item, mistake)
                    continue
                if had_host_bits:
                    self._problems.warning(
                        line,
                        "AllowedIPs",
                        quote(item),
                        "a network without host bits",
                        f"it is taken as {allowed.network}",
                    )
                found.append(allowed)
        return tuple(found)

    def _endpoint(self, group: Group) -> EndpointConfig | None:
        entry = self._last(group, "endpoint")
        if entry is None:
            return None
        try:
            endpoint, bare = values.endpoint(entry.text)
        except Mistake as mistake:
            self._report(entry.line, "endpoint", entry.text, mistake)
            return None
        if bare:
            self._problems.warning(
                entry.line,
                "Endpoint",
                quote(entry.text),
                "an IPv6 address in brackets",
                f"it is taken as {endpoint}",
            )
        return endpoint
