"""Pure functions over buffers: split, seal, open, coalesce.

Two implementations of one interface (`interface.Session`): the Python reference, and a compiled
twin that is there if the installation found a Rust compiler. `load` chooses.
"""

import importlib
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import DatapathError, SessionExhausted, UnknownDatapathError
from tunnel.datapath.interface import (
    OPEN_OUT_SIZE,
    SEAL_OUT_SIZE,
    Batch,
    Ledger,
    LedgerFactory,
    MacCheck,
    Offload,
    Opened,
    Place,
    Sealed,
    Session,
    SessionFactory,
)
from tunnel.datapath.pump import Pump
from tunnel.datapath.virtio import VIRTIO_NET_HDR_LEN

if TYPE_CHECKING:
    from tunnel.datapath import _native

__all__ = [
    "CIPHERS",
    "CIPHER_VARIABLE",
    "DATAPATHS",
    "ENVIRONMENT_VARIABLE",
    "OPEN_OUT_SIZE",
    "SEAL_OUT_SIZE",
    "VIRTIO_NET_HDR_LEN",
    "Batch",
    "Datapath",
    "DatapathDrop",
    "DatapathError",
    "Ledger",
    "LedgerFactory",
    "MacCheck",
    "Offload",
    "Opened",
    "Place",
    "Pump",
    "Sealed",
    "Session",
    "SessionExhausted",
    "SessionFactory",
    "UnknownDatapathError",
    "available",
    "disable_encryption",
    "encryption_is_disabled",
    "load",
]

ENVIRONMENT_VARIABLE: Final = "TUNNEL_DATAPATH"
CIPHER_VARIABLE: Final = "TUNNEL_CIPHER"
CIPHERS: Final = ("ipsec-mb", "aws-lc")
"""Whose ChaCha20-Poly1305 the compiled datapath can use, the preferred one first."""
DATAPATHS: Final[Mapping[str, str]] = {
    "native": "tunnel.datapath._native",
    "python": "tunnel.datapath.reference",
}
"""The module of each datapath by its name, the preferred one first."""


class Datapath(NamedTuple):
    """A datapath that can be used.

    name        "native" or "python".
    cipher      whose ChaCha20-Poly1305 it uses, with the version if there are several.
    session     makes a session.
    ledger      makes a ledger for its sessions.
    check_mac1  tells handshake messages from forgeries by those who do not know our key.
    check_mac2  tells those from senders that use the cookie they were sent.
    pump        makes a pump; None if it has none.
    identity    makes the handshakes of a private key; None if the protocol's own are to be used.
    note        why it is not the preferred one; empty if it is, or if it was asked for by name.
    """

    name: str
    cipher: str
    session: SessionFactory
    ledger: LedgerFactory
    check_mac1: MacCheck
    check_mac2: MacCheck
    pump: Callable[[], Pump] | None
    identity: "type[_native.Identity] | None"
    note: str


def load(name: str | None = None, cipher: str | None = None) -> Datapath:
    """Return the datapath called `name`, whose sessions use `cipher` from here on.

    With None the environment variables TUNNEL_DATAPATH and TUNNEL_CIPHER name them; if that is
    unset or empty, it is the first of `DATAPATHS` that can be imported, and of `CIPHERS` that can
    be used. The one in Python has one cipher, whatever it is asked for.

    Raises UnknownDatapathError for a name that does not exist and for one that cannot be used.
    """
    if cipher is None:
        cipher = os.environ.get(CIPHER_VARIABLE) or None
    if cipher is not None and cipher not in CIPHERS:
        raise UnknownDatapathError(
            f"{CIPHER_VARIABLE}: found {cipher!r}, expected one of {', '.join(CIPHERS)}; "
            "or leave it unset"
        )
    place = "the datapath's name"
    if name is None:
        name = os.environ.get(ENVIRONMENT_VARIABLE) or None
        place = ENVIRONMENT_VARIABLE
    if name is not None and name not in DATAPATHS:
        raise UnknownDatapathError(
            f"{place}: found {name!r}, expected one of {', '.join(DATAPATHS)}; or leave it unset"
        )
    note = ""
    for candidate, module_name in DATAPATHS.items():
        if name not in (None, candidate):
            continue
        try:
            return _load(candidate, module_name, note, cipher)
        except ValueError as error:
            raise UnknownDatapathError(
                f"{CIPHER_VARIABLE} asks for {cipher!r}, but {error}; unset it"
            ) from None
        except ImportError as error:
            note = f"the {candidate} datapath is not installed ({error})"
    raise UnknownDatapathError(
        f"{place} asks for {name!r}, but {note}; "
        "unset it, or install tunnel from its sources with cargo on the PATH"
    )


def available() -> list[str]:
    """The names of the datapaths that can be imported here, the preferred one first."""
    found = []
    for name, module_name in DATAPATHS.items():
        try:
            _load(name, module_name)
        except ImportError:
            continue
        found.append(name)
    return found


_unencrypted = False


def disable_encryption() -> None:
    """Let all sessions of this process go without encryption and authentication, from here on.

    For `tunnel bench` alone, which starts a program of its own for it: no setting leads here.
    Raises ImportError where the compiled datapath, which alone can do it, is not installed.
    """
    global _unencrypted
    importlib.import_module(DATAPATHS["native"]).disable_encryption()
    _unencrypted = True


def encryption_is_disabled() -> bool:
    """Whether `disable_encryption` was called in this process."""
    return _unencrypted


def _load(name: str, module_name: str, note: str = "", cipher: str | None = None) -> Datapath:
    """The datapath of a module; ImportError if it is not there, or was built from other sources.

    ValueError if it cannot use that cipher.
    """
    module = importlib.import_module(module_name)
    try:
        return Datapath(
            name,
            cast(Callable[[str | None], str], module.use_cipher)(cipher),
            cast(SessionFactory, module.Session),
            cast(LedgerFactory, module.Ledger),
            cast(MacCheck, module.check_mac1),
            cast(MacCheck, module.check_mac2),
            cast(Callable[[], Pump] | None, module.Pump),
            cast("type[_native.Identity] | None", module.Identity),
            note,
        )
    except AttributeError as error:
        raise ImportError(f"{error}; it was built from other sources: build it again") from None
