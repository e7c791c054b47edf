"""The keys of handshakes as they are made, for a capture that is to be decrypted.

Nothing is kept: a key is handed to those who subscribe at that moment and to nobody else, and while
there is no subscriber the protocol has nobody to tell.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from tunnel.config import PresharedKey, PrivateKey, PublicKey
from tunnel.control.broadcast import Feed, Subscription
from tunnel.engine import Engine

log = logging.getLogger("tunnel")


class KeyFeed:
    """All subscriptions to one tunnel's ephemeral keys."""

    def __init__(self) -> None:
        self._feed = Feed()
        self._readers = 0

    @contextlib.contextmanager
    def subscribe(self, engine: Engine) -> Iterator[Subscription]:
        """The `ephemeral` events from now on, for the time of the `with`.

        Raises TooManySubscribersError.
        """
        with self._feed.subscribe() as subscription:
            self._readers += 1
            log.warning("a capture reads the keys of all handshakes from now on")
            engine.interface.set_on_ephemeral(_Teller(engine, self._feed))
            try:
                yield subscription
            finally:
                self._readers -= 1
                if not self._readers:
                    engine.interface.set_on_ephemeral(None)
                    log.info("the keys of handshakes are read no longer")


class _Teller:
    """Publishes an ephemeral key with the three others that a reader of its session needs."""

    def __init__(self, engine: Engine, feed: Feed) -> None:
        self._protocol = engine.interface
        self._feed = feed

    def __call__(self, peer: PublicKey, ephemeral: PrivateKey, preshared: PresharedKey) -> None:
        static = self._protocol.private_key
        self._feed.publish(
            "ephemeral",
            private_key=None if static is None else static.to_base64(),
            peer=peer.to_base64(),
            ephemeral_key=ephemeral.to_base64(),
            preshared_key=None if preshared.is_zero else preshared.to_base64(),
        )
