"""TunnelConfig to text: whole (`dump`), or what stock `wg setconf` understands (`strip`)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from crypto.keys import PresharedKey, PrivateKey
from tunnel.config.lexer import HOOKS
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelConfig, TunnelOptions
from tunnel.config.problems import ConfigErrors, Problem, quote

__all__ = ["dump", "option_lines", "peer_lines", "render_fwmark", "strip"]

_PER_LINE: Final = 8
"""Networks on a line of AllowedIPs; more are spread over several lines."""

Line = tuple[str, str]
"""A key as the manual spells it, and its value."""


def dump(config: TunnelConfig) -> str:
    """Write `config` as a conf that `parse` reads back to an equal one.

    Keys that came from a file are written as that file's name. Raises ConfigErrors if a value
    cannot stand on a line of its own, as a hook with a line break cannot.
    """
    interface = config.interface
    sections = [("Interface", list(_interface_lines(interface)))]
    options = list(option_lines(interface.options))
    if options:
        sections.append(("Tunnel", options))
    sections += [("Peer", list(peer_lines(peer))) for peer in config.peers]
    return _render(config.name, sections)


def strip(config: TunnelConfig) -> str:
    """Write what `wg setconf` reads: keys and peers, without wg-quick's keys and [Tunnel].

    Keys that came from a file are written out, since `wg` has no such key.
    """
    interface = config.interface
    lines: list[Line] = [("PrivateKey", interface.private_key.to_base64())]
    lines += _socket_lines(interface)
    sections = [("Interface", lines)]
    sections += [("Peer", list(peer_lines(peer, inline=True))) for peer in config.peers]
    return _render(config.name, sections)


def _interface_lines(interface: InterfaceConfig) -> Iterator[Line]:
    yield _secret("PrivateKey", interface.private_key, interface.private_key_file)
    yield from _socket_lines(interface)
    if interface.addresses:
        yield "Address", ", ".join(map(str, interface.addresses))
    if interface.mtu is not None:
        yield "MTU", str(interface.mtu)
    if interface.table != "auto":
        yield "Table", str(interface.table)
    if interface.dns or interface.dns_search:
        yield "DNS", ", ".join([*map(str, interface.dns), *interface.dns_search])
    for key, commands in (
        ("PreUp", interface.pre_up),
        ("PostUp", interface.post_up),
        ("PreDown", interface.pre_down),
        ("PostDown", interface.post_down),
    ):
        for command in commands:
            yield key, command
    if interface.save_config:
        yield "SaveConfig", "true"


def _socket_lines(interface: InterfaceConfig) -> Iterator[Line]:
    if interface.listen_port:
        yield "ListenPort", str(interface.listen_port)
    if interface.fwmark:
        yield "FwMark", render_fwmark(interface.fwmark)


def render_fwmark(mark: int) -> str:
    """Spell a mark as `wg` shows it."""
    return f"0x{mark:x}"


def option_lines(options: TunnelOptions) -> Iterator[Line]:
    """Yield the options that differ from their defaults."""
    if options.datapath != "auto":
        yield "Datapath", options.datapath
    for key, on in (
        ("TunOffload", options.tun_offload),
        ("TunTso", options.tun_tso),
        ("TunUso", options.tun_uso),
        ("UdpOffload", options.udp_offload),
        ("UdpGso", options.udp_gso),
        ("UdpGro", options.udp_gro),
    ):
        if not on:
            yield key, "off"
    if options.metrics != "unix":
        yield "Metrics", str(options.metrics)


def peer_lines(peer: PeerConfig, *, inline: bool = False) -> Iterator[Line]:
    """Yield the lines of a [Peer]; with `inline` a preshared key from a file is written out."""
    yield "PublicKey", peer.public_key.to_base64()
    if peer.preshared_key is not None:
        file = None if inline else peer.preshared_key_file
        yield _secret("PresharedKey", peer.preshared_key, file)
    elif peer.preshared_key_file is not None and not inline:
        yield "PresharedKeyFile", peer.preshared_key_file
    for start in range(0, len(peer.allowed_ips), _PER_LINE):
        chunk = peer.allowed_ips[start : start + _PER_LINE]
        yield "AllowedIPs", ", ".join(map(str, chunk))
    if peer.endpoint is not None:
        yield "Endpoint", str(peer.endpoint)
    if peer.persistent_keepalive:
        yield "PersistentKeepalive", str(peer.persistent_keepalive)


def _secret(key: str, secret: PrivateKey | PresharedKey, file: str | None) -> Line:
    return (key, secret.to_base64()) if file is None else (f"{key}File", file)


def _render(name: str, sections: Sequence[tuple[str, Iterable[Line]]]) -> str:
    blocks = [
        "\n".join([f"[{title}]", *(render_line(name, line) for line in lines)])
        for title, lines in sections
    ]
    return "\n\n".join(blocks) + "\n"


def render_line(name: str, line: Line) -> str:
    """Write `Key = value`. Raises ConfigErrors if the value would be read as something else."""
    key, value = line
    # A value that brings its own line break would become a line of its own: a hook, run as root.
    broken = any(character < " " and character != "\t" for character in value)
    if broken or value != value.strip() or ("#" in value and key.lower() not in HOOKS):
        raise ConfigErrors(
            [
                Problem(
                    name,
                    None,
                    key,
                    quote(value),
                    "a value that fits on one line of a conf",
                    "remove control characters, '#' and white space around it",
                )
            ]
        )
    return f"{key} = {value}"
