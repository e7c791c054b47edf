"""Trace events of nf_tables: which rule of which chain saw a packet, and what it decided.

The kernel multicasts one NFT_MSG_TRACE per step of a packet that some rule gave `meta nftrace set
1`. This is a decoder of those messages and a socket that receives them; pyroute2 has neither.

Sources: linux/netfilter/nf_tables.h (enum nft_trace_attributes), nf_tables_trace.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from tunnel.errors import TunnelError
from tunnel.linux import kernel, netlink

NETLINK_NETFILTER = 12
NFNLGRP_NFTRACE = 9
NFNL_SUBSYS_NFTABLES = 10
NFT_MSG_TRACE = 17
SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP = 1

TRANSPORT_ROOM = 20
"""Bytes of the transport header and what follows it that the kernel copies into an event."""

_RECEIVE_BUFFER = 4 << 20
_ROOM = 1 << 14  # one event is some hundred bytes
_MAX_READ = 20_000
"""Events read and not yet taken: more than a second of all that the trace table marks."""

_NFGEN = 4  # nfgenmsg: family, version, res_id


class TraceType(IntEnum):
    """What kind of step an event reports (enum nft_trace_types)."""

    POLICY = 1
    """The end of a base chain: its policy decided."""
    RETURN = 2
    """A chain ended and returned to its caller."""
    RULE = 3
    """A rule matched and gave a verdict."""


class Verdict(IntEnum):
    """Netfilter's and nf_tables' verdicts, as the kernel numbers them."""

    DROP = 0
    ACCEPT = 1
    STOLEN = 2
    QUEUE = 3
    REPEAT = 4
    CONTINUE = -1
    BREAK = -2
    JUMP = -3
    GOTO = -4
    RETURN = -5


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """One step of one packet.

    `time` is CLOCK_MONOTONIC in seconds, taken when the event was read. `packet_id` stays the same
    for one packet within a stack. `network_header` and `transport_header` are the first bytes of
    each (20/40 and up to 20), with NAT applied so far. Interfaces are indices, 0 for none.
    `verdict` is None where the step has none; `jump_to` names the chain of a jump. `family` is
    the packet's, `table_family` the table's: NFPROTO_*.
    """

    time: float
    packet_id: int
    type: TraceType
    family: int
    table: str
    chain: str
    rule_handle: int | None
    verdict: Verdict | None
    jump_to: str | None
    iif: int
    oif: int
    mark: int
    network_header: bytes
    transport_header: bytes
    table_family: int = 0


class TraceSocketLostEventsError(TunnelError):
    """The kernel had more events than the socket could hold: the timeline has holes."""

    code = "trace_lost"


class TraceSocket:
    """Receives trace events of the network namespace it was opened in.

    Needs CAP_NET_ADMIN there. Use as a context manager, and `take` now and then. The kernel does
    not stamp events, so a thread does, woken before all else: it reads and stamps, and no more.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER
        )
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, kernel.SO_RCVBUFFORCE, _RECEIVE_BUFFER)
            self._socket.bind((0, 0))
            self._socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTRACE)
        except BaseException:
            self._socket.close()
            raise
        self._read: deque[tuple[float, bytes]] = deque()
        self._lost = False
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._stamp, name="trace events", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the group and close; idempotent."""
        self._end.close()
        if self._thread.is_alive():
            self._thread.join()
        self._ended.close()
        self._socket.close()

    def take(self) -> list[TraceEvent]:
        """The events since the last time. Raises TraceSocketLostEventsError if some were lost."""
        if self._lost:
            self._lost = False
            raise TraceSocketLostEventsError
        events: list[TraceEvent] = []
        for _ in range(len(self._read)):
            moment, data = self._read.popleft()
            events.extend(decode(data, moment))
        return events

    def _stamp(self) -> None:
        """The thread: read and stamp until the other end of our pair is closed."""
        _hurry()
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._ended, select.POLLIN)
        while all(fd != self._ended.fileno() for fd, _ in waiting.poll()):
            try:
                while True:
                    data = self._socket.recv(_ROOM)
                    if len(self._read) < _MAX_READ:
                        self._read.append((time.monotonic(), data))
                    else:
                        self._lost = True
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    return
                self._lost = True


def _hurry() -> None:
    """Let the scheduler wake this thread before others."""
    with contextlib.suppress(OSError):
        policy = os.SCHED_RR | os.SCHED_RESET_ON_FORK
        os.sched_setscheduler(0, policy, os.sched_param(os.sched_get_priority_min(os.SCHED_RR)))


def decode(data: bytes, moment: float) -> Iterator[TraceEvent]:
    """The trace events among the netlink messages in `data`; others and broken ones are skipped."""
    for kind, body in netlink.messages(data):
        if kind == NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_TRACE and len(body) >= _NFGEN:
            event = _event(body[0], dict(netlink.attributes(body[_NFGEN:])), moment)
            if event is not None:
                yield event


# enum nft_trace_attributes
_TABLE, _CHAIN, _RULE_HANDLE, _TYPE, _VERDICT, _ID = 1, 2, 3, 4, 5, 6
_NETWORK_HEADER, _TRANSPORT_HEADER, _IIF, _OIF, _MARK, _NFPROTO, _POLICY = 8, 9, 10, 12, 14, 15, 16
# enum nft_verdict_attributes
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2


def _event(family: int, found: dict[int, bytes], moment: float) -> TraceEvent | None:
    try:
        kind = TraceType(_number(found, _TYPE))
        verdict, jump_to = None, None
        if _VERDICT in found:
            nested = dict(netlink.attributes(found[_VERDICT]))
            verdict = _verdict(nested.get(_VERDICT_CODE))
            jump_to = _text(nested[_VERDICT_CHAIN]) if _VERDICT_CHAIN in nested else None
        elif _POLICY in found:
            verdict = _verdict(found[_POLICY])
    except ValueError:
        return None
    return TraceEvent(
        time=moment,
        packet_id=_number(found, _ID),
        type=kind,
        family=_number(found, _NFPROTO) or family,
        table=_text(found.get(_TABLE, b"")),
        chain=_text(found.get(_CHAIN, b"")),
        rule_handle=_number(found, _RULE_HANDLE) if _RULE_HANDLE in found else None,
        verdict=verdict,
        jump_to=jump_to,
        iif=_number(found, _IIF),
        oif=_number(found, _OIF),
        mark=_number(found, _MARK),
        network_header=found.get(_NETWORK_HEADER, b""),
        transport_header=found.get(_TRANSPORT_HEADER, b""),
        table_family=family,
    )


def _verdict(data: bytes | None) -> Verdict | None:
    """Verdict codes are big-endian; their upper half may carry an errno or a queue number."""
    if data is None:
        return None
    code = int.from_bytes(data, "big", signed=True)
    # A drop with an errno is negative too, but far below nf_tables' own.
    return Verdict(code if Verdict.RETURN <= code < 0 else code & 0xFF)


def _number(found: dict[int, bytes], kind: int) -> int:
    return int.from_bytes(found.get(kind, b""), "big")


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")
