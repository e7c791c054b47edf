"""Hosts in network namespaces joined by veth, for the CLI, the benchmark and the tests."""

from tunnel.lab.errors import LabError, LabTimeoutError, LabUnavailableError
from tunnel.lab.host import Host, HostAddress
from tunnel.lab.process import HostProcess, wait_for
from tunnel.lab.topology import Cable, Lab, Router, Switch

__all__ = [
    "Cable",
    "Host",
    "HostAddress",
    "HostProcess",
    "Lab",
    "LabError",
    "LabTimeoutError",
    "LabUnavailableError",
    "Router",
    "Switch",
    "wait_for",
]
