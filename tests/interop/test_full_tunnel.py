"""All traffic of a host through Debian's wg-quick and `tunnel-wg`, and not a frame beside it."""

from __future__ import annotations

import pytest

from tests.support.full_tunnel import check_that_nothing_leaks, make_world
from tests.support.pairs import remains
from tests.support.wg_quick import quick, write
from tunnel.lab import Lab

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg", "wg-quick"), pytest.mark.timeout(300)]


@pytest.mark.real_root
@pytest.mark.parametrize("outer", [4, 6])
def test_nothing_leaks(lab: Lab, script: str, outer: int) -> None:
    world = make_world(lab, outer=outer)
    a = world.a
    before = remains(a)
    conf = write(a, world.confs[0])
    quick(a, script, "up", conf)
    check_that_nothing_leaks(world)
    quick(a, script, "down", conf)
    a.wait_for(lambda: remains(a) == before, 10, "the daemon to end")
