"""Hosts in network namespaces joined by veth, for the CLI, the benchmark and the tests."""

from tunnel.lab.errors import LabError, LabTimeoutError, LabUnavailableError
from tunnel.lab.host import Host, HostAddress
from tunnel.lab.process import HostProcess, wait_for
from tunnel.lab.topology import Lab, Link, Router, Switch

__all__ = [
    "Host",
    "HostAddress",
    "HostProcess",
    "Lab",
    "LabError",
    "LabTimeoutError",
    "LabUnavailableError",
    "Link",
    "Router",
    "Switch",
    "wait_for",
]
