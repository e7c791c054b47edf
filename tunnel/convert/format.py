"""What a format is: how it is recognised, read and written, and its words for our keys."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tunnel.config import TunnelConfig
from tunnel.config.keys import keys_of
from tunnel.config.model import PeerConfig, TunnelOptions
from tunnel.config.parser import place_of
from tunnel.config.problems import quote
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, refused
from tunnel.linux.networks import Network

__all__ = ["Format", "Output", "Written", "chosen", "default_route", "lost_keys", "peer_name"]


class Output(NamedTuple):
    """A file to be written: its name, its text, and whether a secret is in it."""

    name: str
    text: str
    secret: bool = True


class Written(NamedTuple):
    """What an exporter made of a conf, and what it does not carry beyond keys without a name."""

    outputs: tuple[Output, ...]
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format. `keys` has the words of the format for each of our keys that it carries.

    `read` takes the files and the name of the tunnel to take, "" for the only one.
    """

    name: str
    title: str
    sign: re.Pattern[str]
    keys: Mapping[str, str]
    read: Callable[[Sequence[ForeignFile], str], Draft]
    write: Callable[[TunnelConfig], Written]
    hints: Mapping[str, str] = field(default_factory=dict)
    """What to do about keys that are not carried."""
    beside: re.Pattern[str] | None = None
    """What a file has that belongs to one with the sign, where `read` passes over
    what it does not know.
    """


_HOOK = "a shell command: run it by other means"
_OURS = "a key of this program alone"
_HINTS = {
    **dict.fromkeys(("PreUp", "PostUp", "PreDown", "PostDown"), _HOOK),
    **{key.name: _OURS for key in keys_of(TunnelOptions).values()},
    **{key.name: _OURS for key in keys_of(PeerConfig).values() if not key.wg},
    "Mode": "only this program carries Ethernet frames: its peers will not understand",
    "SaveConfig": "wg-quick's way to keep changes",
    "# expires": "peers stay there until they are removed",
}


def lost_keys(config: TunnelConfig, form: Format) -> list[Lost]:
    """The keys of `config` that `form` has nothing for."""
    found = []
    if config.interface.private_key is None and "PreUp" not in form.keys:
        place = str(config.path or config.name)
        found.append(Lost(place, "PrivateKey", "a hook sets it, which is not carried"))
    for section in (config.interface, config.interface.options):
        for key in keys_of(type(section)).values():
            if key.name in form.keys or key.is_file or getattr(section, key.field) == key.default:
                continue
            why = form.hints.get(key.name) or _HINTS.get(key.name) or f"not in {form.title}"
            found.append(Lost(place_of(config, key.name) or config.name, key.name, why))
    for peer in config.peers:
        named = {
            key.name: getattr(peer, key.field) != key.default
            for key in keys_of(PeerConfig).values()
            if not key.wg and not key.is_file
        }
        named["# friendly_name"] = bool(peer.friendly_name)
        named["# expires"] = peer.expires is not None
        for name, is_there in named.items():
            if is_there and name not in form.keys:
                why = form.hints.get(name) or _HINTS.get(name) or f"not in {form.title}"
                place = str(config.path or config.name)
                found.append(Lost(place, f"{name} of {peer_name(peer)}", why))
    return found


def peer_name(peer: PeerConfig) -> str:
    """The name of a peer in messages."""
    return peer.friendly_name or peer.public_key.to_base64()


def chosen(names: Collection[str], wanted: str, place: FileLine) -> str:
    """The tunnel of a file to take: the one that is wanted, or the only one."""
    if wanted in names:
        return wanted
    listed = ", ".join(sorted(names)[:10])
    if not names:
        raise refused(place, "there is no WireGuard interface in it", "name another file")
    if wanted:
        fault = f"there is no WireGuard interface {quote(wanted)} in it"
        raise refused(place, fault, f"it has {listed}")
    if len(names) > 1:
        raise refused(place, f"it has several tunnels: {listed}", "choose one with --interface")
    return next(iter(names))


def default_route(config: TunnelConfig, network: Network, command: str) -> Lost:
    """A default route that is left out: it would lead the tunnel's own packets into the tunnel."""
    why = f"first route the endpoint past the tunnel, then: {command}"
    return Lost(str(config.path or config.name), f"the route to {network}", why)
