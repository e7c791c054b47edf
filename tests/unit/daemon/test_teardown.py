"""What another program has set up: who takes it down is named, by a command that there is."""

from __future__ import annotations

import pytest

from tunnel import host
from tunnel.containers.cni import plugin
from tunnel.containers.docker import wiring
from tunnel.control.client import Ended
from tunnel.control.json_client import NotRunningError
from tunnel.daemon import teardown
from tunnel.daemon.teardown import Teardown, refuse_others
from tunnel.errors import AlreadyRunningError, DaemonError
from tunnel.wg_quick import wg_quick


@pytest.mark.parametrize(
    ("owner", "remedy"),
    [
        (wg_quick.OWNER, "take it down by tunnel-wg-quick down br0$"),
        (plugin.OWNER, "it goes with its network of containers$"),
        (f"{wiring.OWNER} for network 4ab0a4ce9cfd", "it goes with its network of containers$"),
    ],
)
def test_each_has_its_own_way_down(
    monkeypatch: pytest.MonkeyPatch, owner: str, remedy: str
) -> None:
    monkeypatch.setattr(host, "is_standing", lambda record: True)
    with pytest.raises(DaemonError, match=f"br0 was set up by {owner}; {remedy}"):
        refuse_others(host.Record("br0", 1, 1, owner=owner))
    refuse_others(host.Record("br0", 1, 1))


class Daemons:
    """Daemons that come one after another, by their process ids; and clients of them."""

    def __init__(self, *pids: int) -> None:
        self.pids = list(pids)

    def clean_up(self, name: str, *, fail_closed: bool = False) -> Teardown:
        if self.pids:
            raise AlreadyRunningError(f"a tunnel named {name} is already running")
        return Teardown(True, ("left",))

    def client(self, name: str) -> Daemons:
        if not self.pids:
            raise NotRunningError(name)
        return self

    def __enter__(self) -> Daemons:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def peer_pid(self) -> int:
        return self.pids[0]

    def down(self, *, stays_shut: bool = False) -> Ended:
        return Ended((f"failure of {self.pids.pop(0)}",))


def test_what_a_daemon_has_handed_over_goes_down_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes it over has the lock before `down` gets it."""
    daemons = Daemons(7, 8)
    monkeypatch.setattr(teardown, "TunnelClient", daemons.client)
    monkeypatch.setattr(teardown, "clean_up", daemons.clean_up)
    assert teardown.take_down("wg0") == Teardown(True, ("failure of 8", "left"))
