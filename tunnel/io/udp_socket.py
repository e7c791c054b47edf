"""One UDP socket of one address family: batches in and out, and what to do when it refuses.

A *batch* is one buffer of datagrams of `stride` bytes each, of which the last may be shorter:
what the kernel takes by UDP_SEGMENT (GSO) and gives by UDP_GRO in a single call.
Sources: udp(7), ip(7), ipv6(7); linux/udp.h for the limits.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias, cast

from tunnel.io import cmsg
from tunnel.io.drops import SEND_REASONS, IoDrop
from tunnel.io.endpoint import ControlMessage, Endpoint, SockAddr, Source
from tunnel.linux import bpf, kernel

logger = logging.getLogger("tunnel.io")

Readable: TypeAlias = bytes | bytearray | memoryview
Writable: TypeAlias = bytearray | memoryview

Skip: TypeAlias = Callable[[Writable, int, SockAddr], bool]
"""Whether a batch is of no use: it lies at the start of the buffer, so long, from there."""

RECEIVE_SIZE: Final = 65_536
"""Room in bytes that `UdpSocket.receive` wants: the largest batch that GRO builds."""
MAX_SEGMENTS: Final = 64
MAX_BATCH: Final = 65_507
BUFFER_SIZE: Final = 7 << 20

# As plain numbers: the flags of `socket` are enums, and joining two costs more than a receive.
_TRUNCATED: Final = int(socket.MSG_TRUNC)
_CONTROL_TRUNCATED: Final = int(socket.MSG_CTRUNC)
_CONTROL_SIZE: Final = cmsg.RECEIVE_SIZE
_UNUSABLE: Final = _TRUNCATED | _CONTROL_TRUNCATED

_CACHE_LIMIT = 4096
_RECEIVE_TRIES = 16
_SKIP_TRIES = 128
_GSO_PAUSE = 256  # batches to one address that are sent one by one before GSO is tried again

# The local address or the interface of our choice is not there any more. Linux 6.18 answers
# ENETUNREACH where older kernels answer EINVAL.
_SOURCE_GONE = frozenset(
    {
        errno.EINVAL,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.ENODEV,
        errno.ENETDOWN,
        errno.EHOSTUNREACH,
    }
)
# EIO: the interface cannot checksum. EINVAL, EMSGSIZE: a segment exceeds the path MTU, since
# the kernel does not fragment what it segments.
_GSO_REFUSED = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE})
# Left over from an earlier datagram, reported by the next call.
_PENDING = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EPROTO})
_RECEIVE_ERRORS = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EMSGSIZE,
        errno.EACCES,
        errno.EPERM,
        errno.EPROTO,
        errno.ENOBUFS,
        errno.ENOMEM,
    }
)


def packed(sockaddr: SockAddr) -> bytes:
    """Address, 4 or 16 bytes, and port, 2 bytes: all that a cookie is bound to."""
    host, port = sockaddr[:2]
    if len(sockaddr) == 2:
        return socket.inet_aton(host) + port.to_bytes(2, "big")
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0]) + port.to_bytes(2, "big")


class Origin:
    """Where a batch came from and which of our addresses it reached.

    Nothing is made or kept for a source until something of it proves to be worth it, so that a
    flood from forged addresses is cheap: `endpoint` is made when it is asked for, and `learn` keeps
    it. From then on it is the identical object while the source sends from and to the same
    addresses.
    """

    __slots__ = ("_endpoint", "_key", "_owner", "sockaddr", "source")

    def __init__(
        self,
        sockaddr: SockAddr,
        source: Source | None,
        owner: UdpSocket | None = None,
        key: tuple[object, ...] = (),
    ) -> None:
        self.sockaddr = sockaddr
        self.source = source
        self._owner = owner
        self._key = key
        self._endpoint: Endpoint | None = None

    @property
    def packed(self) -> bytes:
        """The address, 4 or 16 bytes, and the port, 2 bytes."""
        return packed(self.sockaddr)

    @property
    def endpoint(self) -> Endpoint:
        """Where to answer."""
        if self._endpoint is None:
            endpoint = Endpoint.from_sockaddr(self.sockaddr, self.source)
            left_open = self._owner is not None and self._owner.leaves_open(endpoint)
            self._endpoint = endpoint.without_source() if left_open else endpoint
        return self._endpoint

    def learn(self) -> Endpoint:
        """Remember the source, whose batch was authentic; its endpoint."""
        if self._owner is not None:
            self._endpoint = self._owner.learn(self, self._key)
            self._owner = None
        return self.endpoint


class Received(NamedTuple):
    """A batch: `length` bytes in datagrams of `stride` each, from `origin`.

    `ecn` are the two ECN bits (RFC 3168) of the outer header.
    """

    length: int
    stride: int
    origin: Origin
    ecn: int


class Sent(NamedTuple):
    """What became of a send; `SENT` itself, the identical object, when there is nothing to say.

    `rest`: so many bytes at the end were not taken since the socket is full; await
    `wait_writable` and send them again. `drop`, `dropped`: so many datagrams were lost, the last
    of them for that reason (counted already). `endpoint`: use this one from now on; its source
    address was gone, and the kernel chose another.
    """

    rest: int = 0
    drop: IoDrop | None = None
    dropped: int = 0
    endpoint: Endpoint | None = None


SENT: Final = Sent()


def segments_per_batch(stride: int, tail: int = 0) -> int:
    """How many datagrams of `stride` bytes leave in one call at most, with one of `tail` bytes
    behind them if that is not 0.
    """
    return max(1, min(MAX_SEGMENTS - bool(tail), (MAX_BATCH - tail) // stride))


class UdpSocket:
    """Sends and receives batches on a bound, non-blocking socket that it owns from now on.

    `gso` and `gro` say what is in use: what was asked for and the kernel has; `gso` goes off at
    the first EIO. `drops` is the counter that losses are added to.
    """

    def __init__(
        self, sock: socket.socket, drops: Counter[IoDrop], *, gso: bool = True, gro: bool = True
    ) -> None:
        self.sock = sock
        self.family = socket.AddressFamily(sock.family)
        self.port: int = sock.getsockname()[1]
        self.gso = gso and _has_gso(sock)
        self.gro = gro and _set_gro(sock)
        self._drops = drops
        self._tos = cmsg.tos_messages(self.family)
        self._segment: dict[int, ControlMessage] = {}
        self._known: dict[tuple[object, ...], tuple[Origin, int, int]] = {}
        self._endpoints: dict[tuple[object, ...], Endpoint] = {}
        self._moved: frozenset[tuple[bytes, bytes]] = frozenset()
        self._infos: dict[tuple[object, ...], cmsg.ReceiveInfo] = {}
        self._filtered = False
        self._queue_drops = 0
        self._gso_pause: dict[SockAddr, tuple[int, int]] = {}
        self._gso_logged: set[SockAddr] = set()
        # What is the same for most of the packets is looked up once.
        self._recvmsg_into, self._sendmsg = sock.recvmsg_into, sock.sendmsg
        self._single_to: Endpoint | None = None
        self._single_tos = 0
        self._single_control: tuple[ControlMessage, ...] = ()

    # ----- receive

    def receive(
        self, buffer: Writable, start: int = 0, skip: Skip | None = None
    ) -> Received | None:
        """Receive one batch into `buffer[start:]`, which must have room for RECEIVE_SIZE bytes.

        Returns None when there is none now. Datagrams that cannot be used are counted and
        skipped, and so are batches that `skip` says yes to; a bounded number of them in one call,
        which then returns None, too. Raises OSError only if the socket itself is broken.
        """
        window = memoryview(buffer)[start:] if start else buffer
        if len(window) < RECEIVE_SIZE:
            raise ValueError(f"a batch needs room for {RECEIVE_SIZE} bytes, not {len(window)}")
        for _ in range(_RECEIVE_TRIES if skip is None else _SKIP_TRIES):
            try:
                length, messages, flags, sockaddr = self._recvmsg_into((window,), _CONTROL_SIZE)
            except BlockingIOError:
                return None
            except OSError as error:
                self.handle_receive_error(error)
                continue
            received = self.sort(window, length, messages, flags, sockaddr, skip)
            if received is not None:
                return received
        return None

    def handle_receive_error(self, error: OSError) -> None:
        """Count an ICMP error that was reported in place of a datagram; raise any other."""
        if error.errno not in _RECEIVE_ERRORS:
            raise error
        self._drops[IoDrop.RECEIVE_ERROR] += 1

    def sort(
        self,
        window: Writable,
        length: int,
        messages: Sequence[ControlMessage],
        flags: int,
        sockaddr: SockAddr,
        skip: Skip | None,
    ) -> Received | None:
        """What `recvmsg_into` gave and put into `window`; None if that is of no use (counted)."""
        if flags & _UNUSABLE or not length:
            self._drops[_why_unusable(flags)] += 1
            return None
        if skip is not None and skip(window, length, sockaddr):
            return None
        if not sockaddr[1]:
            self._drops[IoDrop.RECEIVE_NO_PORT] += 1
            return None
        origin, stride, ecn = self._sender(sockaddr, messages)
        return Received(length, stride or length, origin, ecn)

    def origin(self, sockaddr: SockAddr, messages: Sequence[ControlMessage]) -> Origin:
        """The origin of a datagram, by what `recvmsg_into` gives with it."""
        return self._sender(sockaddr, messages)[0]

    def _sender(
        self, sockaddr: SockAddr, messages: Sequence[ControlMessage]
    ) -> tuple[Origin, int, int]:
        """The origin of a batch, its stride (0 for a single datagram) and its ECN bits."""
        # The raw control messages are the key: parsing happens once per peer and batch size.
        key = (sockaddr, *messages)
        known = self._known.get(key)
        if known is not None:
            return known
        source, stride, ecn = self._info(key[1:])
        return Origin(sockaddr, source, self, key), stride, ecn

    def learn(self, origin: Origin, key: tuple[object, ...]) -> Endpoint:
        """Keep what was made for `origin`, whose batches come with that key; its endpoint."""
        if len(self._endpoints) >= _CACHE_LIMIT:
            self._endpoints.clear()
        if len(self._known) >= _CACHE_LIMIT:
            self._known.clear()
        _, stride, ecn = self._info(key[1:])
        self._known[key] = (origin, stride, ecn)
        return self._endpoints.setdefault((origin.sockaddr, origin.source), origin.endpoint)

    def _info(self, messages: tuple[object, ...]) -> cmsg.ReceiveInfo:
        """What control messages say. They are the same for all sources, so this is looked up."""
        info = self._infos.get(messages)
        if info is None:
            if len(self._infos) >= _CACHE_LIMIT:
                self._infos.clear()
            info = self._infos[messages] = cmsg.parse(cast(tuple[ControlMessage, ...], messages))
        return info

    def leave_source_open(self, pairs: frozenset[tuple[bytes, bytes]]) -> None:
        """Learn no source from datagrams of these remote addresses to these addresses of ours.

        They were on their way when the route to the peer moved. All that was learnt before is
        forgotten.
        """
        self._moved = pairs
        self._known.clear()
        self._endpoints.clear()

    def leaves_open(self, endpoint: Endpoint) -> bool:
        """Whether the source of `endpoint` is one that is not to be learnt."""
        source = endpoint.source
        return source is not None and (endpoint.address, source.address) in self._moved

    def queue_drops(self) -> int:
        """Return how many datagrams the kernel's receive queue of this socket had no room for.

        It is the counter of SO_RXQ_OVFL, which has 32 bits and begins again at 0. Asked for, not
        received with each datagram: then no two would have the same control messages.
        """
        memory = self._memory()
        if memory is not None:
            count = memory[kernel.SK_MEMINFO_DROPS]
            self._queue_drops += count - self._queue_drops & 0xFFFF_FFFF
        return self._queue_drops

    def set_filter(self, program: Sequence[bpf.Instruction]) -> None:
        """From now on let in only what `program` says, from the UDP header on; empty: everything.

        What is kept out is among `queue_drops`.
        """
        try:
            if program:
                bpf.attach(self.sock, program)
            elif self._filtered:
                bpf.detach(self.sock)
        except OSError as error:
            logger.info("the kernel takes no filter for a UDP socket (%s)", error.strerror)
        else:
            self._filtered = bool(program)

    def queued_part(self) -> float:
        """How full the receive queue is, from 0 to 1."""
        memory = self._memory()
        if memory is None:
            return 0.0
        return memory[kernel.SK_MEMINFO_RMEM_ALLOC] / max(1, memory[kernel.SK_MEMINFO_RCVBUF])

    def queued(self) -> tuple[int, int]:
        """Return the memory, in bytes, of what waits to be received and to be sent."""
        memory = self._memory()
        if memory is None:
            return 0, 0
        return memory[kernel.SK_MEMINFO_RMEM_ALLOC], memory[kernel.SK_MEMINFO_WMEM_ALLOC]

    def _memory(self) -> list[int] | None:
        """The kernel's account of the socket; None if it does not say (before Linux 4.12)."""
        size = 4 * kernel.SK_MEMINFO_VARS
        try:
            info = self.sock.getsockopt(socket.SOL_SOCKET, kernel.SO_MEMINFO, size)
        except OSError:
            return None
        return memoryview(info).cast("I").tolist()

    # ----- send

    def send(self, batch: Readable, stride: int, endpoint: Endpoint, tos: int = 0) -> Sent:
        """Send `batch` as datagrams of `stride` > 0 bytes (the last may be shorter).

        `tos` is the outer header's TOS or traffic class byte. Never raises for what the network
        or the firewall does: see `Sent`. Nothing is sent twice; a refused batch is sent again
        datagram by datagram, a refused source address without it, in the same call.
        """
        size = len(batch)
        if size <= stride:
            if endpoint is self._single_to and tos == self._single_tos:
                control = self._single_control
            else:
                control = (*endpoint.control, *self._tos[tos])
                self._single_to, self._single_tos = endpoint, tos
                self._single_control = control
        elif (
            self.gso
            and size <= MAX_BATCH
            and size <= stride * MAX_SEGMENTS
            and not (self._gso_pause and endpoint.sockaddr in self._gso_pause)
        ):
            control = (*endpoint.control, *self._tos[tos], self._segments_of(stride))
        else:
            return self._send_in_steps(batch, stride, endpoint, tos)
        try:
            self._sendmsg((batch,), control, 0, endpoint.sockaddr)
        except BlockingIOError:
            return Sent(rest=size)
        except OSError as error:
            return self._send_in_steps(batch, stride, endpoint, tos, error)
        return SENT

    def is_gso_paused(self, endpoint: Endpoint) -> bool:
        """Whether a batch to that address was refused a short while ago."""
        return endpoint.sockaddr in self._gso_pause

    def _segments_of(self, stride: int) -> ControlMessage:
        message = self._segment.get(stride)
        if message is None:
            message = self._segment[stride] = cmsg.segment_message(stride)
        return message

    def _send_in_steps(
        self,
        batch: Readable,
        stride: int,
        endpoint: Endpoint,
        tos: int,
        error: OSError | None = None,
    ) -> Sent:
        """Send what did not go at once: in chunks, by segments, or from another address.

        `error` is what the first chunk already met.
        """
        view = memoryview(batch)
        chunk_size = stride * segments_per_batch(stride)
        gso = len(view) > stride and self.gso and not self._gso_paused(endpoint, stride)
        gso_error: OSError | None = None
        source, tos_control = endpoint.control, self._tos[tos]
        source_tried = retried = source_changed = False
        drop: IoDrop | None = None
        dropped = position = 0
        while position < len(view):
            chunk = view[position:]
            if not gso:
                chunk = chunk[:stride]
            elif len(chunk) > MAX_BATCH or len(chunk) > stride * MAX_SEGMENTS:
                chunk = chunk[:chunk_size]
            batched = len(chunk) > stride
            if error is None:
                control = (*source, *tos_control)
                if batched:
                    control = (*control, self._segments_of(stride))
                try:
                    self.sock.sendmsg((chunk,), control, 0, endpoint.sockaddr)
                except BlockingIOError:
                    break
                except OSError as failure:
                    error = failure
                else:
                    if gso_error is not None and not batched:
                        self._gso_failed(gso_error, endpoint, stride)
                        gso_error = None
                    source_changed = source_tried
                    retried = False
                    position += len(chunk)
                    continue
            refusal, error = error, None
            number = refusal.errno
            if number in _PENDING and not retried:
                retried = True
            elif batched and number in _GSO_REFUSED:
                gso, gso_error = False, refusal
            elif source and number in _SOURCE_GONE:
                source, source_tried = (), True
                if gso_error is not None and gso_error.errno == errno.EINVAL:
                    # The address may have been to blame, not the batch.
                    gso, gso_error = True, None
            elif number == errno.EBADF:
                raise refusal
            else:
                retried = False
                if gso_error is not None and number == gso_error.errno:
                    # No batch and no single datagram: a blackhole route takes none of the rest.
                    chunk = view[position:]
                drop = SEND_REASONS.get(number or 0, IoDrop.SEND_ERROR)
                lost = -(-len(chunk) // stride)
                self._drops[drop] += lost
                dropped += lost
                position += len(chunk)
        if position == len(view) and drop is None and not source_changed:
            return SENT
        return Sent(
            rest=len(view) - position,
            drop=drop,
            dropped=dropped,
            endpoint=endpoint.without_source() if source_changed else None,
        )

    def _gso_paused(self, endpoint: Endpoint, stride: int) -> bool:
        """Return whether batches of this size to this address were refused a short while ago."""
        pause = self._gso_pause.get(endpoint.sockaddr)
        if pause is None or stride < pause[0]:
            return False
        if pause[1] <= 1:
            del self._gso_pause[endpoint.sockaddr]
        else:
            self._gso_pause[endpoint.sockaddr] = (pause[0], pause[1] - 1)
        return True

    def _gso_failed(self, error: OSError, endpoint: Endpoint, stride: int) -> None:
        """Draw the consequence of a batch that was refused and whose datagrams then passed."""
        if error.errno == errno.EIO:
            self.gso = False
            logger.warning(
                "the network interface cannot segment UDP (%s): sending one by one from now on",
                error.strerror,
            )
            return
        # Only this path has too small an MTU, and perhaps not for long.
        if len(self._gso_pause) >= _CACHE_LIMIT:
            self._gso_pause.clear()
        if endpoint.sockaddr not in self._gso_logged:
            # Once: it is tried again for as long as the tunnel lives.
            if len(self._gso_logged) >= _CACHE_LIMIT:
                self._gso_logged.clear()
            self._gso_logged.add(endpoint.sockaddr)
            logger.info(
                "datagrams of %d bytes to %s exceed the path MTU: sending them one by one, and "
                "trying now and then whether they fit again",
                stride,
                endpoint,
            )
        self._gso_pause[endpoint.sockaddr] = (stride, _GSO_PAUSE)

    def close(self) -> None:
        """Close the socket; idempotent."""
        self.sock.close()


def _why_unusable(flags: int) -> IoDrop:
    if flags & _TRUNCATED:
        return IoDrop.RECEIVE_TRUNCATED
    if flags & _CONTROL_TRUNCATED:
        return IoDrop.RECEIVE_CONTROL_TRUNCATED
    return IoDrop.RECEIVE_EMPTY


def _has_gso(sock: socket.socket) -> bool:
    try:
        sock.getsockopt(kernel.SOL_UDP, kernel.UDP_SEGMENT)
    except OSError as error:
        logger.info("the kernel cannot segment UDP (%s): sending one by one", error.strerror)
        return False
    return True


def _set_gro(sock: socket.socket) -> bool:
    try:
        sock.setsockopt(kernel.SOL_UDP, kernel.UDP_GRO, 1)
    except OSError as error:
        logger.info("the kernel cannot coalesce UDP (%s): receiving one by one", error.strerror)
        return False
    return True
