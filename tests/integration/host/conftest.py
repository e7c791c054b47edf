"""Network namespaces for the tests of the host room: one each, removed whatever happens."""

from collections.abc import Iterator

import pytest

from tests.support.host_namespace import Namespace, new_namespace


@pytest.fixture
def other() -> Iterator[Namespace]:
    """An empty namespace."""
    with new_namespace() as space:
        yield space


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace with lo, `out0` (192.0.2.1/24, 2001:db8::1/64, default routes) and tun `tun0`."""
    with new_namespace() as space:
        space.ip("link", "set", "lo", "up")
        space.ip("link", "add", "out0", "type", "veth", "peer", "name", "out1")
        for link in ("out0", "out1"):
            space.ip("link", "set", link, "addrgenmode", "none", "up")
        space.ip("address", "add", "192.0.2.1/24", "dev", "out0")
        space.ip("address", "add", "2001:db8::1/64", "dev", "out0", "nodad")
        space.ip("route", "add", "default", "via", "192.0.2.2")
        space.ip("route", "add", "default", "via", "2001:db8::2")
        # The kernel may copy it from the first namespace.
        space.run("sysctl", "-q", "-w", "net.ipv4.conf.all.src_valid_mark=0")
        space.add_tun("tun0")
        yield space
