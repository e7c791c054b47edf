"""The folders of examples/ that are topologies of the lab: what their files say, from its plans."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

from tunnel.lab.drawing import draw
from tunnel.lab.plan import EXAMPLE_KEYS, Blueprint, example_key
from tunnel.lab.plans import PLANS

FOLDER = Path(__file__).parents[2] / "examples"

PUBLISHED = [PLANS[name] for name in ("pair", "nat", "hub", "mesh", "bridge", "tap", "gateway")]
"""Those that have a folder written from their plan."""

_LAB = """\
`tunnel lab --topology {} --shell` builds this on one machine, types what is below, and opens a
shell in {}. A test does the same with the confs of this folder."""

_HOSTS = """\
For hosts of your own: put each conf at `/etc/tunnel/wg0.conf` (mode 600), with keys of your own
(`tunnel genkey`, `tunnel pubkey`) and your addresses, and start it by `sudo tunnel up wg0`."""


def files(plan: Blueprint) -> Iterator[tuple[Path, str]]:
    """Each file of the plan's folder, and its text."""
    folder = FOLDER / plan.name
    keyed = plan.with_keys(example_key)
    for side in keyed.sides:
        text = (
            f"# Host {side.name}: /etc/tunnel/wg0.conf\n# {EXAMPLE_KEYS}\n{keyed.conf(side.name)}"
        )
        yield folder / f"{side.name}.conf", text
    yield folder / "README.md", "\n".join(_readme(plan)) + "\n"


def read_confs(plan: Blueprint) -> dict[str, str]:
    """The confs as they are published, by host."""
    return {
        side.name: (FOLDER / plan.name / f"{side.name}.conf").read_text() for side in plan.sides
    }


def _readme(plan: Blueprint) -> Iterator[str]:
    yield f"# {plan.title}\n"
    yield from _wrapped(plan.lesson)
    yield "\n```"
    yield from draw(plan)
    yield "```\n"
    yield from _wrapped(_LAB.format(plan.name, plan.places[0].name))
    yield "\n| host | conf |"
    yield "| --- | --- |"
    for side in plan.sides:
        yield f"| {side.name} | [{side.name}.conf]({side.name}.conf) |"
    yield ""
    yield from _wrapped(_HOSTS)
    yield "\n## What to try\n"
    if any("--enter" in trial.command for trial in plan.trials):
        yield "`tunnel lab --enter HOST` is for the lab: it runs a command on that host.\n"
    yield "| on | type | and see |"
    yield "| --- | --- | --- |"
    for trial in plan.trials:
        yield f"| {trial.host} | `{trial.command}` | {trial.shows} |"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 100, break_on_hyphens=False)
