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
DATAPATHS: Final[Mapping[str, str]] = {
    "native": "tunnel.datapath._native",
    "python": "tunnel.datapath.reference",
}
"""The module of each datapath by its name, the preferred one first."""


class Datapath(NamedTuple):
    """A datapath that can be used.

    name        "native" or "python".
    session     makes a session.
    ledger      makes a ledger for its sessions.
    check_mac1  tells handshake messages from forgeries by those who do not know our key.
    check_mac2  tells those from senders that use the cookie they were sent.
    pump        makes a pump; None if it has none.
    identity    makes the handshakes of a private key; None if the protocol's own are to be used.
    note        why it is not the preferred one; empty if it is, or if it was asked for by name.
    """

    name: str
    session: SessionFactory
    ledger: LedgerFactory
    check_mac1: MacCheck
    check_mac2: MacCheck
    pump: Callable[[], Pump] | None
    identity: "type[_native.Identity] | None"
    note: str


def load(name: str | None = None) -> Datapath:
    """Return the datapath called `name`.

    With None the environment variable TUNNEL_DATAPATH names it; if that is unset or empty, it is
    the first of `DATAPATHS` that can be imported.

    Raises UnknownDatapathError for a name that does not exist and for one that cannot be imported.
    """
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
            return _load(candidate, module_name, note)
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


def _load(name: str, module_name: str, note: str = "") -> Datapath:
    """The datapath of a module; ImportError if it is not there, or was built from other sources."""
    module = importlib.import_module(module_name)
    try:
        return Datapath(
            name,
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
