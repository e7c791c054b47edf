from __future__ import annotations

import trio
import trio.testing

from tunnel.control.broadcast import EventQueue, Events
from tunnel.daemon.run import DROPS_PERIOD, watch_drops, watch_port
from tunnel.io.udp import Udp
from tunnel.protocol import ProtocolDrop


def test_every_change_of_the_port_is_published() -> None:
    async def main() -> None:
        feed = Events("event streams")
        with Udp.open() as udp, feed.subscribe(EventQueue()) as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_port, feed, udp)
                await trio.testing.wait_all_tasks_blocked()
                before = udp.port
                udp.set_fwmark(0)
                udp.set_port(0)
                event = await anext(events)
                assert (event.type, event.details) == ("port", {"old": before, "new": udp.port})
                assert before != udp.port
                nursery.cancel_scope.cancel()

    trio.run(main)


def test_drops_are_published_only_for_subscribers_and_only_new_ones() -> None:
    counted = 0
    drops = {"full": 3, "padding": 1}

    def count() -> dict[str, int]:
        nonlocal counted
        counted += 1
        return dict(drops)

    async def main() -> None:
        feed = Events("event streams")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch_drops, feed, count)
            await trio.sleep(10 * DROPS_PERIOD)
            assert counted == 0
            with feed.subscribe(EventQueue()) as events:
                await trio.sleep(3.5 * DROPS_PERIOD)
                drops["full"] += 2
                drops[ProtocolDrop.LINK_MULTICAST] = 1
                event = await anext(events)
                assert event.type == "drops"
                assert event.details == {"new": {"full": 2}, "total": {"full": 5, "padding": 1}}
                drops[ProtocolDrop.LINK_MULTICAST] += 1
                with trio.move_on_after(3 * DROPS_PERIOD) as waiting:
                    await anext(events)
                assert waiting.cancelled_caught
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
