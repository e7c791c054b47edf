"""`tunnel lab`: two hosts and a real tunnel on this machine, and what one packet does in it."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from tunnel.cli import labtrace, timeline
from tunnel.cli.common import EXIT_USAGE, fail, writable
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.lab import Host, Lab, LabError, LabUnavailableError, crossings, rootless
from tunnel.lab.crossings import LabPacket
from tunnel.lab.peers import End, Node, generate_preshared_key, mesh
from tunnel.packet.headers import TRANSPORT_DATA
from tunnel.trace import diagram
from tunnel.trace.journey import Journey

app = typer.Typer()

OUTER = {4: ("192.0.2.1", "192.0.2.2"), 6: ("2001:db8::1", "2001:db8::2")}
TRANSPORT_OVERHEAD = 32
UDP_HEADER = 8


class PeerKind(StrEnum):
    """What runs on host B."""

    OURS = "ours"
    WIREGUARD_GO = "wireguard-go"


@app.command(name="lab")
def lab_command(
    peer: Annotated[
        PeerKind, typer.Option(metavar="ours|wireguard-go", help="What runs on host B.")
    ] = PeerKind.OURS,
    outer_v6: Annotated[bool, typer.Option("--ipv6", "-6", help="IPv6 outside.")] = False,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in host A.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab standing.")] = False,
    down: Annotated[
        str | None, typer.Option("--down", metavar="ID", help="Take down a lab that was kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    traced: Annotated[
        bool,
        typer.Option("--trace/--no-trace", help="Show every hop, or the four interfaces only."),
    ] = True,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the hops to this file, too.")
    ] = None,
) -> None:
    """Build two hosts and a real encrypted tunnel on this machine, and ping through it.

    The hosts are network namespaces, the internet between them is a veth cable. Every step of a
    packet is shown as it was measured, from the application that sends it to the one that gets it:
    through the IP stack, the tunnel, the IP stack again, and the same on the other host. Nothing
    stays behind. Root is not needed where the kernel allows user namespaces and /dev/net/tun is
    open to users.
    """
    try:
        if down is not None:
            Lab.remove(down)
            typer.echo(f"lab {down} is gone")
            return
        if rootless.is_needed():
            rootless.enter_user_namespace([sys.executable, "-m", "tunnel", *sys.argv[1:]])
        rootless.check()
        if svg is not None:
            if not traced or peer is not PeerKind.OURS:
                fail(
                    "--svg draws the hops that a trace finds: leave out --no-trace and --peer",
                    EXIT_USAGE,
                )
            writable(svg)
        show = Show(traced, as_json, svg)
        _run(peer, 6 if outer_v6 else 4, show, shell=shell, keep=keep)
    except (LabError, LabUnavailableError) as error:
        typer.echo(f"tunnel: {error}", err=True)
        raise typer.Exit(1) from None


@dataclass(frozen=True)
class Show:
    """What is to be shown, and how."""

    traced: bool
    as_json: bool
    svg: Path | None


def _run(peer: PeerKind, outer: int, show: Show, *, shell: bool, keep: bool) -> None:
    with Lab() as lab:
        _say("building two hosts, A and B, and a cable between them")
        a, b = lab.host("A"), lab.host("B")
        lab.link(
            a,
            b,
            [f"{OUTER[4][0]}/24", f"{OUTER[6][0]}/64"],
            [f"{OUTER[4][1]}/24", f"{OUTER[6][1]}/64"],
        )
        nodes = [
            Node(host, (f"10.77.0.{number}/24", f"fd77::{number}/64"), OUTER[outer][number - 1])
            for number, host in enumerate((a, b), start=1)
        ]
        foreign = {} if peer is PeerKind.OURS else {"B": peer.value}
        ends = mesh(nodes, preshared_key=generate_preshared_key(), foreign=foreign)
        for name, end in ends.items():
            _say(f"starting {end.program} on {name}")
            end.up()
        target = nodes[1].address()
        _say(f"pinging {target} from A, through the tunnel")
        # The first packet waits for the handshake; the second shows the path alone.
        a.ping(target)
        journeys: list[Journey] = []
        seen = crossings.watch(
            [(a, "wg0"), (a, "eth0"), (b, "eth0"), (b, "wg0")],
            lambda: journeys.extend(_ping(a, b, target, traced=show.traced and not foreign)),
        )
        _show(lab, ends, list(find_steps(seen)), journeys, show)
        if shell:
            typer.echo(
                f"\nThis is host A; B is {target}. Try: tunnel show, ping {target}. ^D ends it."
            )
            a.shell()
        if keep:
            lab.keep()
            typer.echo(_how_to_go_on(lab, a, b))


def _ping(a: Host, b: Host, target: str, *, traced: bool) -> list[Journey]:
    """One ping; its journeys if it can be traced here."""
    problem = labtrace.missing()
    if traced and problem is None:
        try:
            return labtrace.trace_ping(a, b, target)
        except LabError as error:
            problem = str(error)
    if traced:
        _say(f"shown on the interfaces only: {problem}")
    a.ping(target)
    return []


def _show(
    lab: Lab, ends: dict[str, End], steps: list[PingStep], journeys: list[Journey], show: Show
) -> None:
    if show.as_json:
        report = _report(lab, ends, steps)
        report["journeys"] = [journey.to_json() for journey in journeys]
        typer.echo(json.dumps(report, indent=2))
    elif journeys:
        timeline.show(Console(highlight=False), labtrace.draw(journeys))
    else:
        timeline.show(Console(highlight=False), map(Text, draw(steps)))
    if show.svg is not None and journeys:
        packets = [journey for journey in journeys if journey.counts]
        title = "One ping and its answer through a tunnel, as measured"
        show.svg.write_text(diagram.draw(packets, title), encoding="utf-8")


def _say(text: str) -> None:
    """Progress, for people; programs read standard output."""
    typer.echo(f"· {text}", err=True)


@dataclass(frozen=True)
class PingStep:
    """The ping on one interface of its way: `layer` is "inner" or "outer"; sizes in bytes."""

    host: str
    interface: str
    direction: str
    layer: str
    what: str
    source: str
    destination: str
    size: int
    microseconds: float


def find_steps(packets: list[LabPacket]) -> Iterator[PingStep]:
    """Where one echo request and its reply were seen, inside and outside, in order."""
    for packet in packets:
        headers, seen = packet.headers, packet.seen
        message, _, counter = headers.wireguard or (0, 0, 0)
        if headers.is_echo:
            layer, what = "inner", headers.kind()
        elif message == TRANSPORT_DATA and not _is_keepalive(packet):
            layer, what = "outer", f"UDP, WireGuard data, counter {counter}"
        else:
            continue
        source, _, destination = headers.flow().partition(" → ")
        yield PingStep(
            packet.host,
            packet.interface,
            "out" if seen.outgoing else "in",
            layer,
            what,
            source,
            destination,
            len(seen.packet),
            (seen.time_ns - packets[0].seen.time_ns) / 1e3,
        )


def _is_keepalive(packet: LabPacket) -> bool:
    """Whether a transport data message holds no packet, and so none of the ping's."""
    udp = 8
    return len(packet.seen.packet) == len(packet.headers.network) + udp + MESSAGE_OVERHEAD


def draw(steps: list[PingStep]) -> Iterator[str]:
    """The steps as a picture in text, with what happened between them."""
    yield ""
    yield "One ping and its answer, as the four interfaces saw them:"
    host = ""
    before: PingStep | None = None
    for number, step in enumerate(steps, start=1):
        if step.host != host:
            host = step.host
            yield ""
            yield f"  host {host}"
        between = _between(before, step)
        if between:
            yield f"  │       {between}"
        arrow = "──▶" if step.direction == "out" else "◀──"
        yield (
            f"  ├─ {number}  {step.interface:<4} {arrow}  {step.layer} packet  "
            f"{step.size:>4} bytes  {step.source} → {step.destination}   "
            f"+{step.microseconds:.0f} µs"
        )
        yield f"  │       {step.what}"
        before = step
    yield ""
    yield from _conclusion(steps)


def _between(before: PingStep | None, step: PingStep) -> str:
    """What the tunnel did between two interfaces of one host."""
    if before is None or before.host != step.host or before.layer == step.layer:
        return ""
    inner, outer = (before, step) if step.layer == "outer" else (step, before)
    header = 20 if "[" not in outer.source else 40
    padding = outer.size - header - UDP_HEADER - TRANSPORT_OVERHEAD - inner.size
    parts = f"{header} IP + {UDP_HEADER} UDP + 16 header + {padding} padding + 16 tag"
    if step.layer == "outer":
        return f"tunnel sealed it: {inner.size} + {parts} = {outer.size} bytes"
    return f"tunnel opened it: {outer.size} − ({parts}) = {inner.size} bytes"


def _conclusion(steps: list[PingStep]) -> Iterator[str]:
    if not steps:
        yield "No packet was seen."
        return
    crossings_of_a = [step for step in steps if step.host == "A" and step.direction == "out"]
    if len(crossings_of_a) >= 2:
        inner, outer = crossings_of_a[:2]
        yield (
            f"The packet crossed A's IP stack twice: first as {inner.size} bytes to "
            f"{inner.destination}, which the route sent into {inner.interface};"
        )
        yield (
            f"then as {outer.size} bytes of UDP to {outer.destination}, "
            f"which left by {outer.interface}. On B the same happened the other way round."
        )
    yield f"There and back it took {steps[-1].microseconds:.0f} µs."


def _report(lab: Lab, ends: dict[str, End], steps: list[PingStep]) -> dict[str, Any]:
    return {
        "lab": lab.id,
        "hosts": [
            {
                "name": name,
                "namespace": end.node.host.netns,
                "inner": list(end.node.addresses),
                "outer": end.node.endpoint,
                "public_key": end.node.public_key,
                "program": end.program,
            }
            for name, end in ends.items()
        ],
        "steps": [asdict(step) for step in steps],
    }


def _how_to_go_on(lab: Lab, *hosts: Host) -> str:
    lines = ["", f"Lab {lab.id} stays. Enter a host:"]
    lines += [
        f"  {' '.join(host.enter_command_for_user())} {os.environ.get('SHELL', 'sh')}"
        for host in hosts
    ]
    program = "tunnel" if shutil.which("tunnel") else f"{sys.executable} -m tunnel"
    return "\n".join([*lines, "Take it down:", f"  {program} lab --down {lab.id}"])
