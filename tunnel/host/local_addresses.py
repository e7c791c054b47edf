"""Which addresses are this machine's own, followed as they come and go."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Self

from tunnel.host.rtnetlink import rtnetlink, step

_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100
_BUFFER = 65536


class LocalAddresses:
    """A set of packed addresses, that of the namespace it is made in; use as a context manager.

    Those of all interfaces, not those that only a `local` route adds. Raises HostError when the
    kernel refuses.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            self._socket.setblocking(False)
            # Before they are read, so that no change falls in between.
            self._socket.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
            self._read()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __contains__(self, address: bytes) -> bool:
        return address in self._addresses

    def refresh(self) -> None:
        """Take up what has changed. Costs little when nothing has."""
        changed = False
        while True:
            try:
                self._socket.recv(_BUFFER)
            except BlockingIOError:
                break
            except OSError:
                pass  # messages were lost, so something has changed
            changed = True
        if changed:
            self._read()

    def _read(self) -> None:
        found = set()
        with rtnetlink() as netlink, step("list", "addresses"):
            for message in netlink.addr("dump"):
                text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                found.add(ip_address(text).packed)
        self._addresses = found
