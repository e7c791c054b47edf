"""All traffic of a host through Debian's wg-quick and `tunnel-wg`, and not a frame beside it."""

from __future__ import annotations

import pytest

from tests.integration.daemon.full_tunnel import ELSEWHERE, make_world, say_much, use_it
from tests.integration.tunnel.test_two_hosts import remains
from tests.interop.test_wg_quick import quick, write
from tests.leaks import Outgoing
from tunnel.lab import Lab, LabError

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg", "wg-quick"), pytest.mark.timeout(300)]


@pytest.mark.parametrize("outer", [4, 6])
def test_nothing_leaks(lab: Lab, script: str, outer: int) -> None:
    world = make_world(lab, outer=outer)
    a, (b,) = world.a, world.far
    before = remains(a)
    conf = write(a, world.confs[0])
    quick(a, script, "up", conf)
    with Outgoing(a) as seen:
        use_it(a, b.node.host)
        b.down()
        say_much(a)
        with pytest.raises(LabError):
            a.ping(ELSEWHERE[0], timeout=1)
        seen.read(*world.endpoints)
        assert seen.strangers == []
        assert seen.tunnelled > 2 * 300_000
    quick(a, script, "down", conf)
    a.wait_for(lambda: remains(a) == before, 10, "the daemon to end")
