"""The codes of refusals are part of the protocol: docs/control.md lists them all."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import tunnel
from tunnel.control.connections import InternalError
from tunnel.errors import TunnelError

DOC = Path(__file__).parents[3] / "docs" / "control.md"

OF_NO_REQUEST = (
    # Programs and rooms that a daemon does not ask.
    "tunnel.bench",
    "tunnel.cli",
    "tunnel.doctor",
    "tunnel.lab",
    "tunnel.pair",
    "tunnel.systemd",
    "tunnel.web",
    "tunnel.wg_quick",
    # Other protocols.
    "tunnel.control.http",
    "tunnel.control.uapi",
    # What a trace raises where it runs: in the client.
    "tunnel.trace",
)

NEVER_AN_ANSWER = {
    "already_running",  # raised where there is no socket yet
    "datapath",  # those of single packets, or of coming up
    "io",
    "packet_refused",
    "session_exhausted",
    "session_record",  # then the sessions begin again
    "slot_taken",  # the daemon takes another slot
    "tun_deleted",  # ends the daemon
    "tun_merge_refused",
    "tun_write_dropped",
    "unknown_datapath",
}

OF_NO_CLASS = {"version", "unknown_method", "busy"}
"""Given by the control socket itself."""

OF_THE_CLIENT = {"not_running", "permission", "closed", "timeout"}
"""Never sent; raised by the client."""


def _codes(kind: type[TunnelError]) -> Iterator[tuple[str, str]]:
    yield kind.__module__, kind.code
    for inner in kind.__subclasses__():
        yield from _codes(inner)


def test_docs_list_every_code() -> None:
    for module in pkgutil.walk_packages(tunnel.__path__, "tunnel."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    from_classes = {
        code for module, code in _codes(TunnelError) if not module.startswith(OF_NO_REQUEST)
    }
    assert InternalError.code in from_classes
    table = DOC.read_text().split("| code | meaning |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    assert from_classes >= NEVER_AN_ANSWER
    assert sorted(listed) == sorted(from_classes - NEVER_AN_ANSWER | OF_NO_CLASS)


def test_docs_name_the_codes_of_the_client() -> None:
    text = DOC.read_text()
    assert [code for code in OF_THE_CLIENT if f"`{code}`" not in text] == []
