"""What another program has set up: who takes it down is named, by a command that there is."""

from __future__ import annotations

import pytest

from tunnel import host
from tunnel.containers.cni import plugin
from tunnel.containers.docker import wiring
from tunnel.daemon.teardown import refuse_others
from tunnel.errors import DaemonError
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
