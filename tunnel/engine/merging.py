"""What is merged on the way in: what the TUN takes, and what it turns out not to take."""

from __future__ import annotations

import logging
from math import inf

from tunnel.datapath import VIRTIO_NET_HDR_LEN, Offload
from tunnel.datapath.split import split_ethernet_untrusted, split_untrusted
from tunnel.datapath.virtio import GSO_TCPV4, GSO_UDP_L4, NO_OFFLOAD
from tunnel.io.tun import TunOffload
from tunnel.packet.ethernet import ETHERIP, ethertype_untrusted

from .common import Clock

log = logging.getLogger("tunnel")

TRY_AGAIN = 60.0
"""Seconds until packets of a kind that the TUN refused are merged again."""

_KINDS = (
    (TunOffload.TSO4, Offload.TCP4),
    (TunOffload.TSO6, Offload.TCP6),
    (TunOffload.USO4, Offload.UDP4),
    (TunOffload.USO6, Offload.UDP6),
)
_NAMES = {
    Offload.TCP4: "TCP over IPv4",
    Offload.TCP6: "TCP over IPv6",
    Offload.UDP4: "UDP over IPv4",
    Offload.UDP6: "UDP over IPv6",
}


class Merging:
    """Which kinds of packets to merge: `kinds`. A TUN takes those large frames that it gives.

    Some kernels grant an offload and still refuse its frames, every one: then the packets of that
    kind are written one by one, and `TRY_AGAIN` seconds later merged again. With `ethernet` they
    are those of a TAP.
    """

    def __init__(self, granted: TunOffload, clock: Clock, *, ethernet: bool = False) -> None:
        self._clock = clock
        self._ethernet = ethernet
        self._refused: dict[Offload, float] = {}
        self._reported = Offload.NONE
        self._all = Offload.NONE
        for offload, kind in _KINDS:
            if offload & granted:
                self._all |= kind
        self.kinds = self._all
        self.try_again_at = inf

    def apart(self, frame: memoryview) -> list[bytes]:
        """What was merged into `frame`, each as a frame of its own."""
        if self._ethernet:
            plains = split_ethernet_untrusted(frame, mtu=0).plains
            return [NO_OFFLOAD + plain[len(ETHERIP) :] for plain in plains]
        return [NO_OFFLOAD + packet for packet in split_untrusted(frame, mtu=0).plains]

    def refuse(self, frame: memoryview) -> None:
        """The packets of `frame` pass one by one, and did not as one frame."""
        link = ethertype_untrusted(frame[VIRTIO_NET_HDR_LEN:])[1] if self._ethernet else 0
        kind = _kind_of(frame, link)
        self._refused[kind] = self._clock() + TRY_AGAIN
        self._update()
        if not kind & self._reported:
            self._reported |= kind
            log.warning(
                "the kernel refuses merged packets of %s on this interface, though it has granted "
                "them: writing them one by one, which is slower; this is tried again every %d s",
                _NAMES[kind],
                TRY_AGAIN,
            )

    def try_again(self) -> None:
        """Merge again what was refused long enough ago; to be called from `try_again_at` on."""
        now = self._clock()
        self._refused = {kind: when for kind, when in self._refused.items() if when > now}
        self._update()

    def _update(self) -> None:
        kinds = self._all
        for kind in self._refused:
            kinds &= ~kind
        self.kinds = kinds
        self.try_again_at = min(self._refused.values(), default=inf)


def _kind_of(frame: memoryview, link: int) -> Offload:
    gso_type, version = frame[1], frame[VIRTIO_NET_HDR_LEN + link] >> 4
    if gso_type == GSO_UDP_L4:
        return Offload.UDP4 if version == 4 else Offload.UDP6
    return Offload.TCP4 if gso_type == GSO_TCPV4 else Offload.TCP6
