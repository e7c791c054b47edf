"""The keys of handshakes as they are made, for a capture that is to be decrypted.

Nothing is kept: a key is given to those who subscribe at that moment and to no one else, and while
there is no subscriber the protocol gives keys to no one.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.broadcast import EventQueue, Events
from tunnel.engine import Engine

log = logging.getLogger("tunnel")


class KeyLog:
    """All subscriptions to the ephemeral keys of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._protocol = engine.interface
        self._readers = Events("captures with keys", on_first=self._begin, on_last=self._end)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[EventQueue]:
        """The `ephemeral` events from now on, for the time of the `with`.

        Raises TooManySubscribersError.
        """
        with self._readers.subscribe(EventQueue()) as keys:
            log.warning("a capture reads the keys of all handshakes from now on")
            yield keys

    def _begin(self) -> None:
        self._protocol.set_on_ephemeral(self._publish)

    def _end(self) -> None:
        self._protocol.set_on_ephemeral(None)
        log.info("no capture reads the keys of handshakes any longer")

    def _publish(self, peer: PublicKey, ephemeral: PrivateKey, preshared: PresharedKey) -> None:
        """An ephemeral key with the three others that a reader of its session needs."""
        static = self._protocol.private_key
        self._readers.publish(
            "ephemeral",
            private_key=None if static is None else static.to_base64(),
            peer=peer.to_base64(),
            ephemeral_key=ephemeral.to_base64(),
            preshared_key=None if preshared.is_zero else preshared.to_base64(),
        )
