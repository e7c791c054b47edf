"""Which process holds a port."""

from __future__ import annotations

import os
import socket
from typing import Literal

import pytest

from tunnel.linux.ports import port_holder


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_holder_of_a_port_is_named_while_it_holds_it(family: socket.AddressFamily) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        assert port_holder(port).endswith(f" (process {os.getpid()})")
    assert port_holder(port) == ""


def test_of_tcp_it_is_the_one_that_listens() -> None:
    protocol: Literal["tcp"] = "tcp"
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        assert port_holder(port, protocol).endswith(f" (process {os.getpid()})")
        assert port_holder(port) == ""
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = sock.accept()
    with client, served:
        # Its connection lives on, with that port; nothing listens.
        assert port_holder(port, protocol) == ""
