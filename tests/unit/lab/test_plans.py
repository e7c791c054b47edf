"""The plans of the lab: their pictures, and the examples that are written from them.

With TUNNEL_WRITE_DOCS=1 the examples are written instead of being compared.
"""

from __future__ import annotations

import itertools
import os

import pytest

from tests.support.examples import FOLDER, PUBLISHED, files
from tunnel.cli.lab import TopologyName
from tunnel.config import parse
from tunnel.lab.drawing import WIDTH, draw
from tunnel.lab.plan import Blueprint, example_key
from tunnel.lab.plans import PLANS

ALL = [pytest.param(plan, id=name) for name, plan in PLANS.items()]


@pytest.mark.parametrize("plan", PUBLISHED, ids=lambda plan: str(plan.name))
def test_an_example_is_what_its_plan_says(plan: Blueprint) -> None:
    wanted = dict(files(plan))
    if os.environ.get("TUNNEL_WRITE_DOCS"):
        for path, text in wanted.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for path, text in wanted.items():
        assert path.read_text() == text
    assert set((FOLDER / plan.name).iterdir()) == set(wanted)


@pytest.mark.parametrize("plan", ALL)
def test_a_picture_has_every_host_and_fits(plan: Blueprint) -> None:
    picture = draw(plan)
    assert max(map(len, picture)) <= WIDTH - 1
    text = "\n".join(picture)
    for place in plan.places:
        assert f"│ {place.name}" in text
    for network in plan.networks:
        assert f" {network.name} " in text
        for addresses in network.members.values():
            assert addresses[0].partition("/")[0] in text
    corners = [text.count(corner) for corner in "┌┐└┘"]
    assert corners == [len(plan.places)] * 4
    # A cable that leaves a network or a box goes on below.
    for above, below in itertools.pairwise(picture):
        for column, sign in enumerate(above):
            assert sign not in "╤╪┬" or below[column] == "│", f"{above}\n{below}"


def test_the_confs_of_a_plan_are_read() -> None:
    for plan in PLANS.values():
        keyed = plan.with_keys(example_key)
        for side in plan.sides:
            config = parse(keyed.conf(side.name), name="wg0", source=side.name)
            assert [peer.friendly_name for peer in config.peers] == list(side.peers)


@pytest.mark.parametrize("plan", ALL)
def test_a_plan_is_whole(plan: Blueprint) -> None:
    names = {place.name for place in plan.places}
    assert len(names) == len(plan.places)
    for network in plan.networks:
        assert set(network.members) <= names
        assert not network.bridge or network.bridge in network.members
    ends = {side.name for side in plan.sides}
    for side in plan.sides:
        assert set(side.peers) <= ends
        for peer in plan.sides:
            assert (peer.name in side.peers) == (side.name in peer.peers)
    assert {trial.host for trial in plan.trials} <= names - plan.containers()
    assert any("trace" in trial.command for trial in plan.trials)


def test_the_command_offers_every_plan() -> None:
    assert [*TopologyName] == [*PLANS]
