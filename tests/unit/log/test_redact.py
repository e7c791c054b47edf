"""Key material that must not get out: known secrets, and what is named like one."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator

import pytest

from tunnel.log import redact
from tunnel.log.output import HumanFormatter
from tunnel.log.redact import KnownSecrets

SECRET = bytes(range(32))
SECRET_BASE64 = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
PUBLIC_BASE64 = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "_private", KnownSecrets())
    monkeypatch.setattr(redact, "_preshared", KnownSecrets())


@pytest.mark.parametrize(
    "text",
    [
        f"PrivateKey = {SECRET_BASE64}",
        f"presharedkey={SECRET_BASE64}",
        f'"preshared_key": "{SECRET_BASE64}"',
        f"private_key={SECRET.hex()}",
        f"psk {SECRET.hex().upper()}",
        f"secret: {SECRET_BASE64}",
    ],
)
def test_what_is_named_like_a_key_is_hidden(text: str) -> None:
    line = redact.redact(text)
    assert redact.HIDDEN in line
    assert SECRET_BASE64 not in line
    assert SECRET.hex() not in line.lower()


def test_known_secrets_are_hidden_wherever_they_stand() -> None:
    redact.hide([SECRET])
    for secret in (SECRET_BASE64, SECRET.hex(), SECRET.hex().upper(), f"xyz/{SECRET_BASE64}"):
        line = redact.redact(f"hook printed {secret}.")
        assert line.endswith("(hidden).")
        assert secret not in line


def test_public_keys_are_no_secret_and_bytes_are_never_shown() -> None:
    redact.hide([SECRET])
    line = HumanFormatter().format(
        logging.LogRecord(
            "tunnel", logging.INFO, __file__, 1, "%s at %s", (PUBLIC_BASE64, SECRET), None
        )
    )
    assert line.endswith(f"{PUBLIC_BASE64} at (32 bytes)")


def numbered(count: int, *, start: int = 0) -> Iterator[bytes]:
    return (number.to_bytes(32, "big") for number in range(start, start + count))


def test_private_keys_stay_however_many_preshared_keys_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redact, "GENERATION", 100)
    redact.hide([SECRET], private=True)
    redact.hide(numbered(500))
    assert redact.redact(SECRET_BASE64) == redact.HIDDEN
    assert redact.redact(PUBLIC_BASE64) == PUBLIC_BASE64


def test_the_latest_secrets_are_known_and_the_oldest_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redact, "GENERATION", 1000)
    known = KnownSecrets()
    for secret in numbered(5500):
        known.add(secret)
        assert len(known._new) + len(known._old) <= 2 * redact.GENERATION
    assert all(secret in known for secret in numbered(1000, start=4500))
    assert not any(secret in known for secret in numbered(3500))


def test_a_secret_that_is_hidden_again_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redact, "GENERATION", 1000)
    known = KnownSecrets()
    for secret in numbered(5000):
        known.add(secret)
        known.add(SECRET)
    assert SECRET in known


def test_each_set_hashes_with_a_key_of_its_own() -> None:
    known, other = KnownSecrets(), KnownSecrets()
    known.add(SECRET)
    other.add(SECRET)
    assert known._new != other._new


@pytest.mark.parametrize(
    "command",
    [
        "wg set wg0 peer {public} preshared-key <(printf %s {key})",
        "wg set wg0 private-key <(printf '%s\\n' '{key}') peer {public}",
        "echo {hex} {public}",
        "K={hex}; P={public}",
        "printf '%s=' {bare} | wg set wg0 peer {public} preshared-key /dev/stdin",
    ],
)
def test_of_a_command_only_known_public_keys_are_shown(command: str) -> None:
    parts = {"key": SECRET_BASE64, "hex": SECRET.hex(), "bare": SECRET_BASE64[:-1]}
    public = {base64.b64decode(PUBLIC_BASE64)}
    told = redact.redact_keys(command.format(public=PUBLIC_BASE64, **parts), public)
    hidden = dict.fromkeys(parts, redact.HIDDEN)
    assert told == command.format(public=PUBLIC_BASE64, **hidden)
    assert PUBLIC_BASE64 not in redact.redact_keys(told, set())
    usual = "ip route add 10.0.0.0/8 dev wg0; /usr/local/libexec/some/where/that/is/rather/far/away"
    assert redact.redact_keys(usual, set()) == usual
