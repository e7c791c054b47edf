"""What a conf says about the parts that a daemon is made of."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from tunnel import datapath
from tunnel.config import TunnelConfig

log = logging.getLogger("tunnel")


def secrets(config: TunnelConfig) -> Iterator[bytes]:
    """The keys of the conf that no log may ever have, 32 bytes each."""
    yield bytes(config.interface.private_key)
    for peer in config.peers:
        if peer.preshared_key is not None:
            yield bytes(peer.preshared_key)


def load_datapath(config: TunnelConfig) -> datapath.Datapath:
    """The datapath of the conf, or the best there is; the log says so if it is another."""
    wanted = config.interface.options.datapath
    chosen = datapath.load(None if wanted == "auto" else wanted)
    if chosen.note:
        log.info("%s; using the %s datapath", chosen.note, chosen.name)
    return chosen
