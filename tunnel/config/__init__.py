"""peer.conf: text to frozen dataclasses and back, with errors that name place and remedy.

`find` says which file a name means, `load` and `parse` read it, `dump` and
`strip` write it, `save` brings a file up to what is running.
"""

from crypto.keys import KeyFormatError, PresharedKey, PrivateKey, PublicKey
from tunnel.config.checks import OWN_KEY, find_peer
from tunnel.config.files import find
from tunnel.config.keys import Reload
from tunnel.config.model import (
    InterfaceConfig,
    PeerConfig,
    TunnelConfig,
    TunnelOptions,
    changed_keys,
)
from tunnel.config.parser import load, parse, place_of
from tunnel.config.problems import ConfigErrors, Problem
from tunnel.config.render import dump, strip
from tunnel.config.save import LineChange, merge, save
from tunnel.config.values import AllowedIP, EndpointConfig

__all__ = [
    "OWN_KEY",
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
    "Reload",
    "TunnelConfig",
    "TunnelOptions",
    "changed_keys",
    "dump",
    "find",
    "find_peer",
    "load",
    "merge",
    "parse",
    "place_of",
    "save",
    "strip",
]
