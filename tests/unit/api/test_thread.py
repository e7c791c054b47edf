"""A tunnel in a thread: results, errors, ^C, time limits and cancellation; no thread is left.

The tunnel is a stand-in; tests/integration/daemon/test_programs.py has real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import tunnel
from tunnel.api import thread
from tunnel.api.running import EventReader
from tunnel.control.broadcast import EventQueue
from tunnel.control.messages.events import TunnelEvent
from tunnel.errors import DaemonError


class FakeTunnel:
    """What an entry hands out, with calls that end as told."""

    name = "wg0"

    def __init__(self) -> None:
        self.queue = EventQueue()
        self.log: list[str] = []

    async def status(self, *, secrets: bool = False) -> Any:
        await trio.lowlevel.checkpoint()
        return SimpleNamespace(secrets=secrets)

    async def save(self) -> bool:
        raise DaemonError("no")

    async def wait_closed(self) -> None:
        try:
            await trio.sleep_forever()
        finally:
            self.log.append("ended")

    async def reload(self, config: Any = None) -> Any:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await self.wait_closed()

    @contextlib.contextmanager
    def events(self) -> Iterator[EventReader]:
        self.log.append("subscribed")
        yield EventReader(self.queue)
        self.log.append("unsubscribed")


class World:
    """How the stand-in comes up and goes down."""

    def __init__(self) -> None:
        self.tunnel = FakeTunnel()
        self.on_open: BaseException | None = None
        self.on_close: BaseException | None = None
        self.hangs = False

    @contextlib.asynccontextmanager
    async def open(self, _config: object) -> AsyncIterator[FakeTunnel]:
        await trio.lowlevel.checkpoint()
        if self.hangs:
            self.tunnel.log.append("opening")
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            await trio.sleep_forever()
        if self.on_open is not None:
            raise self.on_open
        try:
            yield self.tunnel
        finally:
            self.tunnel.log.append("closed")
        if self.on_close is not None:
            raise self.on_close


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World()
    monkeypatch.setattr(thread, "open_tunnel", made.open)
    yield made
    assert [each.name for each in threading.enumerate() if each.name == "tunnel"] == []


def test_a_method_blocks_and_gives_its_result_or_its_error(world: World) -> None:
    with tunnel.open_sync("x") as t:
        assert t.name == "wg0"
        assert t.status(secrets=True).__dict__ == {"secrets": True}
        with pytest.raises(DaemonError, match="no"):
            t.save()
    assert world.tunnel.log == ["closed"]
    with pytest.raises(DaemonError, match="has gone down"):
        t.status()


@pytest.mark.parametrize("error", [DaemonError("no"), OSError("no")])
def test_an_error_of_setting_up_comes_out_as_it_is(world: World, error: Exception) -> None:
    world.on_open = error
    with pytest.raises(type(error), match="no"), tunnel.open_sync("x"):
        pytest.fail("it is not up")

    async def main() -> None:
        async with tunnel.open_asyncio("x"):
            pytest.fail("it is not up")

    with pytest.raises(type(error), match="no"):
        asyncio.run(main())


def test_an_error_of_taking_down_comes_out_unless_the_body_has_one(world: World) -> None:
    world.on_close = DaemonError("not undone")
    with pytest.raises(DaemonError, match="not undone"), tunnel.open_sync("x"):
        pass
    with pytest.raises(LookupError), tunnel.open_sync("x"):
        raise LookupError

    async def main() -> None:
        async with tunnel.open_asyncio("x"):
            pass

    with pytest.raises(DaemonError, match="not undone"):
        asyncio.run(main())


def test_a_time_limit_ends_the_call_and_the_tunnel_goes_on(world: World) -> None:
    with tunnel.open_sync("x") as t:
        with pytest.raises(TimeoutError):
            t.wait_closed(timeout=0.01)
        assert world.tunnel.log == ["ended"]
        t.status()


def test_events_are_read_one_by_one_until_the_tunnel_ends(world: World) -> None:
    queue = world.tunnel.queue
    with tunnel.open_sync("x") as t:
        with t.events() as happening:
            queue.put(TunnelEvent("up", 1.0))
            assert isinstance(happening.get(timeout=5), tunnel.events.Up)
            with pytest.raises(TimeoutError):
                happening.get(timeout=0.01)
            queue.put(TunnelEvent("down", 1.0, {"failures": [], "notes": [], "restarting": False}))
            queue.end()
            assert [type(event) for event in happening] == [tunnel.events.Down]
        assert world.tunnel.log == ["subscribed", "unsubscribed"]


def test_an_interrupt_ends_a_call_and_takes_the_tunnel_down(world: World) -> None:
    with pytest.raises(KeyboardInterrupt), tunnel.open_sync("x") as t:
        t.reload()
    assert world.tunnel.log == ["ended", "closed"]


def test_an_interrupt_while_it_is_set_up_undoes_that(world: World) -> None:
    world.hangs = True
    with pytest.raises(KeyboardInterrupt), tunnel.open_sync("x"):
        pytest.fail("it is not up")
    assert world.tunnel.log == ["opening"]


def test_asyncio_has_the_same_methods_and_events(world: World) -> None:
    async def main() -> None:
        async with tunnel.open_asyncio("x") as t:
            assert (await t.status(secrets=True)).__dict__ == {"secrets": True}
            with pytest.raises(DaemonError, match="no"):
                await t.save()
            async with t.events() as happening:
                world.tunnel.queue.put(TunnelEvent("up", 1.0))
                assert isinstance(await anext(happening), tunnel.events.Up)
                world.tunnel.queue.end()
                assert [event async for event in happening] == []
            assert world.tunnel.log == ["subscribed", "unsubscribed"]
        with pytest.raises(DaemonError, match="has gone down"):
            await t.status()

    asyncio.run(main())


def test_a_cancelled_task_goes_on_when_the_call_has_ended(world: World) -> None:
    async def main() -> None:
        async with tunnel.open_asyncio("x") as t:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(t.wait_closed(), 0.01)
            assert world.tunnel.log == ["ended"]
            await t.status()

    asyncio.run(main())


def test_an_interrupt_of_asyncio_takes_the_tunnel_down(world: World) -> None:
    async def main() -> None:
        async with tunnel.open_asyncio("x") as t:
            await t.reload()

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert world.tunnel.log == ["ended", "closed"]


def test_an_interrupt_of_asyncio_while_it_is_set_up_undoes_that(world: World) -> None:
    async def main() -> None:
        async with tunnel.open_asyncio("x"):
            pytest.fail("it is not up")

    world.hangs = True
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert world.tunnel.log == ["opening"]
