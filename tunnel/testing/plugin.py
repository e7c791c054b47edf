"""Fixtures for pytest, which loads this module by itself where the package is installed.

A run that uses none of them loads only this file: all else is loaded by the fixtures.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from tunnel.testing import Lab, LossyWire, TunnelPair, TwoHosts


class MakeWire(Protocol):
    """Makes the two hosts and the wire; see `tunnel.testing.Faults` for the arguments."""

    def __call__(
        self,
        *,
        loss: float = 0.0,
        delay: float = 0.0,
        jitter: float = 0.0,
        duplicate: float = 0.0,
        corrupt: float = 0.0,
        reorder: float = 0.0,
        rebind: float = 0.0,
        seed: int = 0,
    ) -> LossyWire:
        """Call it once per test. Probabilities are between 0 and 1, times in seconds."""


@functools.cache
def _missing() -> str | None:
    """Why there can be no hosts here; None if there can be."""
    from tunnel.lab import rootless
    from tunnel.lab.errors import LabUnavailableError

    try:
        rootless.check()
    except LabUnavailableError as error:
        return str(error)
    if rootless.is_needed():
        return "only root can make hosts: python -m tunnel.testing pytest"
    return None


@pytest.fixture
def tunnel_lab() -> Iterator[Lab]:
    """An empty lab (`tunnel.testing.Lab`), taken down after the test; skipped where none can be."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    from tunnel.testing import Lab

    with Lab() as lab:
        yield lab


@pytest.fixture
def tunnel_hosts(tunnel_lab: Lab) -> TwoHosts:
    """Hosts a (192.0.2.1, 2001:db8::1) and b (192.0.2.2, 2001:db8::2) on one cable."""
    from tunnel.testing import two_hosts

    return two_hosts(tunnel_lab)


@pytest.fixture
def tunnel_pair(tunnel_hosts: TwoHosts) -> TunnelPair:
    """A tunnel between `tunnel_hosts` that is up: 10.77.0.1 and fd77::1 at a, .2 and ::2 at b."""
    from tunnel import testing

    return testing.tunnel_pair(tunnel_hosts.a, tunnel_hosts.b)


@pytest.fixture
def tunnel_wire(tunnel_lab: Lab) -> Iterator[MakeWire]:
    """A function that makes hosts a and b on a bad wire, as in `tunnel_wire(loss=0.05)`."""
    from tunnel.testing import Faults, lossy_wire

    with contextlib.ExitStack() as stack:

        def make(*, seed: int = 0, **faults: float) -> LossyWire:
            return stack.enter_context(lossy_wire(tunnel_lab, Faults(**faults), seed=seed))

        yield make
