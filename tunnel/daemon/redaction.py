"""Keeping the secrets of a conf out of logs."""

from __future__ import annotations

from collections.abc import Callable

from tunnel.config import TunnelConfig
from tunnel.log import redact


def hide_secrets(config: TunnelConfig) -> None:
    """Keep the keys of the conf out of every log from now on."""
    private_key = config.interface.private_key
    redact.hide([bytes(private_key)] if private_key is not None else [], private=True)
    redact.hide(
        bytes(peer.preshared_key) for peer in config.peers if peer.preshared_key is not None
    )


def hook_hider(config: TunnelConfig | None) -> Callable[[str], str]:
    """A function that makes a line of a hook, its command or its output, fit for the log.

    It removes control characters and all keys but the public ones we know, which are none without
    a conf. Any thread may call it.
    """
    if config is None:
        return lambda line: redact.printable(redact.redact_keys(line, frozenset()))
    public = {bytes(peer.public_key) for peer in config.peers}
    private_key = config.interface.private_key
    if private_key is not None:
        public.add(bytes(private_key.public_key()))
    return lambda line: redact.printable(redact.redact_keys(line, public))
