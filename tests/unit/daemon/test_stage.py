"""The life of a daemon goes one way."""

from __future__ import annotations

from itertools import pairwise

import pytest
import trio

from tests.support.confs import INTERFACE, read
from tunnel.daemon.daemon import Daemon, Stage

NEW, STARTING, UP = Stage.NEW, Stage.STARTING, Stage.UP
STOPPING, ABORTING, DOWN = Stage.STOPPING, Stage.ABORTING, Stage.DOWN

LIVES = [
    (NEW, STARTING, UP, STOPPING, DOWN),
    (NEW, STARTING, ABORTING, DOWN),
    (NEW, STARTING, ABORTING, UP, STOPPING, DOWN),
    (NEW, ABORTING, DOWN),
]


def at(stage: Stage) -> Daemon:
    daemon = Daemon(read(INTERFACE))
    daemon.stage = stage
    return daemon


@pytest.mark.parametrize("life", LIVES)
def test_each_life_can_be_lived(life: tuple[Stage, ...]) -> None:
    daemon = at(NEW)
    for stage in life[1:]:
        daemon.enter(stage)


@pytest.mark.parametrize("before", Stage)
@pytest.mark.parametrize("after", Stage)
def test_no_other_way_leads_from_one_stage_to_another(before: Stage, after: Stage) -> None:
    if any((before, after) in pairwise(life) for life in LIVES):
        return
    with pytest.raises(RuntimeError, match=f"no way from {before.name} to {after.name}"):
        at(before).enter(after)


@pytest.mark.parametrize(
    ("before", "after"),
    [(NEW, ABORTING), (STARTING, ABORTING), (UP, STOPPING), (STOPPING, STOPPING), (DOWN, DOWN)],
)
def test_stop_ends_it_wherever_it_is(before: Stage, after: Stage) -> None:
    async def main() -> None:
        daemon = at(before)
        daemon.stop()
        assert daemon.stage is after
        assert daemon.stopping.is_set()
        # A CancelScope needs a clock to say this.
        assert daemon.starting.cancel_called is (after is ABORTING)

    trio.run(main)
