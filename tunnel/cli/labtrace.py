"""The picture that `tunnel lab` shows first: one ping through both hosts, every hop as measured."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Iterator

from rich.text import Text

from tunnel.cli import timeline
from tunnel.lab import Host, LabError
from tunnel.trace.journey import Chain, Journey, Step, join_hosts

_COMMAND = [sys.executable, "-m", "tunnel", "trace", "wg0", "--json"]
_SECONDS = 30.0


def missing() -> str | None:
    """Why hops cannot be traced here, or None."""
    return None if shutil.which("nft") else "the program nft is missing"


def trace_ping(a: Host, b: Host, target: str) -> list[Journey]:
    """Ping `target` once from `a` and trace it on both hosts. Raises LabError."""
    # Without the address, what IPv6 says by itself on a new interface is ICMP too.
    command = [*_COMMAND, "icmp", "and", "host", target]
    far = b.popen([*command, "--seconds", str(_SECONDS)])
    far.wait_for_output("tracing wg0")
    ping = ["ping", "-n", "-c", "1", "-W", "5", target]
    # A ping without an answer is no failure of the trace: it shows where it died.
    near = a.run([*command, "--", *ping], timeout=_SECONDS, check=False)
    if "{" not in near.stdout:
        raise LabError(f"the trace on {a.name} failed: {near.stderr.strip()}")
    far.signal(signal.SIGINT)
    if far.wait(_SECONDS) != 0:
        raise LabError(f"the trace on {b.name} failed: {far.log().strip()}")
    return [*_journeys(near.stdout, a.name), *_journeys(far.log(), b.name)]


def _journeys(text: str, host: str) -> Iterator[Journey]:
    """Those of a report, which may have words before and after it."""
    report, _ = json.JSONDecoder().raw_decode(text[text.index("{") :])
    for data in report["journeys"]:
        yield Journey.from_json(data).on(host)


def draw(journeys: list[Journey]) -> Iterator[Text]:
    """The request and the reply, each from application to application."""
    for chain in _packets(journeys):
        first = chain.journeys[0]
        yield Text()
        yield Text.assemble((first.packet, "bold"), f"   {first.flow}")
        before: float | None = None
        for journey in chain.journeys:
            way = "out of the tunnel" if journey.direction == "in" else "into the tunnel"
            yield Text.assemble((f"  host {journey.host}", "bold underline"), f"  {way}")
            yield from timeline.step_lines(journey, before=before)
            before = journey.steps[-1].time
        if chain.journeys[-1].outcome != "passed":
            yield timeline.end(chain.journeys[-1])
    yield Text()
    for sentence in conclude(journeys):
        yield Text(sentence)


def conclude(journeys: list[Journey]) -> Iterator[str]:
    """What is to be learnt from it."""
    chains = _packets(journeys)
    if not chains or len(chains[0].journeys) < 2:
        yield "No packet was seen on its whole way."
        return
    out, back_in = chains[0].journeys[:2]
    inner, outer = (_last(out, layer) for layer in ("inner", "outer"))
    if inner is None or outer is None:
        yield "The packet did not get through."
        return
    seal = next((step for step in out.steps if step.place == "seal"), None)
    header = outer.size - 8 - (seal.size if seal else 0)
    padding = outer.size - header - 8 - 32 - inner.size
    hops = sum(len(journey.steps) for journey in chains[0].journeys)
    elapsed = (back_in.steps[-1].time - out.start) * 1e6
    yield (
        f"The packet crossed {out.host}'s IP stack twice: first as {inner.size} bytes, which the "
        "route sent into wg0;"
    )
    yield (
        f"then sealed, as {inner.size} + {header} IP + 8 UDP + 16 header + {padding} padding + "
        f"16 tag = {outer.size} bytes of UDP."
    )
    yield (
        f"On {back_in.host} the same happened the other way round. {hops} steps from one "
        f"application to the other, {elapsed:.0f} µs,"
    )
    yield "each of them reported while it happened, which takes its time too."


def _packets(journeys: list[Journey]) -> list[Chain]:
    """Chains of the ping itself."""
    return join_hosts([journey for journey in journeys if journey.counts])


def _last(journey: Journey, layer: str) -> Step | None:
    return next((step for step in reversed(journey.steps) if step.layer == layer), None)
