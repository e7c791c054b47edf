"""Two hosts with tunnels between them, the doctor on either, and faults that are undone again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.support.doctoring import DOCTOR, IGNORED, NAME, SHORT, A, B, Net, conf_of
from tunnel.device.features import ENVIRONMENT_VARIABLE
from tunnel.io.gso import damages_equal_batches, kernel_version
from tunnel.lab import Lab
from tunnel.lab.peers import Node, OurEnd

__all__ = ["DOCTOR", "NAME", "SHORT", "A", "B", "Net", "net"]


@pytest.fixture(scope="package")
def net() -> Iterator[Net]:
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        with (a.etc / "hosts").open("a") as hosts:
            hosts.write(f"192.0.2.2 {NAME}\n")
        here = Node(a, (f"{A}/24", "fd77::1/64"), "192.0.2.1")
        there = Node(b, (f"{B}/24", "fd77::2/64"), NAME, routes=("10.88.0.0/24",))
        # /var is that of the machine.
        state = {"STATE_DIRECTORY": str(a.directory / "state")}
        one, other = OurEnd(here, conf_of(here, there), state), OurEnd(there, conf_of(there, here))
        made = Net(lab, one, other)
        made.a.up()
        made.b.up()
        yield made


if os.environ.get(ENVIRONMENT_VARIABLE):
    IGNORED.add("offloads_off")
if damages_equal_batches(kernel_version()):
    IGNORED.add("short_tails")
