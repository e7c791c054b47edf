"""`tunnel capture`: both crossings of every packet in one file, the inner and the outer."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from tunnel.capture.session import Capture, CaptureRequest, Streams, preamble, static_keys
from tunnel.capture.writer import Recording
from tunnel.cli.common import (
    EXIT_USAGE,
    Name,
    fail,
    in_words,
    interface_name,
    need_folder_of,
    refusals_printed,
)
from tunnel.control.client import TunnelClient
from tunnel.host import HostError
from tunnel.packet.filter import EXAMPLES, Filter, FilterError

app = typer.Typer()

WARNING = """\
WARNING: the capture holds this tunnel's private key, its preshared keys and the keys of its
sessions. Anyone who reads it can read the traffic in it, and be this host until its key is changed.
Keep it as you would keep the conf, and do not send it to anyone.
Sessions that exist already stay sealed; each is replaced within two minutes of traffic."""


@app.command()
def capture(
    name: Name,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILTER]", help=f"Only these packets: {EXAMPLES}."),
    ] = None,
    *,
    write: Annotated[
        str, typer.Option("--write", "-w", metavar="FILE", help="The file, or - for a pipe.")
    ],
    snaplen: Annotated[
        int,
        typer.Option(
            metavar="BYTES",
            min=0,
            show_default=False,
            help="Bytes to keep of a packet; all of them if not given.",
        ),
    ] = 0,
    count: Annotated[
        int,
        typer.Option(metavar="N", min=0, show_default=False, help="End after so many packets."),
    ] = 0,
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, show_default=False, help="End after so many seconds."
        ),
    ] = 0,
    ring: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            show_default=False,
            help="Keep the latest so many files, FILE-00001 and on.",
        ),
    ] = 0,
    size: Annotated[
        int, typer.Option(metavar="MB", min=1, help="MB of one file of the ring.")
    ] = 100,
    with_keys: Annotated[
        bool,
        typer.Option("--with-keys", help="Put the keys into the file: Wireshark decrypts it."),
    ] = False,
) -> None:
    """Write every packet into one pcapng file twice: as it is inside, and as it is outside.

    The first interface is the tunnel's own, with bare IP packets, or with the Ethernet frames of
    Mode = tap; the second has its datagrams, on whatever device they leave and come (in Wireshark:
    frame.interface_id == 0, or 1). With a FILTER
    these are the datagrams that carried the packets it lets through, and the handshakes; the tunnel
    then receives more slowly as long as the capture runs, by a quarter, or by much more while bulk
    transfers come mixed. Ends at ^C.

    Example:

        tunnel capture office -w - | wireshark -k -i -
    """
    interface = interface_name(name)
    if write == "-" and (ring or sys.stdout.isatty()):
        fail("a ring of files needs a name" if ring else "-w - writes to a pipe", EXIT_USAGE)
    if write != "-":
        need_folder_of(Path(write))
    try:
        wanted = CaptureRequest(Filter.parse(" ".join(words or [])), snaplen, count, seconds)
    except FilterError as error:
        fail(error, EXIT_USAGE)
    with contextlib.ExitStack() as stack:
        stack.enter_context(refusals_printed())
        signalled = stack.enter_context(_signals())
        client = stack.enter_context(TunnelClient(interface))

        def connect(needed: object) -> TunnelClient | None:
            return stack.enter_context(TunnelClient(interface)) if needed else None

        events = stack.enter_context(TunnelClient(interface))
        streams = Streams(events, connect(with_keys), connect(wanted.filter.text))
        if with_keys:
            _say(WARNING)
        # First of all, so that no change of the port is missed.
        streams.subscribe(wanted.filter)
        status = client.status()
        port, ethernet = status.listen_port, status.mode == "tap"
        try:
            capturing = stack.enter_context(
                Capture(
                    interface,
                    port,
                    streams,
                    wanted,
                    _say,
                    netns=status.netns,
                    ethernet=ethernet,
                )
            )
            recording = stack.enter_context(
                Recording(
                    sys.stdout.buffer if write == "-" else Path(write),
                    preamble=preamble(interface, port, snaplen, ethernet=ethernet),
                    ring=ring,
                    size=size * 1_000_000,
                    limit=count,
                )
            )
            if with_keys:
                recording.add_secrets(static_keys(client))
            of = f"{wanted.filter.text} in " if wanted.filter.text else ""
            _say(f"capturing {of}{interface} and its UDP port {port}; ^C ends it")
            capturing.run(recording, signalled)
        except BrokenPipeError:
            return  # the reader of the pipe has seen enough
        except PermissionError as error:
            fail(f"{in_words(error)}: capturing is for root only: use sudo")
        except (OSError, HostError) as error:
            fail(f"capture: {in_words(error)}")


def _say(text: str) -> None:
    """To the terminal, as standard output may be the capture."""
    typer.echo(text, err=True)


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
