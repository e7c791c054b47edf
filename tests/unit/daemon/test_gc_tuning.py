"""No collection looks through many objects, however many there are; garbage stays a bounded few.

In a process of its own: what is done to the collector is done for good. Objects are counted, no
time is taken.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tunnel.daemon import gc_tuning

YOUNG, MIDDLE, OLD = gc_tuning.THRESHOLDS
# A generation is collected when its count has gone beyond the threshold.
PENDING = (YOUNG + 1) * (MIDDLE + 1) * (OLD + 1)
MOST = gc_tuning.MAX_UNFROZEN + 2 * PENDING

SETUP = """
import gc, json, sys
from tunnel.daemon.gc_tuning import avoid_pauses

most = fulls = 0

def look(phase, info):
    global most, fulls
    if phase == "start" and info["generation"] == 2:
        fulls += 1
        most = max(most, sum(len(gc.get_objects(number)) for number in range(3)))

class Node:
    alive = 0

    def __init__(self):
        self.self = self
        Node.alive += 1

    def __del__(self):
        Node.alive -= 1

avoid_pauses()
"""
LOOKING = "gc.callbacks.append(look)\n"

pytestmark = pytest.mark.skipif(
    sys.version_info >= (3, 14), reason="this Python collects in increments by itself"
)


def run(body: str, looking: str = LOOKING) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + looking + body], capture_output=True, text=True, check=True
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def test_a_large_configuration_is_not_looked_through() -> None:
    found = run(
        """
kept = [[number] for number in range(400_000)]
kept += [[number] for number in range(400_000)]
print(json.dumps({"most": most, "fulls": fulls, "frozen": gc.get_freeze_count()}))
"""
    )
    assert found["fulls"] > 1
    assert found["most"] <= MOST
    assert found["frozen"] >= 800_000 - MOST


def test_cycles_are_collected_beside_a_large_configuration() -> None:
    found = run(
        """
kept = [[number] for number in range(200_000)]
highest = 0
for number in range(300_000):
    Node()
    highest = max(highest, Node.alive)
print(json.dumps({"most": most, "highest": highest}))
"""
    )
    assert found["highest"] <= MOST
    assert found["most"] <= MOST


def test_cycles_that_live_for_a_while_are_collected() -> None:
    """They survive into the oldest generation, as peers do that are removed after a minute."""
    found = run(
        """
from collections import deque
window = deque(maxlen=3_000)
highest = 0
for number in range(300_000):
    window.append(Node())
    highest = max(highest, Node.alive)
frozen = gc.get_freeze_count()
print(json.dumps({"highest": highest, "fulls": fulls, "most": most}))
"""
    )
    assert found["fulls"] > 1
    assert found["highest"] <= MOST
    assert found["most"] <= MOST


def test_what_was_frozen_is_freed_by_its_count() -> None:
    found = run(
        """
kept = [[number] for number in range(400_000)]
before = gc.get_freeze_count()
kept.clear()
print(json.dumps({"before": before, "after": gc.get_freeze_count()}))
"""
    )
    assert found["before"] - found["after"] >= 400_000 - MOST


def test_no_step_of_the_interpreter_sees_the_list_of_survivors() -> None:
    """Between two another thread may run that fills a tuple, which may have no other owner."""
    found = run(
        """
mark = [[]]
alone = sys.getrefcount(mark)
gc.collect()
seen = set()
sys.setprofile(lambda *_: seen.add(sys.getrefcount(mark)))
gc.collect()
sys.setprofile(None)
looked_at = any(kept is mark for kept in gc.get_objects(2))
print(json.dumps({"alone": alone, "most": max(seen), "looked_at": looked_at}))
""",
        looking="",
    )
    assert found["looked_at"]
    assert found["most"] == found["alone"]
