"""wg-quick: what a conf is without the keys that are this program's own.

A conf of wg-quick is a conf already: an import keeps its text, and makes comments of lines with
keys that WireGuard does not have, as apps write them.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tunnel.config import TunnelConfig, TunnelOptions, dump
from tunnel.config.keys import keys_of
from tunnel.config.lexer import Kind, tokenize
from tunnel.config.lookalikes import foreign_key
from tunnel.config.model import SECTIONS, InterfaceConfig, PeerConfig
from tunnel.convert.draft import Draft, FileLine, ForeignFile, refused
from tunnel.convert.format import Format, Output, Written

__all__ = ["WG_QUICK"]


def _read(sources: Sequence[ForeignFile], wanted: str) -> Draft:
    if len(sources) > 1:
        raise refused(
            FileLine(sources[1].name), "a conf is one file, and this is another", "name one"
        )
    source = sources[0]
    draft = Draft(FileLine(source.name))
    draft.name = wanted
    known = {name: key for section in SECTIONS.values() for name, key in keys_of(section).items()}
    lines = source.text.split("\n")
    for token in tokenize(source.text):
        key = known.get(token.name.lower())
        place = FileLine(source.name, token.line)
        if token.kind is Kind.HEADER and token.name.lower() == "[interface]":
            draft.interface.place = place
        if token.kind is not Kind.ENTRY:
            continue
        line = lines[token.line - 1]
        if key is not None and key.name == "PrivateKey":
            draft.interface.set(key.name, token.value, place)
        if key is not None and key.is_file:
            # The conf may be written to another folder.
            name = str(source.folder / token.value)
            lines[token.line - 1] = f"{line[: token.start]}{name}{line[token.end :]}"
        foreign = foreign_key(token.name.lower()) if key is None else None
        if foreign is not None:
            draft.lose(place, token.name, foreign.fault)
            lines[token.line - 1] = f"# {line}"
    draft.text = "\n".join(lines)
    return draft


def _write(config: TunnelConfig) -> Written:
    interface = replace(config.interface, private_key_file=None, options=TunnelOptions())
    peers = tuple(peer.as_wireguard() for peer in config.peers)
    text = dump(TunnelConfig(config.name, interface, peers))
    return Written((Output(f"{config.name}.conf", text),))


_BY_HOOKS: Final = "write it as PostUp and PostDown, with nft or iptables"

WG_QUICK: Final = Format(
    name="wg-quick",
    title="wg-quick, and `wg showconf`",
    sign=re.compile(r"^[^\S\n]*\[\s*interface\s*\]", re.MULTILINE | re.IGNORECASE),
    keys={
        **{key.name: "the same" for key in keys_of(InterfaceConfig).values() if not key.is_file},
        **{key.name: "the same" for key in keys_of(PeerConfig).values() if key.wg},
        "# friendly_name": "the same",
    },
    read=_read,
    write=_write,
    hints={
        "Forward": "write it as PostUp = sysctl -w net.ipv4.ip_forward=1",
        **dict.fromkeys(
            ("Masquerade", "Publish", "Isolate", "Allow", "ClampMSS", "KillSwitch", "Netmap"),
            _BY_HOOKS,
        ),
    },
)
