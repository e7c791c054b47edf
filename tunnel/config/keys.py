"""The keys of a conf: which there are, where they belong, how they are spelled."""

import re
from typing import Final, Literal

from tunnel.config.problems import Mistake, quote

__all__ = ["KEYS", "SPELLING", "Section", "check_name"]

Section = Literal["interface", "peer", "tunnel"]

_SPELLINGS: Final[dict[Section, tuple[str, ...]]] = {
    "interface": (
        "PrivateKey",
        "PrivateKeyFile",
        "ListenPort",
        "FwMark",
        "Address",
        "MTU",
        "Table",
        "DNS",
        "PreUp",
        "PostUp",
        "PreDown",
        "PostDown",
        "SaveConfig",
    ),
    "peer": (
        "PublicKey",
        "PresharedKey",
        "PresharedKeyFile",
        "AllowedIPs",
        "Endpoint",
        "PersistentKeepalive",
    ),
    "tunnel": (
        "Datapath",
        "TunOffload",
        "TunTso",
        "TunUso",
        "UdpOffload",
        "UdpGso",
        "UdpGro",
        "Metrics",
    ),
}

KEYS: Final[dict[Section, frozenset[str]]] = {
    section: frozenset(key.lower() for key in keys) for section, keys in _SPELLINGS.items()
}
"""The keys of each section, in lower case."""

SPELLING: Final[dict[str, str]] = {key.lower(): key for keys in _SPELLINGS.values() for key in keys}
"""A key in lower case to its spelling in the manual."""

_NAME: Final = re.compile(r"[a-zA-Z0-9_=+.-]{1,15}")


def check_name(name: str) -> None:
    """Refuse, by a Mistake, a name that no interface can have."""
    # The kernel keeps "." and ".." for itself.
    if _NAME.fullmatch(name) is None or name in (".", ".."):
        raise Mistake(
            "an interface name of 1 to 15 letters, digits and _ = + . -",
            "rename the file to INTERFACE.conf, as in office.conf",
            found=quote(name),
        )
