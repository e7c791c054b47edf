"""Gathering facts: first a look at everything, then probes under a trace, then a second look."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import trio

from tunnel import config
from tunnel.config import EndpointConfig
from tunnel.control.client import TunnelClient
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.messages.changes import Change
from tunnel.control.messages.sentences import some
from tunnel.control.messages.status import TunnelStatus
from tunnel.device.resolve import ResolveError, resolve
from tunnel.doctor import around, firewall, machine, routing
from tunnel.doctor.choosing import MAX_PROBES, choose, own_address
from tunnel.doctor.facts import (
    Behind,
    Facts,
    LookUp,
    Options,
    Probe,
    RouteFacts,
    endpoint_address,
    is_fresh,
)
from tunnel.doctor.probing import SMALL, Pinger
from tunnel.errors import DaemonError, unwrapped
from tunnel.host import HostError
from tunnel.io.endpoint import Endpoint
from tunnel.packet.filter import Filter
from tunnel.trace.journey import Journey
from tunnel.trace.session import TraceRequest, TraceSession
from tunnel.trace.trace_table import TraceTableError

NOT_INSIDE = "what is around the interface, and probes (it is in another network namespace)"

TRACE_START = 10.0
"""Seconds that a trace may take before it is ready."""
TICK = 0.2
GRACE = 1.5
"""Seconds that an address gets to answer once its peer has."""
LOOK_UP_SECONDS = 10.0
DIFF_SECONDS = 10.0
ANSWER_SECONDS = 5.0
"""In which a daemon answers that does not hang."""
TWO_INITIATIONS = 7.0
"""Seconds in which a peer without a session is sent two handshake initiations, and has answered
one (whitepaper, section 6.1: Rekey-Timeout is 5 seconds, and there is jitter).
"""
REASON_SECONDS = 3.0
"""Seconds that the others get once a reason was seen for which a peer may be silent."""
REASONS = ("handshake_invalid", "bad_mac1", "unknown_peer", "old_timestamp", "low_order_peer")
"""Drops that explain why there is no session; they may be noise, too."""


@dataclass
class _Notes:
    """What is learnt on the way, and what is said of it meanwhile."""

    progress: Callable[[str], None] = lambda words: None
    skipped: list[str] = field(default_factory=list)
    journeys: list[Journey] = field(default_factory=list)


async def gather(
    name: str,
    conf: str | None,
    options: Options,
    progress: Callable[[str], None] = lambda words: None,
) -> Facts:
    """All facts of the tunnel `name`, its conf being `conf` (None if there is none).

    Changes nothing. Takes as long as answers need to come, and `options.wait` seconds at most if
    none do. What it is at is said to `progress`, in words.
    """
    notes = _Notes(progress)
    facts = Facts(name, time.time(), options, missing=machine.missing_capabilities())
    progress("reading the conf, looking up names")
    facts = await _read_conf(facts, conf)
    progress("asking the daemon")
    facts = await trio.to_thread.run_sync(_ask_daemon, facts, notes)
    if facts.before is not None:
        facts = replace(facts, probes=choose(facts, facts.before))
    if facts.elsewhere:
        notes.skipped.append("links, routes, rules and probes (another network namespace)")
    else:
        progress("looking at links, routes and rules")
        facts = await trio.to_thread.run_sync(_look, facts, notes)
    facts = await _rehearse(facts, notes)
    if facts.options.forward and not facts.missing:
        facts = replace(facts, behind=await _look_behind(facts, notes))
    if _can_probe(facts):
        before = machine.count_spoofed()
        facts = await _probe(facts, notes)
        facts = await trio.to_thread.run_sync(_look_again, facts)
        facts = replace(facts, spoofed=machine.count_spoofed() - before)
    skipped = (*notes.skipped, *_unseen(facts))
    return replace(facts, journeys=tuple(notes.journeys), skipped=skipped)


async def _look_behind(facts: Facts, notes: _Notes) -> Behind | None:
    """Whether the address asked for answers this host, and knows the way back into the tunnel."""
    address, status = facts.options.address, facts.before
    route = facts.routes.get(address or "")
    if address is None or status is None or route is None or route.local:
        return None
    source = own_address(status, address)
    if route.device in ("", facts.addressed) or source is None:
        return None
    notes.progress(f"asking {address}")
    found: dict[str | None, bool] = {}

    async def ask(device: str, sender: str | None) -> None:
        with unwrapped(OSError):
            async with Pinger.opened(device, sender) as pinger:
                found[sender] = await pinger.largest(address, [SMALL]) > 0

    try:
        with unwrapped(OSError):
            async with trio.open_nursery() as nursery:
                for sender in (None, source):
                    nursery.start_soon(ask, route.device, sender)
    except OSError as error:
        notes.skipped.append(f"the way to {address} ({error.strerror or error})")
        return None
    return Behind(address, route.device, source, found[None], found[source])


def _unseen(facts: Facts) -> Iterator[str]:
    """Of a tunnel that was looked at, the peers that say nothing of, and why."""
    status = facts.after
    if status is None or facts.elsewhere:
        return
    if not status.here:
        yield NOT_INSIDE
        return
    probed = {probe.peer for probe in facts.probes if probe.sent}
    measured = {probe.peer for probe in facts.probes if probe.tried}
    unasked, unmeasured = [], []
    for peer in status.peers:
        if peer.public_key not in probed:
            unasked.append(peer.public_key)
        elif peer.public_key not in measured and facts.is_alive(peer):
            unmeasured.append(peer.public_key)
    if unasked:
        yield "whether packets pass, for peers that were not probed: " + some(unasked)
    if unmeasured:
        yield (
            "the size of packets that pass, for peers where nothing answers pings (give "
            "--address): " + some(unmeasured)
        )


def _can_probe(facts: Facts) -> bool:
    """Whether the tunnel's own interface is here and up, and we may send by it."""
    status, link = facts.before, facts.links.get(facts.name)
    if status is None or link is None or facts.missing:
        return False
    return status.here and link.up


async def _read_conf(facts: Facts, conf: str | None) -> Facts:
    if conf is None:
        return facts
    facts = replace(facts, conf_path=conf)
    try:
        loaded = await trio.to_thread.run_sync(config.load, conf)
    except config.ConfigErrors as errors:
        return replace(facts, problems=tuple(errors.problems))
    wanted = {peer.endpoint.host: peer.endpoint for peer in loaded.peers if peer.endpoint}
    names = [endpoint for endpoint in wanted.values() if endpoint.address is None]
    look_ups: list[LookUp] = []
    async with trio.open_nursery() as nursery:
        for endpoint in names[:MAX_PROBES]:
            nursery.start_soon(_look_up, endpoint, look_ups)
    return replace(facts, conf=loaded, look_ups=tuple(sorted(look_ups, key=lambda each: each.host)))


async def _look_up(endpoint: EndpointConfig, found: list[LookUp]) -> None:
    causes = [f"no answer in {LOOK_UP_SECONDS:g} s"]
    with trio.move_on_after(LOOK_UP_SECONDS):
        try:
            addresses = await resolve(endpoint, tries=1, note=causes.append)
        except ResolveError:
            pass
        else:
            texts = (str(ip_address(address.address)) for address in addresses)
            found.append(LookUp(endpoint.host, tuple(dict.fromkeys(texts))))
            return
    found.append(LookUp(endpoint.host, error=causes[-1]))


async def _rehearse(facts: Facts, notes: _Notes) -> Facts:
    """Of a tunnel that is not up, what `tunnel up` would fail at."""
    if facts.conf is None or not facts.is_down:
        return facts
    hooks = facts.conf.interface
    kinds = [kind for kind, found in (("PreUp", hooks.pre_up), ("PostUp", hooks.post_up)) if found]
    if kinds:
        notes.skipped.append(f"whether the commands of {' and '.join(kinds)} succeed")
    if facts.missing:
        notes.skipped.append("what tunnel up would fail at (without privileges)")
        return facts
    notes.progress("looking for what tunnel up would fail at")
    # All of a daemon's modules; every other command would load them for nothing.
    from tunnel.daemon.rehearsal import rehearse

    known = {each.host: each.addresses for each in facts.look_ups}
    endpoints = [
        Endpoint(ip_address(address).packed, peer.endpoint.port)
        for peer in facts.conf.peers
        if peer.endpoint is not None
        for address in known.get(peer.endpoint.host, (str(peer.endpoint.address),))[:1]
    ]
    return replace(facts, obstacles=await rehearse(facts.conf, endpoints))


def _ask_daemon(facts: Facts, notes: _Notes) -> Facts:
    pid = 0
    try:
        with TunnelClient(facts.name, timeout=ANSWER_SECONDS) as client:
            pid = client.peer_pid()
            status = _status(facts, client)
    except NotRunningError as error:
        return replace(facts, killed=error.killed, shut=machine.has_kill_switch(facts.name))
    except ControlError as error:
        hangs = pid if error.code == "timeout" else 0
        busy = error.code == DaemonError.code
        refused = error.code == "permission"
        return replace(facts, daemon_error=str(error), hangs=hangs, busy=busy, refused=refused)
    except OSError as error:
        return replace(facts, daemon_error=str(error))
    lacks = tuple(c for c in machine.missing_capabilities(pid) if c == "CAP_NET_ADMIN")
    return replace(
        facts,
        before=status,
        after=status,
        daemon_missing=lacks,
        elsewhere=not facts.options.inside and not machine.in_our_namespace(pid),
        conf_gone=bool(status.conf) and not os.path.exists(status.conf),
        differences=_ask_differences(facts, status, notes),
    )


def _status(facts: Facts, client: TunnelClient) -> TunnelStatus:
    status = client.status()
    return replace(status, here=True) if facts.options.inside else status


def _ask_differences(
    facts: Facts, status: TunnelStatus, notes: _Notes
) -> tuple[Change, ...] | None:
    """What `tunnel diff` says; None where it cannot say anything."""
    # Where the daemon has put it itself, it knows what should be there.
    away = not status.netns and (facts.options.inside or not status.here)
    if facts.problems or away or not status.conf or not os.path.exists(status.conf):
        return None
    try:
        with TunnelClient(facts.name) as client:
            return client.diff(timeout=DIFF_SECONDS).changes
    except (ControlError, OSError) as error:
        notes.skipped.append(f"what should be around the tunnel, by tunnel diff ({error})")
        return None


def _look_again(facts: Facts) -> Facts:
    try:
        with TunnelClient(facts.name) as client:
            facts = replace(facts, after=_status(facts, client))
    except NotRunningError:
        facts = replace(facts, after=None, daemon_error="it went down while the doctor looked")
    except (ControlError, OSError):
        pass  # busy perhaps: what is known of it stays
    with contextlib.suppress(HostError):
        facts = replace(facts, links=machine.read_links())
    return facts


def _look(facts: Facts, notes: _Notes) -> Facts:
    """At the machine. What cannot be seen is noted, the rest goes on."""
    try:
        facts = replace(facts, links=machine.read_links())
        facts = _look_at_routes(facts)
    except HostError as error:
        notes.skipped.append(f"links and routes ({error})")
    try:
        facts = replace(facts, firewall=machine.read_firewall())
    except HostError as error:
        notes.skipped.append(f"firewall rules ({error})")
    return replace(facts, sysctls=machine.read_sysctls(facts.links))


def _look_at_routes(facts: Facts) -> Facts:
    status = facts.before
    if status is None:
        return facts
    routes: dict[str, RouteFacts] = {}
    unmarked: dict[str, RouteFacts] = {}
    # Datagrams leave from the namespace of the daemon.
    outer = () if facts.options.inside else status.peers
    peers = [peer for peer in outer if peer.endpoint][:MAX_PROBES]
    for address in filter(None, map(endpoint_address, peers)):
        if ip_address(address).is_link_local:
            continue  # the endpoint itself names the interface
        routes[address] = machine.read_route(address, status.fwmark)
        unmarked[address] = machine.read_route(address) if status.fwmark else routes[address]
    own_routes: dict[str, RouteFacts] = {}
    if facts.options.address is not None:
        routes[facts.options.address] = machine.read_route(facts.options.address)
    for probe in facts.probes:
        routes.setdefault(probe.address, machine.read_route(probe.address))
        source = own_address(status, probe.address)
        if source is not None:
            own_routes[probe.address] = machine.read_route(probe.address, source=source)
    known = machine.read_networks(facts.name) if facts.name in facts.links else None
    wide = around.samples_in(around.wide_networks(facts))
    return replace(
        facts,
        routes=routes,
        unmarked=unmarked,
        own_routes=own_routes,
        networks=known,
        dead_ends=machine.read_dead_ends(),
        samples=machine.read_samples(wide, status.fwmark),
    )


async def _probe(facts: Facts, notes: _Notes) -> Facts:
    """Send the probes, under a trace if one can be made."""
    # A trace names ICMP only: of other packets nothing is recorded.
    wanted = TraceRequest(facts.name, Filter.parse("icmp"), 100_000, facts.options.wait + 60.0)
    ready = trio.Event()
    session = TraceSession(wanted, notes.journeys.append, ready.set)

    async def trace() -> None:
        try:
            with unwrapped(Exception):
                await session.run()
        # Whatever it is: on a broken host the other checks are needed all the more.
        except Exception as error:
            expected = isinstance(error, OSError | TraceTableError | ControlError)
            why = str(error) if expected else f"{type(error).__name__}: {error}"
            notes.skipped.append(f"verdicts of the firewall, by a trace ({why})")
            ready.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trace)
        notes.progress("beginning a trace")
        with trio.move_on_after(TRACE_START):
            await ready.wait()
        try:
            with unwrapped(OSError):
                async with Pinger.opened(facts.addressed) as pinger:
                    probes = await _ping(facts, pinger, notes)
                    refusals = dict(pinger.refusals)
                facts = replace(facts, probes=probes, refusals=refusals, probe_id=pinger.identifier)
        except OSError as error:
            notes.skipped.append(f"probes through the tunnel ({error.strerror or error})")
        session.stop()
    return facts


async def _ping(facts: Facts, pinger: Pinger, notes: _Notes) -> tuple[Probe, ...]:
    """Wait for answers, then find how large they may be."""
    await _wait_for_answers(facts, pinger, notes)
    mtu = facts.links[facts.name].mtu
    found: list[Probe] = []

    async def measure(probe: Probe) -> None:
        passed = await pinger.find_size(probe.address, mtu)
        found.append(replace(probe, sent=True, answered=True, tried=mtu, passed=passed))

    notes.progress("measuring the largest packet that passes")
    async with trio.open_nursery() as nursery:
        for probe in facts.probes:
            if pinger.has_answered(probe.address):
                nursery.start_soon(measure, probe)
    answering = {probe.peer for probe in found}
    for probe in facts.probes:
        # Of several guesses one was right.
        if not pinger.has_answered(probe.address) and not (
            probe.guessed and probe.peer in answering
        ):
            found.append(replace(probe, sent=True, error=pinger.errors.get(probe.address, "")))
    return tuple(found)


async def _wait_for_answers(facts: Facts, pinger: Pinger, notes: _Notes) -> None:
    """Ping once a second until all have answered, or their peers have and GRACE is over, or it is
    known why not.
    """
    give_up: dict[str, float] = {}
    begin = trio.current_time()
    end = begin + facts.options.wait
    next_ping = begin
    waiting = [probe for probe in facts.probes if probe.peer is not None]
    sleeping = {
        peer.public_key: begin + TWO_INITIATIONS
        for peer in facts.peers
        if not is_fresh(peer, facts.now)
    }
    # Where no peer is there and none can be asked, one may be calling in vain.
    alone = not waiting and bool(facts.peers) and len(sleeping) == len(facts.peers)
    listening = begin + min(TWO_INITIATIONS, facts.options.wait) if alone else begin
    while (waiting and trio.current_time() < end) or trio.current_time() < listening:
        if trio.current_time() >= next_ping:
            next_ping += 1.0
            notes.progress(f"waiting for {_count(waiting)}, {end - trio.current_time():.0f} s")
            for probe in waiting:
                await pinger.send(probe.address)
        await trio.sleep(TICK)
        now = await trio.to_thread.run_sync(_look_again, facts)
        soon = trio.current_time() + REASON_SECONDS
        if _knows(now, waiting, pinger, notes):
            end = min(end, soon)
        if any(now.grown(reason) for reason in REASONS):
            listening = begin
            sleeping = {key: min(until, soon) for key, until in sleeping.items()}
        refused = {place.replace(" ", ":") for place in pinger.refusals}
        for peer in now.peers:
            if now.heard(peer):
                give_up.setdefault(peer.public_key, trio.current_time() + GRACE)
            elif peer.endpoint and peer.endpoint.replace("[", "").replace("]", "") in refused:
                give_up.setdefault(peer.public_key, trio.current_time())
        answered = {probe.peer for probe in waiting if pinger.has_answered(probe.address)}
        waiting = [
            probe
            for probe in waiting
            if not pinger.has_answered(probe.address)
            and not (probe.guessed and probe.peer in answered)
            and trio.current_time()
            < give_up.get(probe.peer or "", sleeping.get(probe.peer or "", float("inf")))
        ]


def _knows(facts: Facts, waiting: list[Probe], pinger: Pinger, notes: _Notes) -> bool:
    """Whether it was seen by now why there are no answers."""
    asked = tuple(replace(probe, sent=True) for probe in waiting)
    facts = replace(facts, probes=asked, probe_id=pinger.identifier, journeys=tuple(notes.journeys))
    checks = (firewall.check_verdicts, routing.check_sending)
    return any(True for check in checks for _ in check(facts))


def _count(waiting: list[Probe]) -> str:
    if not waiting:
        return "handshakes of peers that are not connected"
    peers = len({probe.peer for probe in waiting})
    return "an answer of a peer" if peers == 1 else f"answers of {peers} peers"
