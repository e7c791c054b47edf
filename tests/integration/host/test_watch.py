"""Link events of a real interface."""

from collections.abc import AsyncIterator

import pytest
import trio

from tests.support.host_namespace import Namespace
from tunnel.host.watch import LinkEvent, LinkGone, LinkStatus, watch_link

pytestmark = pytest.mark.root


def index_of(ns: Namespace, name: str) -> int:
    return int(ns.ip("-o", "link", "show", name).split(":")[0])


async def following(events: AsyncIterator[LinkEvent]) -> LinkEvent:
    with trio.fail_after(10):
        return await anext(events)


def test_mtu_up_down_rename_and_deletion(ns: Namespace) -> None:
    async def main() -> None:
        with watch_link(index_of(ns, "tun0"), netns=ns.path) as events:
            assert await following(events) == LinkStatus("tun0", 1500, up=False)
            ns.ip("link", "set", "out0", "mtu", "1400")
            ns.ip("link", "set", "tun0", "mtu", "1300")
            assert await following(events) == LinkStatus("tun0", 1300, up=False)
            ns.ip("link", "set", "tun0", "up")
            assert await following(events) == LinkStatus("tun0", 1300, up=True)
            ns.ip("link", "set", "tun0", "down")
            assert await following(events) == LinkStatus("tun0", 1300, up=False)
            ns.ip("link", "set", "tun0", "name", "other")
            assert await following(events) == LinkStatus("other", 1300, up=False)
            ns.ip("link", "delete", "other")
            assert await following(events) == LinkGone(moved=False)
            with pytest.raises(StopAsyncIteration):
                await following(events)

    trio.run(main)


def test_move_to_another_namespace(ns: Namespace, other: Namespace) -> None:
    async def main() -> None:
        with watch_link(index_of(ns, "tun0"), netns=ns.path) as events:
            await following(events)
            ns.ip("link", "set", "tun0", "netns", other.name)
            assert await following(events) == LinkGone(moved=True)

    trio.run(main)


def test_interface_that_is_gone_already(ns: Namespace) -> None:
    async def main() -> None:
        with watch_link(4242, netns=ns.path) as events:
            assert [event async for event in events] == [LinkGone(moved=False)]

    trio.run(main)


def test_flood_of_events_ends_in_the_right_state(ns: Namespace) -> None:
    async def main() -> None:
        with watch_link(index_of(ns, "tun0"), netns=ns.path) as events:
            events._socket.setsockopt(1, 8, 2304)  # SO_RCVBUF: the smallest, so that it overflows
            batch = "\n".join(f"link set tun0 mtu {1000 + n}" for n in range(200))
            ns.run("sh", "-c", f"echo '{batch}' | ip -batch -")
            with trio.fail_after(10):
                async for event in events:
                    if event == LinkStatus("tun0", 1199, up=False):
                        break

    trio.run(main)
