"""The peers in a conf's text: listed, added, removed, renamed, disabled. All else stays as it is.

A disabled peer is a section whose lines are comments, by a mark in front of each: wg-quick and
exporters skip it as we do. Its addresses and its name stay taken.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from crypto.keys import PresharedKey, PrivateKey
from tunnel.config.checks import find_peer
from tunnel.config.edit import DISABLED, EditableSection, Editor
from tunnel.config.expiry import expiry_text
from tunnel.config.lexer import Kind, Token, tokenize
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelConfig
from tunnel.config.parser import parse, read_text
from tunnel.config.problems import ConfigErrors, Mistake, Problem, Problems, quote
from tunnel.config.render import lines_of
from tunnel.config.save import write
from tunnel.config.values import AllowedIP, EndpointConfig, endpoint
from tunnel.linux.networks import Network, is_inside, without

__all__ = ["ListedPeer", "NewPeer", "PeerBook", "Random", "endpoint_at"]

KEEPALIVE: Final = 25
"""Seconds: the other side may be behind a NAT."""

_CANDIDATES: Final = 1 << 16
"""Addresses of a network that are looked at for a free one."""

Random = Callable[[int], bytes]
"""As many random bytes, fit for keys: `os.urandom`."""

_ENDPOINT = re.compile(r"(?m)^[ \t]*#[ \t]*endpoint[ \t]*=[ \t]*(\S+)[ \t\r]*$", re.IGNORECASE)
"""Where others reach this host, as a comment in [Interface]: no key of wg-quick has it."""


@dataclass(frozen=True, slots=True)
class ListedPeer:
    """A peer of the text. `first` and `last` are the first and last line of its section, from 1."""

    config: PeerConfig
    is_disabled: bool
    first: int
    last: int

    @property
    def name(self) -> str:
        """Its friendly_name, or its public key."""
        return self.config.friendly_name or self.config.public_key.to_base64()


@dataclass(frozen=True, slots=True)
class NewPeer:
    """What is asked for a new peer.

    `endpoint` is where it reaches this host, as HOST or HOST:PORT; None: as the conf says.
    `addresses` are its own, by default the next free ones. It sends what goes to `reach`, by
    default the networks of the hub's own addresses, but not what goes to `excluded`. `dns` are
    the name servers in its conf, and `expires` is a Unix time.
    """

    name: str
    endpoint: str | None = None
    addresses: Sequence[Network] = ()
    reach: Sequence[Network] = ()
    excluded: Sequence[Network] = ()
    dns: Sequence[str] = ()
    expires: float | None = None


class PeerBook:
    """The peers of the conf at `path`. Every change is in `text` until it is written.

    Raises ConfigErrors for a file that cannot be read or is no conf, and for a change after which
    it would be none; then `text` is as it was.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.text, self._status = read_text(self.path, Problems(str(path)))
        self._before = self.text
        self.config = self._parsed(self.text)
        self.peers = self._listed()

    def private_key(self) -> PrivateKey:
        """The private key of this host, whose public key is in a peer's conf."""
        key = self.config.interface.private_key
        if key is None:
            raise self._refusal(
                "the conf has no PrivateKey, and a peer's conf needs its public key",
                "add PrivateKey or PrivateKeyFile",
            )
        return key

    def write(self) -> None:
        """Replace the file, whole or not at all; its owner and mode stay."""
        write(self.path, self.text, known=self._status)

    @contextlib.contextmanager
    def written(self) -> Iterator[None]:
        """Write a new peer, and put the file back as it was if the block fails. Raises ConfigErrors
        where that fails, too.
        """
        self.write()
        status = self.path.stat()
        try:
            yield
        except BaseException:
            stays = "still has the new peer"
            remedy = f"fix the cause, and remove that peer: tunnel peer remove {self.path} NAME"
            write(self.path, self._before, known=status, otherwise=(stays, remedy))
            raise

    def find(self, which: str) -> ListedPeer:
        """The peer of that friendly_name, public key, or address."""
        meant = find_peer([peer.config for peer in self.peers], which)
        for peer in self.peers:
            if meant is not None and peer.config is meant:
                return peer
        raise self._refusal(
            f"no peer is named {quote(which)}", f"tunnel peer list {self.path} lists them"
        )

    def add(self, new: NewPeer, random: Random) -> TunnelConfig:
        """Add a peer at the end, with new keys; the conf for it.

        That conf has the private key, which is nowhere else.
        """
        self.private_key()
        self.check_name(new.name)
        reached_at = self.reached_at(new.endpoint)
        own = new.addresses or self.free_networks()
        private = PrivateKey.from_random(random(32))
        peer = PeerConfig(
            private.public_key(),
            PresharedKey.from_bytes(random(32)),
            allowed_ips=tuple(AllowedIP(network) for network in own),
            friendly_name=new.name,
            expires=new.expires,
        )
        theirs = self._other_side(peer, private, reached_at, new)
        self._append(peer)
        return theirs

    def renew(self, peer: ListedPeer, new: NewPeer, random: Random) -> TunnelConfig:
        """Give it new keys; the conf for it, as `add`. Of `new`, name and addresses are the old."""
        reached_at = self.reached_at(new.endpoint)
        peer = self.find(peer.config.public_key.to_base64())
        private = PrivateKey.from_random(random(32))
        public, preshared = private.public_key(), PresharedKey.from_bytes(random(32))
        config = replace(peer.config, public_key=public, preshared_key=preshared)
        theirs = self._other_side(config, private, reached_at, new)
        before = self.text
        try:
            section, editor = self._section(peer)
            section.set("PublicKey", public.to_base64())
            section.set("PresharedKeyFile", None)
            section.set("PresharedKey", preshared.to_base64())
            self._take(editor.text())
            if peer.is_disabled:
                self.disable(self.find(public.to_base64()))
        except BaseException:
            self._take(before)
            raise
        return theirs

    def _other_side(
        self, peer: PeerConfig, private: PrivateKey, reached_at: EndpointConfig, new: NewPeer
    ) -> TunnelConfig:
        for server in new.dns:
            # It becomes a line of a conf, and must be no more than that.
            if not server.isprintable():
                raise self._refusal(f"{quote(server)} is no name server", "use an address")
        return _other_side(self.config, self.private_key(), peer, private, reached_at, new)

    def _append(self, peer: PeerConfig) -> None:
        editor = Editor(self.text, self.config.name)
        comments = [f"friendly_name = {peer.friendly_name}"]
        if peer.expires is not None:
            comments.append(f"expires = {expiry_text(peer.expires)}")
        editor.append_section("Peer", list(lines_of(peer)), comments=comments)
        self._take(editor.text())

    def remove(self, peer: ListedPeer) -> None:
        """Remove its section, with the comment right above."""
        section, editor = self._section(peer)
        editor.remove_section(section)
        self._take(editor.text())

    def _section(self, peer: ListedPeer) -> tuple[EditableSection, Editor]:
        """Its section in an editor of the text, in which it is enabled."""
        if peer.is_disabled:
            self.enable(peer)
            peer = self.find(peer.config.public_key.to_base64())
        place = [each.first for each in self.peers if not each.is_disabled].index(peer.first)
        editor = Editor(self.text, self.config.name)
        return editor.peers[place], editor

    def rename(self, peer: ListedPeer, name: str) -> None:
        """Give it another friendly_name."""
        self.check_name(name)
        self._set_comment(peer, Kind.FRIENDLY_NAME, "friendly_name", name)

    def expire(self, peer: ListedPeer, until: float | None) -> None:
        """Let it be shut out at that Unix time, or never."""
        text = None if until is None else expiry_text(until)
        self._set_comment(peer, Kind.EXPIRES, "expires", text)

    def _set_comment(self, peer: ListedPeer, kind: Kind, label: str, value: str | None) -> None:
        """Make its comment `# label = value` say that, or remove it with None."""
        lines = self.text.split("\n")
        tokens = [
            token
            for token in _tokens(self.text)
            if token.kind is kind and peer.first <= token.line <= peer.last
        ]
        for token in reversed(tokens):
            if value is None:
                del lines[token.line - 1]
                continue
            line = lines[token.line - 1]
            shift = len(DISABLED) if line.startswith(DISABLED) else 0
            before, after = line[: token.start + shift], line[token.end + shift :]
            lines[token.line - 1] = (
                f"{before if token.value else before.rstrip() + ' '}{value}{after}"
            )
        if not tokens and value is not None:
            mark = DISABLED if peer.is_disabled else ""
            lines.insert(peer.first, f"{mark}# {label} = {value}{self._ending()}")
        self._take("\n".join(lines))

    def disable(self, peer: ListedPeer) -> None:
        """Make its lines comments. Options, which concern the whole tunnel, stay."""
        marked = {token.line for token in _tokens(self.text) if token.kind is Kind.MARKED}
        lines = self.text.split("\n")
        for number in range(peer.first, peer.last + 1):
            if number not in marked and lines[number - 1].strip():
                lines[number - 1] = DISABLED + lines[number - 1].removeprefix(DISABLED)
        self._take("\n".join(lines))

    def enable(self, peer: ListedPeer) -> None:
        """Undo `disable`."""
        lines = self.text.split("\n")
        for number in range(peer.first, peer.last + 1):
            lines[number - 1] = lines[number - 1].removeprefix(DISABLED)
        self._take("\n".join(lines))

    def check_name(self, name: str) -> None:
        """Refuse a name that no comment can hold, or that another peer has."""
        if not name or not name.isprintable() or name != name.strip() or len(name) > 100:
            fault = f"{quote(name)} is not a valid name for a peer"
            raise self._refusal(
                fault, "use up to 100 printable characters, with no space at either end"
            )
        if any(peer.config.friendly_name == name for peer in self.peers):
            raise self._refusal(
                f"there is a peer named {quote(name)} already",
                "choose another name",
            )

    def free_networks(self) -> tuple[Network, ...]:
        """The next free address of each network of this interface, as a network of one address."""
        taken = {address.ip for address in self.config.interface.addresses}
        wide: list[Network] = []
        for network in (each for peer in self.peers for each in peer.config.networks):
            if network.prefixlen == network.max_prefixlen:
                taken.add(network.network_address)
            else:
                wide.append(network)
        found: list[Network] = []
        for own in (address.network for address in self.config.interface.addresses):
            # A peer that has the whole network, as a gateway, takes no single address of it.
            held = [each for each in wide if is_inside(each, own) and each != own]
            for candidate in itertools.islice(own.hosts(), _CANDIDATES):
                if candidate not in taken and not any(candidate in each for each in held):
                    found.append(ip_network(str(candidate)))
                    break
        if not found:
            raise self._refusal(
                "no address of Address is free for another peer",
                "give one with --address, or give Address a larger network",
            )
        return tuple(found)

    def reached_at(self, given: str | None) -> EndpointConfig:
        """Where others reach this host: as `given` (HOST or HOST:PORT), or as the conf's comment
        `# endpoint = …` says; what is given is written there if there is none.
        """
        meant = self._endpoint(given) if given else self.noted_endpoint()
        if meant is None:
            raise self._refusal(
                "where others reach this host is not known",
                "add --endpoint HOST; it is kept as a comment in the conf",
            )
        if not _ENDPOINT.search(self.text):
            header = next(
                token.line
                for token in tokenize(self.text)
                if token.kind is Kind.HEADER and token.name.lower() == "[interface]"
            )
            lines = self.text.split("\n")
            lines.insert(header, f"# endpoint = {meant}{self._ending()}")
            self._take("\n".join(lines))
        return meant

    def noted_endpoint(self) -> EndpointConfig | None:
        """Where others reach this host, as the conf's comment says; None without one."""
        known = _ENDPOINT.search(self.text)
        return self._endpoint(known[1]) if known else None

    def _endpoint(self, text: str) -> EndpointConfig:
        try:
            return endpoint_at(text, self.config.interface.listen_port)
        except Mistake as mistake:
            raise self._refusal(f"the endpoint {mistake.fault}", mistake.remedy) from None

    def _take(self, text: str) -> None:
        self.config = self._parsed(text)
        self.text = text
        self.peers = self._listed()

    def _listed(self) -> tuple[ListedPeer, ...]:
        """The peers in the order of the file, disabled ones among them."""
        lines = self.text.split("\n")
        configs = iter(self._parsed(_enabled(self.text)).peers)
        places: list[list[int]] = []
        is_peer = False
        for token in _tokens(self.text):
            if token.kind is Kind.HEADER:
                is_peer = token.name.lower() == "[peer]"
                places += [[token.line, token.line]] if is_peer else []
            elif is_peer and token.kind in (Kind.ENTRY, Kind.FRIENDLY_NAME, Kind.EXPIRES):
                places[-1][1] = token.line
        return tuple(
            ListedPeer(next(configs), lines[first - 1].startswith(DISABLED), first, last)
            for first, last in places
        )

    def _parsed(self, text: str) -> TunnelConfig:
        return parse(text, name=self.path.stem, source=str(self.path), folder=self.path.parent)

    def _refusal(self, fault: str, remedy: str) -> ConfigErrors:
        return ConfigErrors([Problem(str(self.path), None, "", fault, remedy)])

    def _ending(self) -> str:
        return "\r" if self.text.partition("\n")[0].endswith("\r") else ""


def endpoint_at(text: str, port: int) -> EndpointConfig:
    """The endpoint HOST:PORT, or HOST at that port, where 0 is none. Raises Mistake."""
    if any(character.isspace() for character in text):
        raise Mistake(f"{quote(text)} has a space", "write HOST or HOST:PORT")
    host, colon, digits = text.rpartition(":")
    is_whole = bool(colon) and digits.isdigit() and (":" not in host or host.endswith("]"))
    if not is_whole:
        if not port:
            raise Mistake(f"{quote(text)} has no port", "add :PORT, or ListenPort to the conf")
        is_bare = ":" in text and not text.startswith("[")
        text = f"[{text}]:{port}" if is_bare else f"{text}:{port}"
    found = endpoint(text)
    return found if isinstance(found, EndpointConfig) else found.value


def _enabled(text: str) -> str:
    return "\n".join(line.removeprefix(DISABLED) for line in text.split("\n"))


def _tokens(text: str) -> Iterator[Token]:
    """The tokens of the text, as if no peer was disabled."""
    yield from tokenize(_enabled(text).removeprefix("\ufeff"))


def _other_side(
    hub: TunnelConfig,
    hub_key: PrivateKey,
    peer: PeerConfig,
    private_key: PrivateKey,
    reached_at: EndpointConfig,
    new: NewPeer,
) -> TunnelConfig:
    """The conf of `peer` of the tunnel `hub`, which it reaches at that endpoint."""
    networks = new.reach or [address.network for address in hub.interface.addresses]
    allowed = tuple(AllowedIP(network) for network in without(networks, new.excluded))
    base = parse(
        "[Interface]\nPrivateKey = "
        + private_key.to_base64()
        + "".join(f"\nAddress = {network}" for network in peer.networks)
        + "".join(f"\nDNS = {server}" for server in new.dns),
        name=hub.name,
        source=f"the conf of {peer.friendly_name}",
    )
    interface: InterfaceConfig = replace(base.interface, mtu=hub.interface.mtu)
    there = PeerConfig(
        hub_key.public_key(),
        peer.preshared_key,
        allowed_ips=allowed,
        endpoint=reached_at,
        persistent_keepalive=KEEPALIVE,
        friendly_name=hub.name,
    )
    return replace(base, interface=interface, peers=(there,))
