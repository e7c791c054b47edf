"""The pair of UDP sockets, IPv4 and IPv6 on one port, that a tunnel's outer packets use.

Sockets are opened in the network namespace of the calling thread (also by `set_port`) and stay
there, wherever the TUN device is moved.
"""

import contextlib
import errno
import logging
import socket
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final, Self

import trio

from tunnel.io.drops import IoDrop
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.io.udp_socket import BUFFER_SIZE, Readable, Received, Sent, Skip, UdpSocket, Writable
from tunnel.linux import bpf, kernel
from tunnel.linux.ports import port_holder

logger = logging.getLogger("tunnel.io")

FAMILIES: Final = (socket.AF_INET, socket.AF_INET6)
_PORT_TRIES = 100
_NO_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL})


class Udp:
    """The sockets of one tunnel. Make it with `Udp.open`; close it, or use `with`.

    For each family one task does: `await wait_readable(family)`, then `receive` until None. It
    works on through `set_port`: what had reached the old port is received first.

    `families` are those that are open; `port` and `fwmark` are the present ones. `gso` and `gro`
    say whether batches are in use on any socket. `generation` is another number whenever the
    sockets are others, or what is to be learnt from datagrams.
    """

    def __init__(self, *, ipv4: bool, ipv6: bool, gso: bool, gro: bool) -> None:
        self._wanted = [
            family for family, wanted in zip(FAMILIES, (ipv4, ipv6), strict=True) if wanted
        ]
        self._offloads = {"gso": gso, "gro": gro}
        self._sockets: dict[socket.AddressFamily, UdpSocket] = {}
        self._retired: dict[socket.AddressFamily, UdpSocket] = {}
        self._drops: Counter[IoDrop] = Counter()
        self._write_locks = {family: trio.Lock() for family in FAMILIES}
        self._replaced = trio.Event()
        self._closed = False
        self._moved: frozenset[tuple[bytes, bytes]] = frozenset()
        self._filter: Sequence[bpf.Instruction] = ()
        self.fwmark = 0
        self.port = 0
        self.generation = 0

    @classmethod
    def open(
        cls,
        port: int = 0,
        fwmark: int = 0,
        *,
        ipv4: bool = True,
        ipv6: bool = True,
        gso: bool = True,
        gro: bool = True,
    ) -> Self:
        """Bind both families to `port`, 0 for a random one, with `fwmark` (SO_MARK) if not 0.

        A family that the machine lacks is left out. `gso` and `gro` switch UDP_SEGMENT and
        UDP_GRO off. Raises UdpError: the port is taken, a mark without CAP_NET_ADMIN, no family.
        """
        udp = cls(ipv4=ipv4, ipv6=ipv6, gso=gso, gro=gro)
        udp._use(_open_sockets(udp._wanted, port, fwmark), fwmark)
        return udp

    @classmethod
    def adopt(cls, descriptors: Collection[int], *, gso: bool = True, gro: bool = True) -> Self:
        """Take over bound UDP sockets, one of a family and all on one port; ours to close then.

        A family that none of them has is left out until `set_port`. Raises UdpError if they are no
        such thing, and then leaves them to the caller.
        """
        sockets = [_adopted(descriptor) for descriptor in descriptors]
        ports = {sock.getsockname()[1] for sock in sockets}
        families = {sock.family for sock in sockets}
        if len(ports) != 1 or 0 in ports or len(families) != len(sockets):
            for sock in sockets:
                sock.detach()
            raise UdpError("the UDP sockets that were handed over are not a pair", errno.EINVAL)
        udp = cls(ipv4=True, ipv6=True, gso=gso, gro=gro)
        udp._use(sockets, _fwmark(sockets[0]))
        return udp

    def receive(
        self,
        family: socket.AddressFamily,
        buffer: Writable,
        start: int = 0,
        skip: Skip | None = None,
    ) -> Received | None:
        """Receive one batch of `family` into `buffer[start:]`; None when there is none now.

        See `UdpSocket.receive`. Raises trio.ClosedResourceError after `close`.
        """
        if self._retired:
            retired = self._retired.get(family)
            if retired is not None:
                received = retired.receive(buffer, start, skip)
                if received is not None:
                    return received
                self._bury(family)
        sock = self._sockets.get(family)
        if sock is None:
            self._check_open()
            return None
        return sock.receive(buffer, start, skip)

    def socket_of(self, family: socket.AddressFamily) -> UdpSocket | None:
        """The socket of `family` as it is now; None while there is none, or another to be read
        first."""
        return None if family in self._retired else self._sockets.get(family)

    def send(self, batch: Readable, stride: int, endpoint: Endpoint, tos: int = 0) -> Sent:
        """Send a batch of datagrams of `stride` bytes each to `endpoint`; see `UdpSocket.send`.

        Raises trio.ClosedResourceError after `close`, nothing else.
        """
        sock = self._sockets.get(endpoint.family)
        if sock is None:
            self._check_open()
            lost = -(-len(batch) // stride)
            self._drops[IoDrop.SEND_NO_FAMILY] += lost
            return Sent(drop=IoDrop.SEND_NO_FAMILY, dropped=lost)
        return sock.send(batch, stride, endpoint, tos)

    async def wait_readable(self, family: socket.AddressFamily) -> None:
        """Wait until `receive` may return something; also returns after `set_port`.

        While there is no socket of the family it waits for one. Raises trio.ClosedResourceError
        when the sockets are closed. One task per family may wait.
        """
        self._check_open()
        if family in self._retired:
            await trio.lowlevel.checkpoint()
            return
        sock = self._sockets.get(family)
        if sock is None:
            await self._replaced.wait()
            self._check_open()
            return
        try:
            await trio.lowlevel.wait_readable(sock.sock)
        except trio.ClosedResourceError:
            self._check_open()

    async def wait_writable(self, family: socket.AddressFamily) -> None:
        """Wait until `send` may take more; also returns after `set_port`.

        Any number of tasks may wait. Raises trio.ClosedResourceError after `close`.
        """
        async with self._write_locks[family]:
            self._check_open()
            sock = self._sockets.get(family)
            if sock is None:
                return
            try:
                await trio.lowlevel.wait_writable(sock.sock)
            except trio.ClosedResourceError:
                self._check_open()

    async def wait_moved(self, port: int) -> int:
        """Wait until the sockets are on another port than `port`, and return it.

        Raises trio.ClosedResourceError when they are closed.
        """
        while self.port == port:
            self._check_open()
            await self._replaced.wait()
        return self.port

    def set_port(self, port: int) -> None:
        """Move both sockets to `port` (0: a random one).

        Raises UdpError if the port is not available; then nothing has changed.
        """
        self._check_open()
        if port == self.port:
            return
        # A move back must not run into what is left of the last one.
        for family in list(self._retired):
            self._bury(family)
        self._use(_open_sockets(self._wanted, port, self.fwmark), self.fwmark)

    def set_fwmark(self, fwmark: int) -> None:
        """Mark all packets from now on (0: none); raises UdpError, and then nothing changed."""
        self._check_open()
        done = []
        try:
            for sock in self._sockets.values():
                _set_fwmark(sock.sock, fwmark)
                done.append(sock)
        except UdpError:
            for sock in done:
                _set_fwmark(sock.sock, self.fwmark)
            raise
        self.fwmark = fwmark

    def leave_source_open(self, pairs: frozenset[tuple[bytes, bytes]]) -> None:
        """From now on learn no source from datagrams of these (remote, our address) pairs.

        See `UdpSocket.leave_source_open`; addresses are packed.
        """
        self._moved = pairs
        self.generation += 1
        for sock in self._sockets.values():
            sock.leave_source_open(pairs)

    def set_filter(self, program: Sequence[bpf.Instruction]) -> None:
        """Let in by any socket only what `program` says; see `UdpSocket.set_filter`."""
        self._filter = program
        for sock in self._sockets.values():
            sock.set_filter(program)

    def queued_part(self) -> float:
        """How full the fullest receive queue is, from 0 to 1."""
        return max((sock.queued_part() for sock in self._sockets.values()), default=0.0)

    def descriptors(self) -> Mapping[socket.AddressFamily, int]:
        """The descriptor of each family's socket."""
        return {family: sock.sock.fileno() for family, sock in self._sockets.items()}

    @property
    def families(self) -> tuple[socket.AddressFamily, ...]:
        """The address families that have a socket."""
        return tuple(self._sockets)

    @property
    def gso(self) -> bool:
        """Whether batches leave in one call (UDP_SEGMENT)."""
        return any(sock.gso for sock in self._sockets.values())

    @property
    def gro(self) -> bool:
        """Whether batches arrive in one call (UDP_GRO)."""
        return any(sock.gro for sock in self._sockets.values())

    @property
    def drops(self) -> Counter[IoDrop]:
        """All losses so far by reason, in datagrams, with those of the kernel's queue."""
        drops = self._drops.copy()
        for sock in (*self._sockets.values(), *self._retired.values()):
            lost = sock.queue_drops()
            if lost:
                drops[IoDrop.RECEIVE_QUEUE_FULL] += lost
        return drops

    def queued(self) -> dict[str, int]:
        """Memory the kernel holds for what waits, in bytes, by direction: `in` and `out`."""
        waiting = {"in": 0, "out": 0}
        for sock in self._sockets.values():
            received, sent = sock.queued()
            waiting["in"] += received
            waiting["out"] += sent
        return waiting

    def close(self) -> None:
        """Close the sockets; idempotent. Waiting tasks end with trio.ClosedResourceError."""
        self._closed = True
        for family in list(self._retired):
            self._bury(family)
        for family, sock in list(self._sockets.items()):
            del self._sockets[family]
            self._retire(sock)
            self._bury(family)
        self._replaced.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("the UDP sockets are closed")

    def _use(self, sockets: Iterable[socket.socket], fwmark: int) -> None:
        new = {sock.family: UdpSocket(sock, self._drops, **self._offloads) for sock in sockets}
        for sock in new.values():
            sock.leave_source_open(self._moved)
            sock.set_filter(self._filter)
        old = self._sockets
        self._sockets = new
        self.port = next(iter(new.values())).port
        self.fwmark = fwmark
        self.generation += 1
        for sock in old.values():
            self._retire(sock)
        self._replaced.set()
        self._replaced = trio.Event()

    def _retire(self, sock: UdpSocket) -> None:
        """Wake the tasks that wait on the socket; keep it until what it has received is read."""
        self._retired[sock.family] = sock
        # Outside of trio (RuntimeError) no task can be waiting.
        with contextlib.suppress(RuntimeError):
            trio.lowlevel.notify_closing(sock.sock)

    def _bury(self, family: socket.AddressFamily) -> None:
        sock = self._retired.pop(family)
        self.generation += 1
        lost = sock.queue_drops()
        if lost:
            self._drops[IoDrop.RECEIVE_QUEUE_FULL] += lost
        sock.close()


def _open_sockets(
    families: list[socket.AddressFamily], port: int, fwmark: int
) -> list[socket.socket]:
    """Return a bound socket of each family that there is, all on one port."""
    for _ in range(_PORT_TRIES):
        sockets: list[socket.socket] = []
        number = port
        try:
            for family in families:
                sock = _open_socket(family, number, fwmark)
                if sock is not None:
                    sockets.append(sock)
                    number = sock.getsockname()[1]
        except BaseException as error:
            for sock in sockets:
                sock.close()
            # The random port of the first family may be taken in the other: draw again.
            if isinstance(error, UdpError) and error.errno == errno.EADDRINUSE and not port:
                continue
            raise
        if not sockets:
            raise UdpError(
                "this machine has no socket of the wanted address families (IPv4, IPv6)",
                errno.EAFNOSUPPORT,
            )
        return sockets
    raise UdpError("found no UDP port that is free in IPv4 and in IPv6", errno.EADDRINUSE)


def _open_socket(family: socket.AddressFamily, port: int, fwmark: int) -> socket.socket | None:
    """Open, configure and bind one socket; None when the machine lacks the family."""
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_FAMILY:
            return None
        raise _udp_error("cannot open a UDP socket", error) from error
    try:
        if fwmark:
            _set_fwmark(sock, fwmark)
        _configure(sock, family)
        sock.bind(("0.0.0.0" if family == socket.AF_INET else "::", port))
    except OSError as error:
        sock.close()
        if error.errno in _NO_FAMILY:
            return None
        if error.errno == errno.EADDRINUSE:
            raise _udp_error(
                f"UDP port {port} is taken{_holder(port)}",
                error,
                "stop what listens there, or choose another as ListenPort",
            ) from error
        remedy = ""
        if error.errno == errno.EACCES:
            remedy = (
                "a daemon that came up with another port may not take one of the low ones: put "
                "it into the conf as ListenPort, then restart the tunnel"
            )
        raise _udp_error(f"cannot bind UDP port {port}", error, remedy) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _adopted(descriptor: int) -> socket.socket:
    """A socket that was handed over; its options were set by the process that opened it."""
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise _udp_error(f"descriptor {descriptor} is no socket", error) from error
    if sock.family not in FAMILIES or sock.type != socket.SOCK_DGRAM:
        sock.detach()
        raise UdpError(f"descriptor {descriptor} is no UDP socket", errno.EINVAL)
    sock.setblocking(False)
    sock.set_inheritable(False)
    # As a new one has them: the filter is that of an overload which this process knows nothing of.
    with contextlib.suppress(OSError):
        bpf.detach(sock)
    with contextlib.suppress(OSError):
        sock.setsockopt(kernel.SOL_UDP, kernel.UDP_GRO, 0)
    return sock


def _fwmark(sock: socket.socket) -> int:
    mark = sock.getsockopt(socket.SOL_SOCKET, kernel.SO_MARK, 4)
    return int.from_bytes(mark, sys.byteorder)


def _configure(sock: socket.socket, family: socket.AddressFamily) -> None:
    if family == socket.AF_INET:
        level = socket.IPPROTO_IP
        options = {
            kernel.IP_PKTINFO: 1,
            kernel.IP_RECVTOS: 1,
            # The default discovers the path MTU and so loses every full packet in a black hole;
            # outer packets may be fragmented instead.
            kernel.IP_MTU_DISCOVER: kernel.IP_PMTUDISC_DONT,
        }
    else:
        level = socket.IPPROTO_IPV6
        options = {
            socket.IPV6_V6ONLY: 1,
            kernel.IPV6_RECVPKTINFO: 1,
            kernel.IPV6_RECVTCLASS: 1,
            kernel.IPV6_MTU_DISCOVER: kernel.IPV6_PMTUDISC_DONT,
        }
    for option, value in options.items():
        sock.setsockopt(level, option, value)
    for force, polite in (
        (kernel.SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (kernel.SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, force, BUFFER_SIZE)
        except OSError:
            # Without CAP_NET_ADMIN: as much as net.core.rmem_max and wmem_max allow.
            sock.setsockopt(socket.SOL_SOCKET, polite, BUFFER_SIZE)


def _set_fwmark(sock: socket.socket, fwmark: int) -> None:
    if not 0 <= fwmark <= 0xFFFF_FFFF:
        raise UdpError(f"a firewall mark has 32 bits: {fwmark} is out of range", errno.EINVAL)
    try:
        # The kernel takes the 32 bits as an int.
        value = fwmark.to_bytes(4, sys.byteorder)
        sock.setsockopt(socket.SOL_SOCKET, kernel.SO_MARK, value)
    except OSError as error:
        raise _udp_error(
            f"cannot set the firewall mark {fwmark:#x}", error, "this needs CAP_NET_ADMIN"
        ) from error


def _udp_error(what: str, error: OSError, remedy: str = "") -> UdpError:
    return UdpError(f"{what} ({error.strerror})", error.errno or 0, remedy)


def _holder(port: int) -> str:
    found = port_holder(port)
    return f" by {found}" if found else ""
