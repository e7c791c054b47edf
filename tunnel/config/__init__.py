"""peer.conf: text to frozen dataclasses and back, with errors that name place and remedy.

`find` says which file a name means, `load` and `parse` read it, `dump` and `strip` write it.
"""

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.config.files import is_protected
from tunnel.config.model import (
    AllowedIP,
    EndpointConfig,
    InterfaceConfig,
    PeerConfig,
    TunnelConfig,
    TunnelOptions,
)
from tunnel.config.parser import load, parse
from tunnel.config.paths import find
from tunnel.config.problems import ConfigErrors, Problem

__all__ = [
    "AllowedIP",
    "ConfigErrors",
    "EndpointConfig",
    "InterfaceConfig",
    "KeyFormatError",
    "PeerConfig",
    "PresharedKey",
    "PrivateKey",
    "Problem",
    "PublicKey",
    "TunnelConfig",
    "TunnelOptions",
    "find",
    "is_protected",
    "load",
    "parse",
]
