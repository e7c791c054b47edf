"""What `tunnel lab --topology` prints: the picture, the confs, and what was tried in it."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import NotRequired, TypedDict

import typer

from tunnel.cli.common import print_json
from tunnel.lab.building import Built, Outcome
from tunnel.lab.drawing import WIDTH, draw
from tunnel.lab.plan import EXAMPLE_KEYS, Blueprint, example_key
from tunnel.trace.journey import Journey

_SIGNS = {True: "✓", False: "✗", None: "?"}
_MARGIN = "    "


def show_plan(plan: Blueprint) -> None:
    """The title, what it is there for, and the picture."""
    typer.echo(f"\n{plan.title}\n")
    for line in textwrap.wrap(plan.lesson, WIDTH - 2):
        typer.echo(f" {line}")
    typer.echo()
    for line in draw(plan):
        typer.echo(f" {line}".rstrip())


def show_confs(plan: Blueprint) -> None:
    """The picture, and the confs with the keys that the examples have."""
    show_plan(plan)
    keyed = plan.with_keys(example_key)
    for side in keyed.sides:
        typer.echo(f"\n# wg0.conf of {side.name}. {EXAMPLE_KEYS}")
        typer.echo(keyed.conf(side.name), nl=False)


def run(built: Built, *, as_json: bool) -> bool:
    """Type all trials of the plan; whether none failed."""
    outcomes: list[Outcome] = []
    for trial in built.plan.trials:
        outcomes.append(built.attempt(trial, columns=WIDTH - len(_MARGIN)))
        if not as_json:
            _show(outcomes[-1])
    failed = [outcome for outcome in outcomes if outcome.passed is False]
    if as_json:
        found = report(built)
        found["trials"] = [
            {
                "host": outcome.trial.host,
                "command": outcome.trial.command,
                "shows": outcome.trial.shows,
                "passed": outcome.passed,
                "output": outcome.output,
            }
            for outcome in outcomes
        ]
        print_json(found)
    elif failed:
        typer.echo(f"\n{len(failed)} of {len(outcomes)} did not show what is described (✗).")
    return not failed


def _show(outcome: Outcome) -> None:
    trial = outcome.trial
    typer.echo(f"\n {_SIGNS[outcome.passed]} {trial.shows}")
    typer.echo(f"{_MARGIN}{trial.host}# {trial.command}")
    for line in outcome.output.strip("\n").splitlines():
        typer.echo(f"{_MARGIN}{line}".rstrip())


class HostReport(TypedDict):
    """A host of the lab. One that is an end of a tunnel also has `inner`, its addresses there,
    `outer`, its endpoint (null if nobody is told it), its key, and the program that runs.
    """

    name: str
    namespace: str
    inner: NotRequired[list[str]]
    outer: NotRequired[str | None]
    public_key: NotRequired[str]
    program: NotRequired[str]


class TrialReport(TypedDict):
    """A command typed on a host, and what it shows. `passed` is null if it cannot be told."""

    host: str
    command: str
    shows: str
    passed: bool | None
    output: str


class LabReport(TypedDict):
    """A lab. `wire` is there if it is bad. One of two hosts has the `steps` of a ping on each
    interface and its `journeys`, one of a topology its `trials`.
    """

    lab: str
    topology: str
    hosts: list[HostReport]
    wire: NotRequired[dict[str, dict[str, float] | int | str]]
    steps: NotRequired[list[dict[str, str | int | float]]]
    journeys: NotRequired[list[Journey]]
    trials: NotRequired[list[TrialReport]]


def report(built: Built) -> LabReport:
    """What stands, for programs."""
    hosts = []
    for name, host in built.hosts.items():
        entry: HostReport = {"name": name, "namespace": host.netns}
        side = built.plan.side(name)
        if side is not None:
            entry |= {
                "inner": list(side.addresses),
                "outer": side.endpoint,
                "public_key": side.public_key,
                "program": built.ends[name].program,
            }
        hosts.append(entry)
    found: LabReport = {"lab": built.lab.id, "topology": built.plan.name, "hosts": hosts}
    if built.plan.wire is not None:
        found["wire"] = asdict(built.plan.wire) | {"rebound": built.plan.rebound()}
    return found


def how_to_explore(built: Built) -> str:
    """What to type in the shell that is about to be opened."""
    first, *others = built.hosts
    lines = [f"\nThis is host {first}. ^D ends it, and the lab. Try:"]
    lines += [f"  {trial.command}" for trial in built.plan.trials if trial.host == first]
    lines += [
        f"Another host ({', '.join(others)}), from here or in another terminal:",
        f"  tunnel lab --enter {others[0]}",
    ]
    for name, end in built.ends.items():
        lines.append(f"The conf of {name}: {end.conf}")
    return "\n".join(lines)
