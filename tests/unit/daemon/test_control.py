from __future__ import annotations

import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from tests.support.confs import INTERFACE, read
from tunnel.control import run_folder
from tunnel.control.json_protocol import ControlError
from tunnel.daemon import control
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import control_socket, methods, streams
from tunnel.daemon.daemon import Daemon
from tunnel.errors import DaemonError, unwrapped


@pytest.mark.parametrize("name", ["secrets", "paths"])
@pytest.mark.parametrize("value", ["false", 1, None, [True]])
def test_a_flag_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    daemon = Daemon(read(INTERFACE))
    status = methods(daemon, Attachment(daemon))["status"]
    with pytest.raises(ControlError, match=f"{name} is true or false") as refused:
        trio.run(status, {name: value})
    assert refused.value.code == "syntax"


def test_who_followed_an_earlier_daemon_gets_the_beginning_of_this_one() -> None:
    daemon = Daemon(read(INTERFACE))
    events = streams(daemon)["events"]

    async def followed(**params: bool) -> list[str]:
        with events(params) as found:
            daemon.feed.publish("port")
            return [(await anext(found)).type for _ in range(1 + params.get("again", False))]

    async def main() -> None:
        with events({"again": True}) as early:
            daemon.feed.begin("restarted", restarts=1)
            assert (await anext(early)).type == "restarted", "it was not up yet"
        assert await followed(again=True) == ["restarted", "port"]
        assert await followed() == ["port"]

    trio.run(main)


FOLLOW = b'{"v": 1, "id": 1, "method": "events"}\n'


async def following(daemon: Daemon) -> tuple[trio.SocketStream, bytes]:
    """A client that follows the events, and what it has read: the answer, so that it is one."""
    stream = await trio.open_unix_socket(str(run_folder.socket_path(daemon.name)))
    await stream.send_all(FOLLOW)
    return stream, bytes(await stream.receive_some())


async def kinds(stream: trio.SocketStream, text: bytes = b"") -> list[str]:
    """The events that the client reads to the end of the connection."""
    async with stream:
        async for part in stream:
            text += part
    lines = [json.loads(line) for line in text.splitlines()]
    return [line["event"]["type"] for line in lines if "event" in line]


@pytest.mark.parametrize("end", ["in order", "by an error", "by cancellation"])
def test_followers_read_the_last_event_of_a_daemon_that_has_no_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """As on a machine where that time is over before the tasks of the daemon have had a turn."""
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    monkeypatch.setattr(control, "FAREWELL", 0.0)

    async def main() -> None:
        daemon = Daemon(read(INTERFACE))
        streams = []
        with contextlib.suppress(DaemonError), unwrapped(), trio.CancelScope() as scope:
            async with control_socket(daemon, Attachment(daemon)):
                for _ in range(3):
                    streams.append(await following(daemon))
                for _ in range(20):
                    daemon.feed.publish("port")
                try:
                    if end == "by cancellation":
                        scope.cancel()
                        await trio.lowlevel.checkpoint()
                finally:
                    daemon.feed.publish("down")
                    daemon.feed.end()
                if end == "by an error":
                    raise DaemonError("it fails")
        for stream, text in streams:
            assert await kinds(stream, text) == ["port"] * 20 + ["down"]

    trio.run(_within_a_minute, main)


def test_a_follower_that_comes_after_the_last_event_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)

    async def main() -> None:
        daemon = Daemon(read(INTERFACE))
        async with control_socket(daemon, Attachment(daemon)):
            daemon.feed.publish("port")
            daemon.feed.publish("down")
            daemon.feed.end()
            assert await kinds(*await following(daemon)) == ["down"]

    trio.run(_within_a_minute, main)


def test_a_follower_that_does_not_read_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)
    monkeypatch.setattr(control, "FAREWELL", 0.0)

    async def main() -> None:
        daemon = Daemon(read(INTERFACE))
        async with control_socket(daemon, Attachment(daemon)):
            stream, _ = await following(daemon)
            for _ in range(100):
                daemon.feed.publish("port", text="x" * 100_000)
            daemon.feed.publish("down")
            daemon.feed.end()
        await stream.aclose()

    trio.run(_within_a_minute, main)


async def _within_a_minute(main: Callable[[], Awaitable[None]]) -> None:
    with trio.fail_after(60):
        await main()
