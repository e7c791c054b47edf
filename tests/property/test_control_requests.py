"""Requests of every kind of nonsense to the control socket of a real Daemon: none ends it.

Each is answered by strict JSON, and is never called an internal failure: it is the client's.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn, cast

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.uapi_device import make_device
from tunnel import config
from tunnel.config import PrivateKey
from tunnel.control import json_socket
from tunnel.control.unix_socket import bind_unix_socket
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import methods, streams
from tunnel.daemon.daemon import Daemon

METHODS = [
    "ping",
    "status",
    "diff",
    "attach",
    "detach",
    "reload",
    "save",
    "down",
    "hand_over",
    "events",
    "keys",
    "trace",
    "carriers",
]
PARAMS = ["secrets", "paths", "stays_shut", "filter", "seconds", "rate"]
PARAMS += ["kind", "target", "docker_host"]

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\ud800", "host 10.0.0.1", "icmp", "\x00", "tcp port " + "9" * 5000])
    | st.sampled_from(["container", "pid", "netns", "unix:///none\x00", "..", "²", "9" * 5000])
    | st.sampled_from([10**400, -(10**4000), 1e308, sys.float_info.min, 2**63, -1, 0, 0.0]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "v": st.just(1) | st.just(1) | values,
        "id": values,
        "method": st.sampled_from(METHODS) | st.sampled_from(METHODS) | values,
        "params": st.dictionaries(st.sampled_from(PARAMS), values) | values,
    },
)


def deep(depth: int, opening: str = "[", closing: str = "]") -> str:
    return f"{opening * depth}0{closing * depth}"


HOSTILE: list[str] = [
    *(
        f'{{"v": 1, "id": {deep(depth, *brackets)}, "method": "status"}}'
        for depth in (400, 900, 980, 990, 1000, 2000, 10_000, 100_000)
        for brackets in (("[", "]"), ('{"a":', "}"))
    ),
    *(f'{{"v": 1, "method": {deep(depth)}}}' for depth in (400, 980)),
    *(
        f'{{"v": 1, "method": "{method}", "params": {{"{param}": {value}}}}}'
        for method in METHODS
        for param in PARAMS
        for value in (
            "1" + "0" * 400,
            "-1" + "0" * 400,
            "1e999",
            "NaN",
            "Infinity",
            "9" * 5000,
            "null",
            "true",
            '""',
            '"\\ud800"',
            f'"{"tcp and " * 100_000}tcp"',
            f'"tcp port {"9" * 5000}"',
            deep(980),
            "{}",
        )
    ),
    '{"v": 1, "id": NaN, "method": "status"}',
    '{"v": 1, "id": 1e999, "method": "status"}',
    '{"v": 1, "id": "\\ud800", "method": "\\udfff"}',
    '{"v": true, "method": "status"}',
    '{"v": {}, "method": {}}',
]


def _refuse_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} in an answer")


@contextlib.asynccontextmanager
async def daemon_socket(folder: Path) -> Any:
    """The control socket of a Daemon that has an engine; gives what sends lines to it."""
    private = PrivateKey.from_random(bytes(range(32)))
    conf = folder / "wg0.conf"
    conf.write_text(f"[Interface]\nPrivateKey = {private.to_base64()}\n")
    conf.chmod(0o600)
    daemon = Daemon(config.load(conf))
    daemon.device, _ = make_device()
    path = folder / "wg0.sock"
    path.unlink(missing_ok=True)

    async def ask(line: bytes) -> list[bytes]:
        async with await trio.open_unix_socket(str(path)) as stream:
            await stream.send_all(line + b"\n")
            await stream.send_eof()
            answer = b""
            while part := await stream.receive_some():
                answer += part
            return answer.splitlines()

    async with trio.open_nursery() as nursery:
        listener = bind_unix_socket(path)
        nursery.start_soon(
            json_socket.serve, listener, methods(daemon, Attachment(daemon)), streams(daemon)
        )
        yield ask
        nursery.cancel_scope.cancel()


async def _survives(ask: Callable[[bytes], Awaitable[list[bytes]]], line: bytes) -> None:
    for answer in await ask(line):
        reply = json.loads(answer, parse_constant=_refuse_constant)
        assert reply["v"] == 1
        assert "id" in reply
        assert reply.get("error", {}).get("code") != "internal", (line[:200], reply)
    (status,) = await ask(b'{"v": 1, "id": 1, "method": "status"}')
    assert json.loads(status)["result"]["listen_port"] == 51820


def _run(folder: Path, lines: list[bytes]) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            async with daemon_socket(folder) as ask:
                for line in lines:
                    await _survives(ask, line)

    trio.run(main)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    log = logging.getLogger("tunnel")
    before = log.level
    log.setLevel(logging.CRITICAL)
    yield tmp_path_factory.mktemp("daemon")
    log.setLevel(before)


def test_the_methods_are_those_of_the_daemon() -> None:
    daemon = cast(Daemon, None)
    assert sorted([*methods(daemon, Attachment(daemon)), *streams(daemon)]) == sorted(METHODS)


def test_known_hostile_requests_end_nothing(folder: Path) -> None:
    _run(folder, [line.encode() for line in HOSTILE])


@settings(deadline=None)
@given(st.lists(requests, min_size=1, max_size=5))
def test_requests_of_wrong_types_end_nothing(folder: Path, wrong: list[dict[str, Any]]) -> None:
    # Python refuses to write integers beyond this, and so it does to read them.
    _run(folder, [json.dumps(request).encode() for request in wrong])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_bytes_end_nothing(folder: Path, lines: list[bytes]) -> None:
    _run(folder, [line.replace(b"\n", b" ") for line in lines])
