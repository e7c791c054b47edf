from __future__ import annotations

import pytest
import trio
import trio.testing

from tunnel.control.broadcast import (
    MAX_SUBSCRIBERS,
    QUEUE,
    EventQueue,
    Events,
    TooManySubscribersError,
)
from tunnel.control.messages.events import TunnelEvent


def test_events_arrive_in_order_and_end_with_the_tunnel() -> None:
    async def main() -> list[str]:
        feed = Events("event streams")
        with feed.subscribe(EventQueue()) as events:
            feed.publish("one", number=1)
            feed.publish("two")
            feed.end()
            return [event.type async for event in events]

    assert trio.run(main) == ["one", "two"]


def test_slow_reader_loses_the_newest_and_is_told_how_many() -> None:
    async def main() -> list[TunnelEvent]:
        feed = Events("event streams")
        with feed.subscribe(EventQueue()) as slow, feed.subscribe(EventQueue()) as quick:
            got = []
            for number in range(QUEUE + 7):
                feed.publish("tick", number=number)
                got.append((await anext(quick)).details["number"])
            feed.end()
            assert got == list(range(QUEUE + 7))
            return [event async for event in slow]

    events = trio.run(main)
    assert [event.details["number"] for event in events[:-1]] == list(range(QUEUE))
    assert events[-1].type == "lost"
    assert events[-1].details == {"count": 7}


def test_flood_of_one_type_costs_no_event_of_another() -> None:
    async def main() -> list[TunnelEvent]:
        feed = Events("event streams")
        with feed.subscribe(EventQueue()) as slow:
            feed.publish("up")
            for number in range(QUEUE):
                feed.publish("roamed", number=number)
            for kind in ("handshake", "port", "drops", "reload"):
                feed.publish(kind)
                for _ in range(10):
                    feed.publish("roamed", number=-1)
            feed.publish("down")
            feed.end()
            return [event async for event in slow]

    events = trio.run(main)
    others = ["handshake", "port", "drops", "reload"]
    kept = QUEUE - len(others) - 2
    assert [event.type for event in events] == ["up", *["roamed"] * kept, *others, "lost", "down"]
    assert [event.details["number"] for event in events[1 : kept + 1]] == list(range(kept))
    assert events[-2].details == {"count": QUEUE + 40 - kept}


def test_reader_waits_until_something_happens() -> None:
    async def main() -> None:
        feed = Events("event streams")
        got: list[str] = []

        async def read() -> None:
            with feed.subscribe(EventQueue()) as events:
                async for event in events:
                    got.append(event.type)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await feed.wait_wanted()
            await trio.testing.wait_all_tasks_blocked()
            feed.publish("now")
            await trio.testing.wait_all_tasks_blocked()
            assert got == ["now"]
            feed.end()
        await feed.wait_idle()

    trio.run(main)


def test_subscribers_are_bounded_and_make_room_when_they_go() -> None:
    async def main() -> None:
        feed = Events("event streams")
        entered = [feed.subscribe(EventQueue()) for _ in range(MAX_SUBSCRIBERS)]
        for subscription in entered:
            subscription.__enter__()
        with pytest.raises(TooManySubscribersError), feed.subscribe(EventQueue()):
            pass
        entered[0].__exit__(None, None, None)
        with feed.subscribe(EventQueue()):
            pass
        for subscription in entered[1:]:
            subscription.__exit__(None, None, None)

    trio.run(main)


def test_event_survives_json() -> None:
    event = TunnelEvent("drops", 12.5, {"new": {"no_peer": 1}})
    assert TunnelEvent.from_json(event.to_json()) == event
