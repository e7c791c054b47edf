"""Which process holds a UDP port."""

from __future__ import annotations

import os
import socket

import pytest

from tunnel.linux.ports import udp_holder


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_holder_of_a_port_is_named_while_it_holds_it(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        assert udp_holder(port).endswith(f" (process {os.getpid()})")
    assert udp_holder(port) == ""
