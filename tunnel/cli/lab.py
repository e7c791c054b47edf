"""`tunnel lab`: hosts and real tunnels on this machine, and what packets do in them."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from tunnel.cli import labtrace, labtrials, labwire, timeline
from tunnel.cli.common import EXIT_USAGE, fail, print_json, writable
from tunnel.datapath.interface import MESSAGE_OVERHEAD
from tunnel.lab import (
    Host,
    Lab,
    LabError,
    LabUnavailableError,
    crossings,
    docker,
    entering,
    rootless,
)
from tunnel.lab.building import Built, build, outside_v6
from tunnel.lab.crossings import LabPacket
from tunnel.lab.peers import OurEnd, generate_preshared_key
from tunnel.lab.plan import BadWire, Blueprint
from tunnel.lab.plans import PAIR, PLANS
from tunnel.packet.headers import TRANSPORT_DATA
from tunnel.trace import diagram
from tunnel.trace.journey import Journey

app = typer.Typer()

TRANSPORT_OVERHEAD = 32
UDP_HEADER = 8


class PeerKind(StrEnum):
    """What runs on host B."""

    OURS = "ours"
    WIREGUARD_GO = "wireguard-go"


class TopologyName(StrEnum):
    """What a lab is built like."""

    PAIR = "pair"
    NAT = "nat"
    HUB = "hub"
    MESH = "mesh"
    BRIDGE = "bridge"
    TAP = "tap"
    GATEWAY = "gateway"
    DOCKER = "docker"


@app.command(name="lab")
def lab_command(
    topology: Annotated[
        TopologyName | None,
        typer.Option(
            metavar="NAME",
            help="What to build and to try: pair (if not given), "
            f"{', '.join([*TopologyName][1:-1])} or {[*TopologyName][-1]}. See examples/.",
        ),
    ] = None,
    confs: Annotated[
        bool, typer.Option("--confs", help="Show the confs of the topology; build nothing.")
    ] = False,
    peer: Annotated[
        PeerKind, typer.Option(metavar="ours|wireguard-go", help="What runs on host B of a pair.")
    ] = PeerKind.OURS,
    outer_v6: Annotated[
        bool, typer.Option("--ipv6", "-6", help="IPv6 outside, for a pair.")
    ] = False,
    shell: Annotated[bool, typer.Option("--shell", help="Open a shell in the first host.")] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the lab standing.")] = False,
    enter: Annotated[
        str | None,
        typer.Option(
            "--enter",
            metavar="[ID/]HOST",
            help="Open a shell (or run -- COMMAND…) in a host of a lab that stands.",
        ),
    ] = None,
    down: Annotated[
        str | None, typer.Option("--down", metavar="ID", help="Take down a lab that was kept.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
    traced: Annotated[
        bool,
        typer.Option(
            "--trace/--no-trace", help="Show every hop of a pair, or the four interfaces only."
        ),
    ] = True,
    svg: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw the hops of a pair to this file, too."),
    ] = None,
    loss: labwire.Loss = None,
    delay: labwire.Delay = None,
    jitter: labwire.Jitter = None,
    reorder: labwire.Reorder = None,
    duplicate: labwire.Duplicate = None,
    corrupt: labwire.Corrupt = None,
    rebind: labwire.Rebind = None,
    seed: labwire.Seed = None,
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[-- COMMAND…]", show_default=False, help="What --enter runs, not a shell."
        ),
    ] = None,
) -> None:
    """Build hosts and real encrypted tunnels on this machine, and ping through them.

    The hosts are network namespaces, the internet between them is a veth cable or a bridge. Every
    step of a packet between two of them is shown as it was measured, from the application that
    sends it to the one that gets it: through the IP stack, the tunnel, the IP stack again, and the
    same on the other host. The other topologies are drawn, and what there is to try in them is
    typed. Nothing stays behind. Root is not needed where the kernel allows user namespaces and
    /dev/net/tun is open to users (but for docker).

    Examples:

        tunnel lab
        tunnel lab --topology mesh --loss 5% --delay 40ms
    """
    wire = labwire.WireOptions(loss, delay, jitter, reorder, duplicate, corrupt, rebind, seed)
    bad = _bad_wire(wire, builds=enter is None and down is None and not confs)
    try:
        if enter is not None:
            entering.enter(enter, command or ())
        if command:
            fail("a COMMAND goes with --enter HOST", EXIT_USAGE)
        if down is not None:
            Lab.remove(down)
            typer.echo(f"lab {down} is gone")
            return
        plan = PLANS[topology or TopologyName.PAIR]
        if confs:
            labtrials.show_confs(plan)
            return
        pair_only = peer is not PeerKind.OURS or outer_v6 or svg is not None or not traced
        if plan is not PAIR and pair_only:
            fail("--peer, --ipv6, --no-trace and --svg are for --topology pair", EXIT_USAGE)
        if svg is not None:
            if not traced or peer is not PeerKind.OURS:
                fail(
                    "--svg draws the hops that a trace finds: leave out --no-trace and --peer",
                    EXIT_USAGE,
                )
            writable(svg)
        if plan.uses_docker:
            docker.check()
        if rootless.is_needed():
            rootless.enter_user_namespace([sys.executable, "-m", "tunnel", *sys.argv[1:]])
        rootless.check()
        with Lab() as lab:
            plan = (outside_v6(plan) if outer_v6 else plan).on_wire(bad).with_keys()
            _say(f"building {plan.title[0].lower()}{plan.title[1:]}: {_names(plan)}")
            if bad is not None:
                _say(f"on a bad wire: {plan.wire_words()}")
            built = build(
                lab,
                plan,
                preshared_key=generate_preshared_key(),
                foreign={} if peer is PeerKind.OURS else {"B": peer.value},
            )
            for name, end in built.ends.items():
                _say(f"starting {end.program} on {name}")
            built.up()
            if topology is not None and not as_json:
                labtrials.show_plan(plan)
            if plan.name == PAIR.name:
                passed = _run_pair(built, Show(traced, as_json, svg))
            else:
                passed = labtrials.run(built, as_json=as_json)
            first = next(iter(built.hosts.values()))
            if shell:
                typer.echo(labtrials.how_to_explore(built))
                first.shell()
            if keep:
                lab.keep()
                typer.echo(_how_to_go_on(lab, *built.hosts.values()))
        if not passed:
            raise typer.Exit(1)
    except (LabError, LabUnavailableError) as error:
        typer.echo(f"tunnel: {error}", err=True)
        raise typer.Exit(1) from None


def _bad_wire(options: labwire.WireOptions, *, builds: bool) -> BadWire | None:
    faults, seed = options.faults(), options.number()
    if faults is None:
        return None
    if not builds:
        fail(
            f"{', '.join(options.given())}: for a lab that is built; leave out --confs, --enter "
            "and --down",
            EXIT_USAGE,
        )
    return BadWire(faults, secrets.randbelow(10**6) if seed is None else seed)


def _names(plan: Blueprint) -> str:
    *names, last = (place.name for place in plan.places)
    return f"{', '.join(names)} and {last}"


@dataclass(frozen=True)
class Show:
    """What is to be shown, and how."""

    traced: bool
    as_json: bool
    svg: Path | None


def _run_pair(built: Built, show: Show) -> bool:
    """Ping from A to B, and show the steps of it; whether it got there."""
    a, b = built.hosts["A"], built.hosts["B"]
    target = built.address("B")
    _say(f"pinging {target} from A, through the tunnel")
    # The first packet waits for the handshake; the second shows the path alone.
    a.ping(target)
    foreign = built.ends["B"].program != OurEnd.program
    watched = [(a, "wg0"), (a, "eth0"), (b, "eth0"), (b, "wg0")]
    # A bad wire may take the only packet.
    for _ in range(1 if built.plan.wire is None else 5):
        journeys: list[Journey] = []

        def ping(found: list[Journey] = journeys) -> None:
            found.extend(_ping(a, b, target, traced=show.traced and not foreign))

        steps = list(find_steps(crossings.watch(watched, ping)))
        if steps and (steps[-1].host, steps[-1].interface) == ("A", "wg0"):
            break
    _show(built, steps, journeys, show)
    return True


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


def _show(built: Built, steps: list[PingStep], journeys: list[Journey], show: Show) -> None:
    if show.as_json:
        report = labtrials.report(built)
        report["steps"] = [asdict(step) for step in steps]
        report["journeys"] = journeys
        print_json(report)
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


def _how_to_go_on(lab: Lab, *hosts: Host) -> str:
    lines = ["", f"Lab {lab.id} stays. Enter a host:"]
    lines += [
        f"  {' '.join(host.enter_command_for_user())} {os.environ.get('SHELL', 'sh')}"
        for host in hosts
    ]
    program = "tunnel" if shutil.which("tunnel") else f"{sys.executable} -m tunnel"
    return "\n".join([*lines, "Take it down:", f"  {program} lab --down {lab.id}"])
