"""A request fails alone: whatever a handler raises, its client gets an error, all else goes on."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import resource
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
import trio
import trio.testing

from tests.support.uapi_device import make_engine
from tunnel.control import connections, http, json_socket, uapi
from tunnel.control.clients import MAX_CONNECTIONS, Client
from tunnel.control.connections import (
    Failures,
    InternalError,
    Lines,
    LineTooLongError,
    serve_connections,
)
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.uapi import DeviceState
from tunnel.control.uapi_changes import DeviceChange
from tunnel.control.uapi_grammar import Parser
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import methods, streams
from tunnel.daemon.daemon import Daemon
from tunnel.errors import DaemonError

ERRORS: list[Callable[[], BaseException]] = [
    lambda: ValueError("no value"),
    lambda: OverflowError("int too large to convert to float"),
    lambda: RecursionError("maximum recursion depth exceeded"),
    MemoryError,
    lambda: OSError(errno.EMFILE, "Too many open files", "/dev/net/tun"),
    lambda: Exception("bare"),
    lambda: ExceptionGroup("of one", [ValueError("inside")]),
    lambda: ExceptionGroup("of two", [DaemonError("an answer"), KeyError("and a defect")]),
]
NAMES = [type(make()).__name__ for make in ERRORS]

Serve = Callable[[Any], Awaitable[None]]
Ask = Callable[[bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def serving(folder: Path, serve: Callable[..., Awaitable[None]], *args: Any) -> Any:
    """A served socket; gives what sends bytes on a connection of its own and returns the answer."""
    path = folder / "socket"

    async def ask(data: bytes) -> bytes:
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(data)
            await stream.send_eof()
            answer = b""
            with contextlib.suppress(trio.BrokenResourceError):
                while part := await stream.receive_some():
                    answer += part
            return answer

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, bind_unix_socket(path), *args)
            yield ask
            nursery.cancel_scope.cancel()


def _request(method: str, **params: Any) -> bytes:
    line = {"v": 1, "id": method, "method": method, "params": params}
    return json.dumps(line).encode() + b"\n"


def _codes(answer: bytes) -> list[str]:
    lines = map(json.loads, answer.splitlines())
    return [line["error"]["code"] if "error" in line else "result" for line in lines]


async def _ping(params: dict[str, Any]) -> str:
    return "pong"


class Failing:
    """A daemon of which nothing can be asked."""

    def __init__(self, make: Callable[[], BaseException]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> NoReturn:
        raise self._make()


# --- The control socket --------------------------------------------------------------------------


@pytest.mark.parametrize("make", ERRORS, ids=NAMES)
def test_every_control_method_fails_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[], BaseException]
) -> None:
    daemon = cast(Daemon, Failing(make))
    called, streamed = methods(daemon, Attachment(daemon)), streams(daemon)
    # Ping asks nothing of the daemon: it answers whatever is wrong with it.
    failing = [method for method in [*called, *streamed] if method != "ping"]

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, called, streamed) as ask:
            for method in failing:
                answer = await ask(_request(method) + _request("ping"))
                assert _codes(answer) == ["internal", "result"], method
                assert await ask(_request("ping"))

    trio.run(main)
    # One line each, with the method and the type.
    for method in failing:
        (line,) = [r.getMessage() for r in caplog.records if f": {method} failed" in r.getMessage()]
        assert type(_innermost(make())).__name__ in line
        assert line.startswith("control socket: ")


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[-1]
    return error


@pytest.mark.parametrize("make", ERRORS, ids=NAMES)
@pytest.mark.parametrize("when", ["call", "enter", "first", "later", "leave"])
def test_stream_that_fails_ends_with_an_error(
    tmp_path: Path, make: Callable[[], BaseException], when: str
) -> None:
    async def iterate() -> AsyncIterator[TunnelEvent]:
        if when == "first":
            raise make()
        yield TunnelEvent("number", 1.0)
        if when == "later":
            raise make()

    @contextlib.contextmanager
    def entered() -> Iterator[AsyncIterator[TunnelEvent]]:
        if when == "enter":
            raise make()
        yield iterate()
        if when == "leave":
            raise make()

    def stream(
        params: dict[str, Any],
    ) -> contextlib.AbstractContextManager[AsyncIterator[TunnelEvent]]:
        if when == "call":
            raise make()
        return entered()

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, {"ping": _ping}, {"stream": stream}) as ask:
            async with await trio.open_unix_socket(str(tmp_path / "socket")) as client:
                await client.send_all(_request("stream"))
                lines: list[dict[str, Any]] = []
                received = Lines(client, 1000)
                while not lines or "error" not in lines[-1]:
                    line = await received.read_untrusted()
                    assert line is not None, lines
                    lines.append(json.loads(line))
            assert lines[-1]["error"]["code"] == "internal"
            before = {"call": 0, "enter": 0, "first": 1, "later": 2, "leave": 2}[when]
            assert len(lines) == before + 1
            if before == 2:
                assert lines[1]["event"] == {"type": "number", "time": 1.0}
            assert await ask(_request("ping"))

    trio.run(main)


def test_an_answer_that_fails_half_way_ends_its_connection_alone(tmp_path: Path) -> None:
    async def halfway(params: dict[str, Any]) -> Any:
        return ["x" * json_socket.PIECE, object()]

    async def at_once(params: dict[str, Any]) -> Any:
        return [object()]

    called = {"halfway": halfway, "at_once": at_once, "ping": _ping}

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, called) as ask:
            answer = await ask(_request("halfway") + _request("ping"))
            assert b"\n" not in answer
            answer = await ask(_request("at_once") + _request("ping"))
            assert _codes(answer) == ["internal", "result"]

    trio.run(main)


# --- The UAPI ------------------------------------------------------------------------------------

ERRNO = {"MemoryError": errno.ENOMEM, "OSError": errno.EMFILE}


class FailingDevice:
    """A device whose every operation fails while `make` is set."""

    def __init__(self) -> None:
        self.make: Callable[[], BaseException] | None = None
        engine, _ = make_engine()
        self._state = DeviceState(engine.interface, 1, 0)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[DeviceState]:
        if self.make is not None:
            raise self.make()
        yield self._state

    async def apply(self, changes: Sequence[DeviceChange]) -> None:
        if self.make is not None:
            raise self.make()


@pytest.mark.parametrize(("make", "name"), [*zip(ERRORS, NAMES, strict=True)], ids=NAMES)
def test_every_uapi_operation_fails_alone(
    tmp_path: Path, make: Callable[[], BaseException], name: str
) -> None:
    number = ERRNO.get(name, errno.EIO)
    device = FailingDevice()

    async def main() -> None:
        async with serving(tmp_path, uapi.serve, device) as ask:
            device.make = make
            answer = await ask(b"get=1\n\nset=1\nlisten_port=1\n\nget=1\n\n")
            expected = f"errno={number}\n\nerrno=-{number}\n\nerrno={number}\n\n"
            assert answer.decode() == expected
            device.make = None
            assert (await ask(b"get=1\n\n")).endswith(b"errno=0\n\n")
            assert await ask(b"set=1\n\n") == b"errno=0\n\n"

    trio.run(main)


def test_set_whose_reading_fails_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = 0

    def feed(self: Parser, line: str) -> None:
        nonlocal fed
        fed += 1
        if fed == 100:
            raise MemoryError

    monkeypatch.setattr(Parser, "feed_untrusted", feed)
    lines = b"allowed_ip=10.0.0.0/8\n" * 1000

    async def main() -> bytes:
        async with serving(tmp_path, uapi.serve, FailingDevice()) as ask:
            return cast(bytes, await ask(b"set=1\n" + lines + b"\nset=1\n\n"))
        raise AssertionError("unreachable")

    assert trio.run(main) == f"errno=-{errno.ENOMEM}\n\nerrno=0\n\n".encode()


def test_line_that_does_not_fit_into_memory_ends_its_connection_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Lines.read_untrusted
    calls = 0

    async def fail_once(self: Lines) -> bytes | None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise MemoryError
        return await read(self)

    monkeypatch.setattr(Lines, "read_untrusted", fail_once)

    async def main() -> None:
        async with serving(tmp_path, uapi.serve, FailingDevice()) as ask:
            assert await ask(b"set=1\nlisten_port=1\n\n") == b""
            assert await ask(b"set=1\nlisten_port=1\n\n") == b"errno=0\n\n"

    trio.run(main)


# --- Metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [*ERRORS, lambda: DaemonError("not up")], ids=[*NAMES, "refusal"])
def test_page_that_fails_is_a_500(tmp_path: Path, make: Callable[[], BaseException]) -> None:
    failing = True

    async def page() -> bytes:
        if failing:
            raise make()
        return b"numbers\n"

    async def main() -> None:
        nonlocal failing
        pages = {"/metrics": ("text/plain", page)}
        async with serving(tmp_path, http.serve, pages) as ask:
            answer = await ask(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 500 ")
            failing = False
            answer = await ask(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b"numbers\n")

    trio.run(main)


# --- What all of them share ----------------------------------------------------------------------


def _contain(error: BaseException) -> None:
    async def main() -> None:
        with Failures("test").contained("request"):
            raise error

    trio.run(main)


@pytest.mark.parametrize(
    "error",
    [
        DaemonError("an answer"),
        trio.BrokenResourceError(),
        trio.ClosedResourceError(),
        KeyboardInterrupt(),
        SystemExit(3),
    ],
    ids=repr,
)
def test_answers_and_ends_pass(error: BaseException) -> None:
    with pytest.raises(type(error)):
        _contain(error)
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            _contain(ExceptionGroup("", [ExceptionGroup("", [error])]))


def test_failure_of_trio_itself_is_not_swallowed() -> None:
    async def main() -> None:
        failures = Failures("test")
        for error in (
            trio.TrioInternalError(),
            ExceptionGroup("", [ValueError(), trio.TrioInternalError()]),
        ):
            with (
                pytest.raises((trio.TrioInternalError, ExceptionGroup)) as raised,
                failures.contained("request"),
            ):
                raise error
            kept = raised.value
            inner = kept.exceptions if isinstance(kept, ExceptionGroup) else [kept]
            assert [type(one) for one in inner] == [trio.TrioInternalError]

    trio.run(main)


def test_cancellation_passes_and_a_failure_beside_it_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while cleaning up")

    async def main() -> None:
        with trio.CancelScope() as scope, Failures("test").contained("request"):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail_when_cancelled)
                nursery.start_soon(trio.sleep_forever)
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
        assert scope.cancelled_caught

    trio.run(main)
    assert "request failed: ValueError: while cleaning up" in caplog.text


def test_same_failure_has_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    failures = Failures("test")

    def fail(request: str, error: Exception) -> None:
        with pytest.raises(InternalError), failures.contained(request):
            raise error

    async def main() -> None:
        for _ in range(1000):
            fail("one", ValueError("again"))
        fail("one", KeyError("another"))
        fail("two", ValueError("again"))
        assert len(caplog.records) == 3
        await trio.sleep(connections.LOG_PERIOD)
        fail("one", ValueError("again"))
        assert len(caplog.records) == 4
        assert "999 more" in caplog.records[-1].getMessage()

    trio.run(main, clock=autojump_clock)


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, 9999])
def test_accept_that_fails_is_tried_again_ever_more_slowly(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock, number: int
) -> None:
    times: list[float] = []
    stream = object()

    async def accept() -> object:
        times.append(trio.current_time())
        if len(times) <= 8:
            raise OSError(number, "nothing left")
        return stream

    async def main() -> None:
        acceptor = cast(trio.SocketListener, SimpleNamespace(accept=accept))
        assert await connections._accept(acceptor, Failures("test")) is stream

    trio.run(main, clock=autojump_clock)
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1, 1, 1])
    assert len(caplog.records) == 1


def test_connection_waits_while_there_are_no_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "_ACCEPT_PAUSES", (0.001, 0.001))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def main() -> None:
        async with serving(tmp_path, json_socket.serve, {"ping": _ping}) as ask:
            assert await ask(_request("ping"))
            client = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
            with client:
                lowest = os.dup(0)
                os.close(lowest)
                resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
                try:
                    await client.connect(str(tmp_path / "socket"))
                    await client.send(_request("ping"))
                    while not any("accept failed" in r.getMessage() for r in caplog.records):
                        await trio.sleep(0.001)
                finally:
                    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                assert _codes(await client.recv(1000)) == ["result"]

    with caplog.at_level(logging.ERROR):
        trio.run(main)


@pytest.mark.parametrize("make", ERRORS, ids=NAMES)
def test_handler_that_fails_ends_its_connection_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[], BaseException]
) -> None:
    async def handle(stream: Client) -> None:
        if await stream.receive_some() == b"fail":
            raise make()
        await stream.send_all(b"fine")

    async def main() -> None:
        async with serving(tmp_path, serve_connections, handle, Failures("test")) as ask:
            # More often than there is room for at a time: each gives its place back.
            for _ in range(MAX_CONNECTIONS + 1):
                assert await ask(b"fail") == b""
            assert await ask(b"ask") == b"fine"

    trio.run(main)
    assert len(caplog.records) == 1


def test_lines_are_bounded_and_end_with_the_connection() -> None:
    async def main() -> None:
        sender, receiver = trio.testing.memory_stream_pair()
        lines = Lines(receiver, 10)
        await sender.send_all(b"one\n\n0123456789\nrest")
        assert [await lines.read_untrusted() for _ in range(3)] == [b"one", b"", b"0123456789"]
        await sender.send_all(b" of it")
        await sender.send_all(b"!")
        with pytest.raises(LineTooLongError, match="longer than 10 bytes"):
            await lines.read_untrusted()
        sender, receiver = trio.testing.memory_stream_pair()
        await sender.send_all(b"whole\nhalf")
        await sender.aclose()
        lines = Lines(receiver, 10)
        assert await lines.read_untrusted() == b"whole"
        assert await lines.read_untrusted() is None

    trio.run(main)
