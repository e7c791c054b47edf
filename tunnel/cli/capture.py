"""`tunnel capture`: both crossings of every packet in one file, the inner and the outer."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from tunnel.cli.common import Name, fail, interface_name, refusals_printed
from tunnel.control.client import TunnelClient
from tunnel.observe import batches, pcapng
from tunnel.observe.pcapng import wireguard_keys
from tunnel.observe.recording import REORDERING_NS, Recording
from tunnel.observe.taps import Tap, tunnel_datagrams

app = typer.Typer()

INNER, OUTER = 0, 1
"""The interfaces of a capture, by their places in the file."""

POLL = 0.1
"""Seconds between two looks at what may be written by now."""

BURST = 512
"""Packets read from one side before the other has its turn."""

WARNING = """\
WARNING: the capture holds this tunnel's private key, its preshared keys and the keys of its
sessions. Whoever reads it can read the traffic in it, and be this host until its key is changed.
Keep it as you would keep the conf, and do not send it to anybody.
Sessions that exist already stay sealed; each is replaced within two minutes of traffic."""


@dataclass(frozen=True)
class Limits:
    """When a capture ends, and how much of a packet it keeps; 0 is no limit."""

    snap_length: int
    count: int
    seconds: float


@app.command()
def capture(
    name: Name,
    write: Annotated[
        str, typer.Option("--write", "-w", metavar="FILE", help="The file, or - for a pipe.")
    ],
    snaplen: Annotated[int, typer.Option(min=0, help="Bytes to keep of a packet; 0: all.")] = 0,
    count: Annotated[int, typer.Option(min=0, help="End after so many packets.")] = 0,
    seconds: Annotated[float, typer.Option(min=0, help="End after so many seconds.")] = 0,
    ring: Annotated[
        int, typer.Option(min=0, help="Keep the latest so many files, FILE-00001 and on.")
    ] = 0,
    size: Annotated[int, typer.Option(min=1, help="MB of one file of the ring.")] = 100,
    with_keys: Annotated[
        bool,
        typer.Option("--with-keys", help="Put the keys into the file: Wireshark decrypts it."),
    ] = False,
) -> None:
    """Write every packet into one pcapng file twice: as it is inside, and as it is outside.

    The first interface is the tunnel's own, with bare IP packets; the second has its datagrams,
    on whatever device they leave and come. Ends at ^C.

    tunnel capture wg0 -w - | wireshark -k -i -
    """
    interface = interface_name(name)
    if write == "-" and (ring or sys.stdout.isatty()):
        fail("a ring of files needs a name" if ring else "-w - writes to a pipe", 2)
    limits = Limits(snaplen, count, seconds)
    with contextlib.ExitStack() as stack:
        stack.enter_context(refusals_printed())
        signalled = stack.enter_context(_signals())
        client = stack.enter_context(TunnelClient(interface))
        port = client.status().listen_port
        keys = stack.enter_context(TunnelClient(interface)) if with_keys else None
        if keys is not None:
            typer.echo(WARNING, err=True)
            keys.subscribe_keys()
        target = sys.stdout.buffer if write == "-" else Path(write)
        try:
            taps = [
                stack.enter_context(Tap(interface, [])),
                stack.enter_context(Tap("", tunnel_datagrams(port))),
            ]
            recording = stack.enter_context(
                Recording(
                    target,
                    preamble=_preamble(interface, port, snaplen),
                    ring=ring,
                    size=size * 1_000_000,
                    limit=count,
                )
            )
            if keys is not None:
                recording.add_secrets(_static_keys(client))
            typer.echo(f"capturing {interface} and its UDP port {port}; ^C ends it", err=True)
            _Capture(taps, recording, limits, keys).run(signalled)
        except BrokenPipeError:
            return  # whoever read the pipe has seen enough
        except PermissionError as error:
            fail(f"{error}: capturing is for root only: use sudo")
        except OSError as error:
            fail(f"capture: {error}")


class _Capture:
    """Packets and keys from where they come, to where they are written."""

    def __init__(
        self, taps: list[Tap], recording: Recording, limits: Limits, keys: TunnelClient | None
    ) -> None:
        self._taps = taps
        self._recording = recording
        self._limits = limits
        self._keys = keys
        self._device_gone = False

    def run(self, signalled: socket.socket) -> None:
        """Until a limit is reached, a signal comes or the tunnel goes down."""
        limits, recording = self._limits, self._recording
        end = time.monotonic() + (limits.seconds or float("inf"))
        if self._keys is not None and self._keys.has_unread():
            self._read_keys()
        with selectors.DefaultSelector() as selector:
            for tap in self._taps:
                selector.register(tap.socket, selectors.EVENT_READ)
            selector.register(signalled, selectors.EVENT_READ)
            if self._keys is not None:
                selector.register(self._keys, selectors.EVENT_READ)
            while not (recording.full or self._device_gone):
                left = end - time.monotonic()
                if left <= 0:
                    break
                ready = [key for key, _ in selector.select(min(left, POLL))]
                if any(key.fileobj is signalled for key in ready):
                    break
                # Keys before the packets that came with them.
                if any(key.fileobj is self._keys for key in ready) and not self._read_keys():
                    break
                for number in range(len(self._taps)):
                    self._read_packets(number)
                recording.write_until(time.time_ns() - REORDERING_NS)
        for number in range(len(self._taps)):
            self._read_packets(number)
        self._finish()

    def _read_keys(self) -> bool:
        """Take the keys that have come; False if there will be no more."""
        assert self._keys is not None
        events = self._keys.read_events()
        for event in events:
            if event.type == "ephemeral":
                self._recording.add_secrets(_session_keys(event.details))
            elif event.type == "lost":
                typer.echo(f"keys of {event.details['count']} handshakes were lost", err=True)
        return bool(events)

    def _read_packets(self, number: int) -> None:
        tap = self._taps[number]
        for _ in range(BURST):
            try:
                seen = tap.read()
            except OSError:
                if number == INNER:
                    self._device_gone = True
                return
            if seen is None:
                return
            packets = batches.split(seen.packet) if number == OUTER else [seen.packet]
            for packet in packets:
                kept = packet[: self._limits.snap_length or None]
                block = pcapng.packet(
                    number, seen.time_ns, kept, length=len(packet), direction=seen.direction
                )
                self._recording.add_packet(seen.time_ns, block)

    def _finish(self) -> None:
        now = time.time_ns()
        blocks, lost = b"", 0
        for number, tap in enumerate(self._taps):
            received, dropped = tap.statistics()
            lost += dropped
            blocks += pcapng.statistics(number, now, received=received, dropped=dropped)
        self._recording.finish(blocks)
        typer.echo(f"{self._recording.written} packets captured, {lost} lost", err=True)


@contextlib.contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that can be read once SIGINT or SIGTERM has come: no block is cut in half."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        before = signal.set_wakeup_fd(theirs.fileno())
        handlers = {
            number: signal.signal(number, lambda *_: None)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield ours
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(before)


def _preamble(interface: str, port: int, snap_length: int) -> bytes:
    return b"".join(
        [
            pcapng.section_header("tunnel capture"),
            pcapng.interface(interface, f"inside {interface}", snap_length=snap_length),
            pcapng.interface(
                f"{interface}-udp", f"datagrams of UDP port {port}", snap_length=snap_length
            ),
        ]
    )


def _static_keys(client: TunnelClient) -> bytes:
    status = client.status(secrets=True)
    public_keys = [peer.public_key for peer in status.peers]
    return pcapng.secrets(wireguard_keys(private_key=status.private_key, public_keys=public_keys))


def _session_keys(details: dict[str, Any]) -> bytes:
    return pcapng.secrets(
        wireguard_keys(
            private_key=details["private_key"],
            public_keys=[details["peer"]],
            ephemeral_key=details["ephemeral_key"],
            preshared_key=details["preshared_key"],
        )
    )
