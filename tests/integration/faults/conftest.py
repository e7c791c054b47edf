"""The networks that are broken; what a test breaks it puts right again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.fault_figures import Figures
from tests.support.fault_net import Net, Nets
from tunnel.lab import Lab


@pytest.fixture(scope="session")
def nets() -> Iterator[Nets]:
    """One lab for all tests that leave it as it was."""
    with Lab() as lab:
        yield Nets(lab)


def checked(net: Net) -> Iterator[Net]:
    """Packets pass at the end as they did at the start."""
    net.here.ping(net.b.node.address())
    yield net
    net.here.ping(net.b.node.address())


@pytest.fixture
def net(nets: Nets) -> Iterator[Net]:
    """By IPv4 outside."""
    yield from checked(nets.by(4))


@pytest.fixture
def net6(nets: Nets) -> Iterator[Net]:
    """By IPv6."""
    yield from checked(nets.by(6))


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Figures:
    """What this test measures is noted here, and printed at the end of the session."""
    return Figures(record_property)
