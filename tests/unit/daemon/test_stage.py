"""The life of a daemon goes one way."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from tests.support.confs import INTERFACE, read
from tunnel.daemon.daemon import Daemon, Stage
from tunnel.daemon.host_state import HostState
from tunnel.device.device import Device
from tunnel.host.errors import HostError
from tunnel.host.state import DesiredState

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


@pytest.mark.parametrize("error", [HostError("add", "route", "refused"), ValueError("a defect")])
def test_routes_that_cannot_be_restored_end_no_tunnel(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    def reconcile(state: object) -> None:
        raise error

    async def main() -> None:
        daemon = at(UP)
        tun = SimpleNamespace(link=lambda: SimpleNamespace(here=True, name=daemon.name, mtu=1420))
        device = SimpleNamespace(changing=trio.Lock(), engine=SimpleNamespace(mtu=1420, tun=tun))
        applied = SimpleNamespace(state=DesiredState(daemon.name), reconcile=reconcile)
        daemon.device = cast(Device, device)
        daemon.host = cast(HostState, SimpleNamespace(applied=applied))
        await daemon.restore()

    trio.run(main)
    (record,) = caplog.records
    assert str(error) in record.getMessage()
    # A defect is to be seen whole.
    assert (record.exc_info is not None) is isinstance(error, ValueError)


def test_an_mtu_that_no_event_has_reported_yet_stays_when_routes_are_restored() -> None:
    wanted: list[int] = []

    def reconcile(state: DesiredState) -> object:
        wanted.append(state.mtu)
        raise HostError("add", "route", "it is enough to have been asked")

    async def main() -> None:
        daemon = at(UP)
        tun = SimpleNamespace(link=lambda: SimpleNamespace(here=True, name=daemon.name, mtu=9000))
        device = SimpleNamespace(changing=trio.Lock(), engine=SimpleNamespace(mtu=1420, tun=tun))
        applied = SimpleNamespace(state=DesiredState(daemon.name), reconcile=reconcile)
        daemon.device = cast(Device, device)
        daemon.host = cast(HostState, SimpleNamespace(applied=applied))
        await daemon.restore()

    trio.run(main)
    assert wanted == [9000]
