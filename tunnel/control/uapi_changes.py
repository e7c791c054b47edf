"""What a `set` of the UAPI asks for, as values: checked in full before the first is applied."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.io.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class SetPrivateKey:
    """Be `key` from now on; None: have no key."""

    key: PrivateKey | None


@dataclass(frozen=True, slots=True)
class SetListenPort:
    """Listen on that UDP port; 0: on a random one."""

    port: int


@dataclass(frozen=True, slots=True)
class SetFwmark:
    """Mark outer packets; 0: do not."""

    fwmark: int


@dataclass(frozen=True, slots=True)
class ReplacePeers:
    """The peers that follow are all there are."""


@dataclass(slots=True)
class PeerChange:
    """Add the peer, change it or, with `remove`, remove it. None leaves a value as it is.

    With `update_only` a peer that is not there is not added. `persistent_keepalive` is in
    seconds, 0 for off. `allowed_ips` maps networks, as `tunnel.protocol.pack` writes them, to True
    for one to add and False for one to take away; with `replace_allowed_ips` those to add are all
    there are.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: dict[int, bool] = field(default_factory=dict)


DeviceChange: TypeAlias = SetPrivateKey | SetListenPort | SetFwmark | ReplacePeers | PeerChange
