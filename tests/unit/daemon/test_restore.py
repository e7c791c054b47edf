"""What is put back when the interface comes up again."""

from __future__ import annotations

from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import trio

from tunnel import host
from tunnel.daemon import reload
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.host_state import HostState


def test_an_mtu_that_no_event_has_reported_yet_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[int] = []

    class Applied(host.Applied):
        def reconcile(self, state: host.DesiredState) -> host.Applied:
            wanted.append(state.mtu)
            return self

    async def at_home(*_: object) -> None:
        return None

    monkeypatch.setattr(reload, "whereabouts", at_home)
    daemon = MagicMock()
    engine = SimpleNamespace(mtu=1420, tun=SimpleNamespace(link=lambda: SimpleNamespace(mtu=9000)))

    async def restored() -> None:
        daemon.device = SimpleNamespace(changing=trio.Lock(), engine=engine)
        await Daemon.restore(daemon)

    applied = Applied(host.DesiredState("wg0", mtu=1420), None)
    daemon.host = HostState(applied, MagicMock())
    trio.run(restored)
    assert wanted == [9000]
