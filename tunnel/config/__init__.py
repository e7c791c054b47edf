"""peer.conf: text to frozen dataclasses and back, with errors that name place and remedy.

`find` says which file a name means, `load` and `parse` read it, `dump` and
`strip` write it, `save` brings a file up to what is running.
"""

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
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
from tunnel.config.render import dump, strip
from tunnel.config.save import LineChange, merge, save

__all__ = [
    "AllowedIP",
    "ConfigErrors",
    "EndpointConfig",
    "InterfaceConfig",
    "KeyFormatError",
    "LineChange",
    "PeerConfig",
    "PresharedKey",
    "PrivateKey",
    "Problem",
    "PublicKey",
    "TunnelConfig",
    "TunnelOptions",
    "dump",
    "find",
    "load",
    "merge",
    "parse",
    "save",
    "strip",
]
