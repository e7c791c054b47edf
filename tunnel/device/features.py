"""Which datapath and which offloads a device uses.

The kernel is asked for all offloads except those that the conf or the environment switches off.

TUNNEL_OFFLOADS_OFF is a comma-separated list: tso, uso (large frames from the TUN), gso, gro
(batches of datagrams on the UDP sockets), or all. It also works for `tunnel-wg`, which has no
conf of ours.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final, NamedTuple

from tunnel import datapath
from tunnel.config import TunnelOptions
from tunnel.errors import DaemonError
from tunnel.io import gso
from tunnel.io.tun import TSO, USO, TunOffload

log = logging.getLogger("tunnel")

ENVIRONMENT_VARIABLE: Final = "TUNNEL_OFFLOADS_OFF"
NAMES: Final = ("tso", "uso", "gso", "gro")


class Offloads(NamedTuple):
    """What to ask the kernel for; `Tun` and `Udp` go on without what it refuses.

    `short_tails`: no batch that leaves is to be of equally long datagrams only.
    """

    tun: TunOffload
    gso: bool
    gro: bool
    short_tails: bool


def choose(
    options: TunnelOptions | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    version: str | None = None,
) -> Offloads:
    """The offloads that neither `options` nor `environment` switches off.

    `version` is that of the kernel, by default of the one that runs.
    Raises DaemonError if the environment names one that does not exist.
    """
    options = options or TunnelOptions()
    off = _switched_off(environment.get(ENVIRONMENT_VARIABLE, ""))
    tun = TunOffload.CSUM
    if options.use_tso and "tso" not in off:
        tun |= TSO
    if options.use_uso and "uso" not in off:
        tun |= USO
    use_gso = options.use_gso and "gso" not in off
    short_tails = options.udp_short_tail == "on"
    if options.udp_short_tail == "auto":
        short_tails = gso.damages_equal_batches(version or gso.kernel_version())
    use_gro = options.use_gro and "gro" not in off
    return Offloads(tun, use_gso, use_gro, short_tails=use_gso and short_tails)


def _switched_off(text: str) -> frozenset[str]:
    words = {word.strip().lower() for word in text.split(",")} - {""}
    unknown = sorted(words - {*NAMES, "all"})
    if unknown:
        raise DaemonError(
            f"{ENVIRONMENT_VARIABLE}: found {unknown[0]!r}, expected a comma-separated "
            f"list of {', '.join(NAMES)} or all; or leave it unset"
        )
    return frozenset(NAMES if "all" in words else words)


def load_datapath(wanted: str = "auto") -> datapath.Datapath:
    """The datapath that a conf calls `wanted`, or the best there is; the log names a second choice.

    Raises DaemonError for an unknown one.
    """
    try:
        chosen = datapath.load(None if wanted == "auto" else wanted)
    except datapath.UnknownDatapathError as error:
        raise DaemonError(str(error)) from None
    if datapath.encryption_is_disabled():
        log.warning("NOTHING IS ENCRYPTED: this tunnel is a benchmark's, and protects no packet")
    if chosen.note:
        log.info("%s; using the %s datapath", chosen.note, chosen.name)
    return chosen
