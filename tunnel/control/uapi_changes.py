"""What a `set` of the UAPI asks for, as values: checked in full before the first is applied."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from itertools import chain
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


class NetworkChanges(MutableMapping[int, bool]):
    """Networks, as `tunnel.protocol.pack` writes them: True for one to add, False for one to take
    away. IPv4 first, each family in the order they came.

    A dictionary for each family: growing, one for all would stop everything for twice as long.
    """

    __slots__ = ("_v4", "_v6")

    def __init__(self) -> None:
        self._v4: dict[int, bool] = {}
        self._v6: dict[int, bool] = {}

    def __getitem__(self, network: int) -> bool:
        return (self._v6 if network & 1 else self._v4)[network]

    def __setitem__(self, network: int, add: bool) -> None:
        (self._v6 if network & 1 else self._v4)[network] = add

    def __delitem__(self, network: int) -> None:
        del (self._v6 if network & 1 else self._v4)[network]

    def __iter__(self) -> Iterator[int]:
        return chain(self._v4, self._v6)

    def __len__(self) -> int:
        return len(self._v4) + len(self._v6)


@dataclass(slots=True)
class PeerChange:
    """Add the peer, change it or, with `remove`, remove it. None leaves a value as it is.

    With `update_only` a peer that is not there is not added. `persistent_keepalive` is in
    seconds, 0 for off. `allowed_ips` is as in `NetworkChanges`; with `replace_allowed_ips` what it
    adds is all there is.
    """

    public_key: PublicKey
    remove: bool = False
    update_only: bool = False
    preshared_key: PresharedKey | None = None
    endpoint: Endpoint | None = None
    persistent_keepalive: int | None = None
    replace_allowed_ips: bool = False
    allowed_ips: MutableMapping[int, bool] = field(default_factory=NetworkChanges)


DeviceChange: TypeAlias = SetPrivateKey | SetListenPort | SetFwmark | ReplacePeers | PeerChange
