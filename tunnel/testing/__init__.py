"""Hosts, wires and tunnels for the tests of programs that need a network.

    with testing.Lab() as lab:
        two = testing.two_hosts(lab)
        two.a.ping("192.0.2.2")

`tunnel.testing.plugin` has fixtures of the same for pytest, which finds it by itself. Hosts are
network namespaces, and are gone afterwards whatever happens. That needs root, or

    python -m tunnel.testing pytest

which runs a command as root of namespaces of its own. docs/python.md has examples.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunnel.lab import (
        Cable,
        Host,
        HostProcess,
        Lab,
        LabError,
        LabTimeoutError,
        LabUnavailableError,
        Router,
        Switch,
    )
    from tunnel.lab.peers import Node, OurEnd, mesh, render_conf
    from tunnel.lab.weather import Faults
    from tunnel.testing.hosts import (
        LossyWire,
        TunnelPair,
        TwoHosts,
        lossy_wire,
        tunnel_pair,
        two_hosts,
    )

__all__ = [
    "Cable",
    "Faults",
    "Host",
    "HostProcess",
    "Lab",
    "LabError",
    "LabTimeoutError",
    "LabUnavailableError",
    "LossyWire",
    "Node",
    "OurEnd",
    "Router",
    "Switch",
    "TunnelPair",
    "TwoHosts",
    "lossy_wire",
    "mesh",
    "render_conf",
    "tunnel_pair",
    "two_hosts",
]

_PLACES = {
    **dict.fromkeys(("Node", "OurEnd", "mesh", "render_conf"), "tunnel.lab.peers"),
    "Faults": "tunnel.lab.weather",
    **dict.fromkeys(
        ("LossyWire", "TunnelPair", "TwoHosts", "lossy_wire", "tunnel_pair", "two_hosts"),
        "tunnel.testing.hosts",
    ),
}


def __getattr__(name: str) -> Any:
    """Load it when it is asked for: pytest loads the plugin for tests that need none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES.get(name, "tunnel.lab")), name)


def __dir__() -> list[str]:
    return __all__
