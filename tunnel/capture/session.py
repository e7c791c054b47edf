"""A capture under way: packets of both crossings and keys, from where they come to the file."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunnel import host
from tunnel.capture import pcapng, segments
from tunnel.capture.dedup import Sighting, Sightings
from tunnel.capture.handshake_keys import PATIENCE_NS, HandshakeKeys
from tunnel.capture.matched import Carriers
from tunnel.capture.pcapng import Direction, wireguard_keys
from tunnel.capture.writer import REORDERING_NS, Recording
from tunnel.control.client import TunnelClient
from tunnel.control.messages.events import TunnelEvent
from tunnel.linux.packet_socket import PacketSocket, SeenPacket, tunnel_datagrams
from tunnel.packet.ethernet import ip_of_ethernet
from tunnel.packet.filter import Filter
from tunnel.packet.headers import Headers

INNER, OUTER = 0, 1
"""The interfaces of a capture, by their places in the file."""

POLL = 0.1
"""Seconds between two looks at what may be written by now."""

BURST = 512
"""Packets read from one side before the other has its turn."""

FINISH = 1.0
"""Seconds in which what was seen until the end of the capture is read."""

DEVICES_NS = 50_000_000
"""Nanoseconds a datagram waits for being seen on a device that is closer to its socket."""

RECORDS_NS = 200_000_000
"""Nanoseconds a datagram waits for the daemon to say what it carried."""


@dataclass(frozen=True)
class CaptureRequest:
    """Which packets, when the capture ends, and how much of a packet it keeps; 0 is no limit.

    With a filter, of the packets inside those that it lets through are kept, and outside the
    datagrams that carried them, with all handshakes.
    """

    filter: Filter
    snap_length: int = 0
    count: int = 0
    seconds: float = 0


@dataclass
class Streams:
    """Connections to the daemon: its events, and where they are asked for, keys and records."""

    events: TunnelClient
    keys: TunnelClient | None = None
    records: TunnelClient | None = None
    all: list[TunnelClient] = field(init=False)

    def __post_init__(self) -> None:
        # Keys and records before the packets that came with them.
        known = (self.keys, self.records, self.events)
        self.all = [client for client in known if client is not None]

    def subscribe(self, wanted: Filter) -> None:
        """Begin all of them."""
        self.events.subscribe()
        if self.keys is not None:
            self.keys.subscribe_keys()
        if self.records is not None:
            self.records.subscribe_carriers(wanted.text)


class Capture:
    """Use as a context manager. `warn` gets what is missing from the file."""

    def __init__(
        self,
        interface: str,
        port: int,
        streams: Streams,
        wanted: CaptureRequest,
        warn: Callable[[str], None],
        *,
        netns: str = "",
        ethernet: bool = False,
    ) -> None:
        """`netns` is the path of the interface's network namespace, if that is not the caller's.
        With `ethernet` the interface has Ethernet frames.

        Raises PermissionError without CAP_NET_RAW, OSError if there is no such interface.

        Raises HostError if the machine's addresses cannot be listed.
        """
        self._port = port
        self._streams = streams
        self._wanted = wanted
        self._ethernet = ethernet
        self._warn = warn
        self._carriers = Carriers() if streams.records is not None else None
        self._keys = HandshakeKeys() if streams.keys is not None else None
        self._sightings = Sightings()
        self._held: deque[tuple[int, Sighting]] = deque()
        self._hold_ns = DEVICES_NS if streams.records is None else RECORDS_NS
        self._device_gone = False
        self._closed: list[tuple[int, int]] = []
        with contextlib.ExitStack() as stack:
            self._own = stack.enter_context(host.LocalAddresses())
            with host.inside(netns or None):
                self._inner = stack.enter_context(PacketSocket(interface, ethernet=ethernet))
            self._outer = stack.enter_context(PacketSocket("", tunnel_datagrams(port)))
            self._stack = stack.pop_all()

    def __enter__(self) -> Capture:
        return self

    def __exit__(self, *_: object) -> None:
        self._outer.socket.close()
        self._stack.close()

    def run(self, recording: Recording, signalled: socket.socket) -> None:
        """Until a limit is reached, `signalled` can be read or the tunnel goes down."""
        end = time.monotonic() + (self._wanted.seconds or float("inf"))
        turned = time.monotonic()
        with selectors.DefaultSelector() as self._selector:
            sockets = (self._inner.socket, self._outer.socket, signalled)
            sources: list[socket.socket | TunnelClient] = [*sockets, *self._streams.all]
            for source in sources:
                self._selector.register(source, selectors.EVENT_READ)
            for client in self._streams.all:
                if client.has_unread():
                    self._read_events(client, recording)
            while not (recording.full or self._device_gone):
                left = end - time.monotonic()
                if left <= 0:
                    break
                ready = {key.fileobj for key, _ in self._selector.select(min(left, POLL))}
                if signalled in ready:
                    break
                clients = [client for client in self._streams.all if client in ready]
                if not all(self._read_events(client, recording) for client in clients):
                    break
                self._read_packets(recording)
                settled = self._settled(time.time_ns() - self._hold_ns)
                self._release(recording, settled)
                recording.write_until(settled - REORDERING_NS)
                if self._carriers is not None and time.monotonic() - turned > 1:
                    turned = time.monotonic()
                    self._carriers.turn()
        self._finish(recording)

    def _read_events(self, client: TunnelClient, recording: Recording) -> bool:
        """Take what a stream has; False if there will be no more."""
        events = client.read_events()
        for event in events:
            if event.type == "lost":
                what = "events"
                if client is self._streams.keys:
                    what = "keys of handshakes"
                elif client is self._streams.records:
                    what = "datagrams of the filter"
                self._warn(f"{event.details['count']} {what} were lost")
            elif client is self._streams.keys:
                if event.type == "ephemeral":
                    assert self._keys is not None
                    self._keys.add_key(event.details["ephemeral_key"])
                    recording.add_secrets(session_keys(event.details))
            elif client is self._streams.records:
                assert self._carriers is not None
                for index, first, count in event.details.get("ranges", ()):
                    self._carriers.add(index, first, count)
            elif event.type == "port":
                self._move(event, recording)
        return bool(events)

    def _move(self, event: TunnelEvent, recording: Recording) -> None:
        """Follow the tunnel to another UDP port."""
        port = event.details["new"]
        if port == self._port:
            return
        self._warn(f"the UDP port is {port} now, was {self._port}")
        self._port = port
        tap = PacketSocket("", tunnel_datagrams(port))
        self._read_packets(recording)
        self._selector.unregister(self._outer.socket)
        self._closed.append(self._outer.statistics())
        self._outer.socket.close()
        self._outer = tap
        self._selector.register(tap.socket, selectors.EVENT_READ)

    def _read_packets(self, recording: Recording) -> bool:
        """Take a burst of each side, and say whether one of them may have more."""
        more = False
        for _ in range(BURST):
            try:
                seen = self._inner.read()
            except OSError:
                self._device_gone = True
                break
            if seen is None:
                break
            if self._carriers is not None:
                packet = ip_of_ethernet(seen.packet) if self._ethernet else seen.packet
                headers = Headers.parse(packet)
                if headers is None or not self._wanted.filter.matches(headers):
                    continue
            self._add(recording, INNER, seen, seen.packet)
        else:
            more = True
        self._own.refresh()
        for _ in range(BURST):
            try:
                seen = self._outer.read()
            except OSError:  # one of the machine's devices went down
                break
            if seen is None:
                break
            if not self._is_ours(seen):
                continue
            for datagram in segments.split(seen.packet):
                sighting = self._sightings.add(seen, datagram)
                if sighting is not None:
                    if self._keys is not None and seen.outgoing:
                        self._keys.sent(datagram, seen.time_ns)
                    self._held.append((seen.time_ns, sighting))
        else:
            more = True
        return more

    def _is_ours(self, seen: SeenPacket) -> bool:
        """Whether this machine is an end of the datagram, and does not just forward it."""
        headers = Headers.parse(seen.packet)
        if headers is None:
            return False
        return (headers.source if seen.outgoing else headers.destination) in self._own

    def _release(self, recording: Recording, until: int | None) -> None:
        """Decide on the datagrams that were seen by then, or all."""
        held = self._held
        while held and (until is None or held[0][0] <= until):
            seen, datagram = held.popleft()[1].take()
            if self._carriers is None or self._carriers.wanted(datagram):
                self._add(recording, OUTER, seen, datagram)

    def _add(self, recording: Recording, number: int, seen: SeenPacket, packet: bytes) -> None:
        kept = packet[: self._wanted.snap_length or None]
        direction = Direction.OUT if seen.outgoing else Direction.IN
        block = pcapng.packet(number, seen.time_ns, kept, length=len(packet), direction=direction)
        recording.add_packet(seen.time_ns, block)

    def _settled(self, time_ns: int) -> int:
        """The time, at most `time_ns`, before which no datagram waits for a key."""
        return time_ns if self._keys is None else self._keys.complete_until(time_ns)

    def _finish(self, recording: Recording) -> None:
        end = time.monotonic() + FINISH
        while self._read_packets(recording) and time.monotonic() < end:
            pass
        # The last datagrams may be ahead of their keys, and of the daemon's records of them.
        if self._streams.keys is not None:
            now = time.time_ns()
            self._wait(self._streams.keys, recording, PATIENCE_NS, lambda: self._settled(now) < now)
        if self._streams.records is not None:
            self._wait(self._streams.records, recording, RECORDS_NS, lambda: True)
        self._release(recording, None)
        now = time.time_ns()
        self._closed.append(self._outer.statistics())
        inner = self._inner.statistics()
        outer = tuple(map(sum, zip(*self._closed, strict=True)))
        blocks = b"".join(
            pcapng.statistics(number, now, received=received, dropped=dropped)
            for number, (received, dropped) in ((INNER, inner), (OUTER, outer))
        )
        recording.finish(blocks)
        self._warn(f"{recording.written} packets captured, {inner[1] + outer[1]} lost")

    def _wait(
        self,
        client: TunnelClient,
        recording: Recording,
        patience_ns: int,
        missing: Callable[[], bool],
    ) -> None:
        """Read a stream while something of it is missing, for a time."""
        with selectors.DefaultSelector() as selector:
            selector.register(client, selectors.EVENT_READ)
            end = time.monotonic() + patience_ns / 1e9
            while missing() and (left := end - time.monotonic()) > 0 and selector.select(left):
                if not self._read_events(client, recording):
                    break


def preamble(interface: str, port: int, snap_length: int, *, ethernet: bool = False) -> bytes:
    """What every file begins with. With `ethernet` the interface has Ethernet frames."""
    return b"".join(
        [
            pcapng.section_header("tunnel capture"),
            pcapng.interface(
                interface, f"inside {interface}", snap_length=snap_length, ethernet=ethernet
            ),
            pcapng.interface(
                f"{interface}-udp", f"datagrams of UDP port {port}", snap_length=snap_length
            ),
        ]
    )


def static_keys(client: TunnelClient) -> bytes:
    """The block of the tunnel's own key and its peers' public ones."""
    status = client.status(secrets=True)
    public_keys = [peer.public_key for peer in status.peers]
    return pcapng.secrets(wireguard_keys(private_key=status.private_key, public_keys=public_keys))


def session_keys(details: dict[str, Any]) -> bytes:
    """The block of one handshake, from an event `ephemeral`."""
    return pcapng.secrets(
        wireguard_keys(
            private_key=details["private_key"],
            public_keys=[details["peer"]],
            ephemeral_key=details["ephemeral_key"],
            preshared_key=details["preshared_key"],
        )
    )
