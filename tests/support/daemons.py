"""What tests do with an end whose daemon runs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tests.support.pairs import remains as remains_now
from tunnel.lab import Host, LabTimeoutError
from tunnel.lab.peers import OurEnd


def remains(host: Host) -> list[str]:
    """What a tunnel left behind, once its process has ended: that comes just after its last act."""
    with contextlib.suppress(LabTimeoutError):
        host.wait_for(lambda: not host.pids(), 3, "the processes to end")
    return remains_now(host)


def status(end: OurEnd) -> dict[str, Any]:
    """What `tunnel show` says of the end."""
    (found,) = json.loads(end.tunnel("show", end.node.interface, "--json"))
    assert isinstance(found, dict)
    return found


def rewrite(end: OurEnd, old: str, new: str) -> None:
    """Replace a piece of the end's conf that is there."""
    text = end.conf.read_text()
    assert old in text
    end.conf.write_text(text.replace(old, new))
