"""What a WireGuard app of a phone reads of a conf: keys of `wg`, and Address, DNS and MTU."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from tunnel.config.keys import keys_of
from tunnel.config.model import InterfaceConfig, TunnelConfig, TunnelOptions
from tunnel.config.problems import Mistake
from tunnel.config.render import dump

if TYPE_CHECKING:
    import segno

__all__ = ["for_phone", "phone_code"]

_READ: Final = frozenset({"Address", "DNS", "MTU"})
_INLINE: Final = frozenset({"PrivateKeyFile", "PresharedKeyFile"})
"""Not left out: what is in those files is written out."""
_REFUSED: Final = frozenset({"FwMark"})
"""Keys of `wg` that the apps refuse."""


def for_phone(config: TunnelConfig) -> tuple[str, tuple[str, ...]]:
    """The conf as such an app reads it, secrets written out, and the keys that were left out."""
    interface = config.interface
    read: dict[str, Any] = {}
    left_out: dict[str, None] = {}
    for section in (interface.options, interface):
        for key in keys_of(type(section)).values():
            value = getattr(section, key.field)
            if key.name not in _REFUSED and (key.wg or key.name in _READ):
                read[key.field] = value
            elif value != key.default and key.name not in _INLINE:
                left_out[key.name] = None
    if any(any(peer.rate_limit) for peer in config.peers):
        left_out["RateLimit"] = None
    if any(peer.quota.size for peer in config.peers):
        left_out["Quota"] = None
    kept = InterfaceConfig(**read, options=TunnelOptions())
    peers = tuple(replace(peer.as_wireguard(), friendly_name="") for peer in config.peers)
    return dump(TunnelConfig(config.name, kept, peers)), tuple(left_out)


def phone_code(config: TunnelConfig) -> tuple["segno.QRCode", tuple[str, ...]]:
    """The QR code that such an app scans, and the keys that were left out.

    Raises Mistake for a conf that is too large for one.
    """
    import segno

    text, left_out = for_phone(config)
    try:
        return segno.make(text, error="l", micro=False), left_out
    except segno.DataOverflowError:
        raise Mistake(
            f"is too large for a QR code ({len(text.encode())} bytes; 2953 fit)",
            "use fewer AllowedIPs, or copy the file to the device",
        ) from None
