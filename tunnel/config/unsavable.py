"""Which running values a conf can hold: what is saved must be readable again at the next boot.

The kernel and `wg` take values that a conf refuses, as an MTU of 65535 or the endpoint 192.0.2.1:0.
Each of them stays in the file as it was; all others are saved.
"""

from collections.abc import Callable
from dataclasses import replace

from tunnel.config import values
from tunnel.config.model import EndpointConfig, InterfaceConfig, PeerConfig, TunnelConfig
from tunnel.config.problems import Mistake, Problem, quote, quote_name

__all__ = ["Note", "keep_readable"]

Note = Callable[[Problem], None]
"""What is told of each value that is not saved."""


def keep_readable(
    before: TunnelConfig, running: TunnelConfig, source: str, note: Note
) -> TunnelConfig:
    """Return `running` with the values of `before` (what the file says) where a conf refuses it."""
    keeper = _Keeper(source, note)
    old = {peer.public_key: peer for peer in before.peers}
    return replace(
        running,
        interface=keeper.interface(before.interface, running.interface),
        peers=tuple(keeper.peer(old.get(peer.public_key), peer) for peer in running.peers),
    )


class _Keeper:
    def __init__(self, source: str, note: Note) -> None:
        self._source = source
        self._note = note

    def interface(self, before: InterfaceConfig, running: InterfaceConfig) -> InterfaceConfig:
        if running.mtu is not None and not self._is_read("MTU", values.mtu, str(running.mtu)):
            running = replace(running, mtu=before.mtu)
        readable = [
            a for a in running.addresses if self._is_read("Address", values.address, str(a))
        ]
        return replace(running, addresses=tuple(readable))

    def peer(self, before: PeerConfig | None, running: PeerConfig) -> PeerConfig:
        endpoint = running.endpoint
        if endpoint is None or self._is_read("Endpoint", values.endpoint, str(endpoint)):
            return running
        kept: EndpointConfig | None = None if before is None else before.endpoint
        return replace(running, endpoint=kept)

    def _is_read(self, key: str, read: Callable[[str], object], text: str) -> bool:
        try:
            read(text)
        except Mistake as mistake:
            self._note(
                Problem(
                    quote_name(self._source),
                    None,
                    key,
                    f"{quote(text)} in use",
                    mistake.expected,
                    "that line is saved as it was",
                )
            )
            return False
        return True
