"""What systemd hears, against a real datagram socket."""

from __future__ import annotations

import base64
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from tunnel.daemon.sd_notify import MAX_STATUS, STUCK_AFTER, Notifier, Pulse
from tunnel.log import redact


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """A service manager's socket, and what $NOTIFY_SOCKET says of it."""
    name = str(tmp_path / "notify")
    if request.param == "abstract":
        name = f"@tunnel-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if name[0] == "@" else name)
        listener.settimeout(5)
        yield name, listener


def test_every_message_as_sd_notify_has_it(manager: tuple[str, socket.socket]) -> None:
    name, listener = manager
    notifier = Notifier(name)
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    notifier.ready("two\npeers \x1b[31m")
    notifier.reloading()
    notifier.stopping("going down")
    notifier.status("x" * 5000)
    notifier.status("")
    assert listener.recv(4096).decode() == (
        f"READY=1\nMAINPID={os.getpid()}\nSTATUS=two\\x0apeers \\x1b[31m"
    )
    reloading, stamp = listener.recv(4096).decode().split("\n")
    assert reloading == "RELOADING=1"
    key, value = stamp.split("=")
    assert key == "MONOTONIC_USEC"
    assert before <= int(value) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert listener.recv(4096) == b"STOPPING=1\nSTATUS=going down"
    assert listener.recv(8192) == b"STATUS=" + b"x" * MAX_STATUS
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.recv(1)


def test_no_key_is_told_to_everybody(manager: tuple[str, socket.socket]) -> None:
    """`systemctl status` is for every user of the machine."""
    name, listener = manager
    key = base64.b64encode(bytes(range(32))).decode()
    known = base64.b64encode(bytes(range(1, 33))).decode()
    redact.hide([bytes(range(1, 33))])
    Notifier(name).status(f"no good: PrivateKey = {key}, and {known} neither")
    assert listener.recv(4096) == b"STATUS=no good: PrivateKey = (hidden), and (hidden) neither"


def test_the_environment_is_taken_and_not_inherited() -> None:
    environment = {
        "NOTIFY_SOCKET": "@somewhere",
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/",
    }
    notifier = Notifier.from_environment(environment)
    assert (notifier.socket_name, notifier.watchdog_seconds) == ("@somewhere", 30.0)
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize(
    "environment",
    [
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "-5"},
        {"NOTIFY_SOCKET": "@x", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "1000"},
        {},
    ],
)
def test_no_watchdog_unless_it_is_meant_for_us(environment: dict[str, str]) -> None:
    assert Notifier.from_environment(environment).watchdog_seconds == 0.0


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "@tunnel-nobody", "/" + "x" * 200])
def test_nobody_who_listens_stops_nothing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier(name)
    notifier.ready("up")
    notifier.stopping()
    assert len(caplog.records) == (1 if name else 0)


def test_watchdog_is_fed_at_twice_the_pace_and_only_while_alive(
    manager: tuple[str, socket.socket],
) -> None:
    name, listener = manager
    listener.setblocking(False)
    alive = True

    def heard() -> int:
        count = 0
        while True:
            try:
                assert listener.recv(64) == b"WATCHDOG=1"
            except BlockingIOError:
                return count
            count += 1

    async def main() -> None:
        nonlocal alive
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Notifier(name, 30.0).watchdog, lambda: alive)
            await trio.sleep(61)
            assert heard() == 5  # at 0, 15, 30, 45 and 60 s
            alive = False
            await trio.sleep(60)
            assert heard() == 0
            alive = True
            await trio.sleep(60)
            assert heard() == 4
            nursery.cancel_scope.cancel()
        await Notifier(name).watchdog(lambda: True)  # nobody watches: returns

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_pulse_stops_when_the_same_deadline_stays_undone() -> None:
    clock = [1000.0]
    pulse = Pulse(lambda: clock[0])
    assert pulse.beats(None, 0)
    assert pulse.beats(5.0, 4.0)
    assert pulse.beats(5.0, 40_000.0), "a night of suspend is no hang"
    clock[0] += STUCK_AFTER - 1
    assert pulse.beats(5.0, 40_020.0)
    clock[0] += 2
    assert not pulse.beats(5.0, 40_022.0)
    assert pulse.beats(6.0, 40_022.0), "something was done"
    clock[0] += STUCK_AFTER + 1
    assert pulse.beats(70_000.0, 50_000.0)
