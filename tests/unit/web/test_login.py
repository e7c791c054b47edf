"""The password's file, sessions, and how often may be tried."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.web_client import PASSWORD, Clock
from tunnel.web.errors import WebError
from tunnel.web.login import (
    IDLE,
    LIFETIME,
    MAX_SESSIONS,
    Attempts,
    PasswordFile,
    PasswordFileError,
    Sessions,
)


@pytest.fixture
def stored(tmp_path: Path) -> PasswordFile:
    file = PasswordFile(tmp_path / "office.conf")
    file.set(PASSWORD)
    return file


def test_only_the_password_is_right_and_only_its_owner_reads_the_hash(stored: PasswordFile) -> None:
    assert stored.path.name == "office.web"
    assert stored.path.stat().st_mode & 0o777 == 0o600
    assert PASSWORD not in stored.path.read_text()
    assert stored.check(PASSWORD)
    assert not stored.check(PASSWORD + " ")
    assert not stored.check("")
    assert not stored.check("\udc80" * 5000)


def test_a_new_password_replaces_it(stored: PasswordFile) -> None:
    before = stored.stamp(), stored.path.read_text()
    stored.set("another password")
    assert (stored.stamp(), stored.path.read_text()) != before
    assert not stored.check(PASSWORD)


@pytest.mark.parametrize("password", ["", "short one", "x" * 1025])
def test_too_short_or_too_long_a_password_changes_nothing(
    stored: PasswordFile, password: str
) -> None:
    with pytest.raises(PasswordFileError, match="10 to 1024 characters"):
        stored.set(password)
    assert stored.check(PASSWORD)


def damage(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document["scrypt"])
        path.write_text(json.dumps(document))

    return write


@pytest.mark.parametrize(
    "damaged",
    [
        Path.unlink,
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff"),
        damage(lambda stored: stored.pop("salt")),
        damage(lambda stored: stored.update(n=1 << 40)),
        damage(lambda stored: stored.update(n=3)),
        damage(lambda stored: stored.update(hash="")),
    ],
)
def test_a_damaged_file_lets_nobody_in(
    stored: PasswordFile, damaged: Callable[[Path], object]
) -> None:
    damaged(stored.path)
    with pytest.raises(PasswordFileError, match="--set-password"):
        stored.check(PASSWORD)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_session_ends_when_the_page_is_closed_for_long(clock: Clock) -> None:
    sessions = Sessions(lambda: (1, 1), clock)
    token, session = sessions.open()
    clock.now += IDLE - 1
    assert sessions.find(token) is session
    clock.now += IDLE
    assert sessions.find(token) is None


def test_a_session_ends_in_any_case_and_by_a_new_password(clock: Clock) -> None:
    stamp = (1, 1)
    sessions = Sessions(lambda: stamp, clock)
    token, _ = sessions.open()
    while clock.now < 1000 + LIFETIME - IDLE:
        clock.now += IDLE / 2
        assert sessions.find(token) is not None
    clock.now = 1000 + LIFETIME
    assert sessions.find(token) is None
    token, _ = sessions.open()
    stamp = (1, 2)
    assert sessions.find(token) is None


def test_sessions_are_bounded_and_end_by_logging_out(clock: Clock) -> None:
    sessions = Sessions(lambda: (1, 1), clock)
    tokens = [sessions.open()[0] for _ in range(MAX_SESSIONS + 1)]
    assert sessions.find(tokens[0]) is None
    assert sessions.find(tokens[1]) is not None
    sessions.close(tokens[1])
    assert sessions.find(tokens[1]) is None
    assert sessions.find("") is None


def tries(attempts: Attempts, *addresses: str) -> int:
    """How many of them are let through."""
    passed = 0
    for address in addresses:
        with contextlib.suppress(WebError):
            attempts.take(address)
            passed += 1
    return passed


def test_tries_of_an_address_are_few_and_come_back(clock: Clock) -> None:
    attempts = Attempts(clock)
    most, every = Attempts.PER_ADDRESS
    assert tries(attempts, *["10.9.0.2"] * 50) == most
    with pytest.raises(WebError) as refused:
        attempts.take("10.9.0.2")
    assert (refused.value.status, refused.value.retry_after) == (429, every + 1)
    assert tries(attempts, "10.9.0.3") == 1, "others are not held up"
    clock.now += every
    assert tries(attempts, "10.9.0.2", "10.9.0.2") == 1
    attempts.succeeded("10.9.0.2")
    assert tries(attempts, *["10.9.0.2"] * 50) == most


def test_addresses_of_one_ipv6_network_are_one(clock: Clock) -> None:
    addresses = [f"fd00::{number:x}" for number in range(50)]
    assert tries(Attempts(clock), *addresses) == Attempts.PER_ADDRESS[0]


def test_all_together_are_bounded(clock: Clock) -> None:
    addresses = [f"10.9.{number // 250}.{number % 250}" for number in range(10000)]
    assert tries(Attempts(clock), *addresses) == Attempts.TOGETHER[0]
