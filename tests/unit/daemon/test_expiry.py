"""Peers that expire while the tunnel runs, on a clock that is virtual."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from tunnel import config
from tunnel.config import TunnelConfig
from tunnel.config.expiry import expiry, expiry_text, without_expired
from tunnel.daemon.daemon import Daemon
from tunnel.daemon.expiry import watch_expiry
from tunnel.errors import DaemonError

KEYS = [config.PrivateKey.from_random(bytes([number]) * 32) for number in range(1, 5)]
START = expiry("2030-01-01T00:00:00Z")


def conf(*expires: str) -> TunnelConfig:
    text = f"[Interface]\nPrivateKey = {KEYS[0].to_base64()}\n"
    text += "[Tunnel]\nForward = on\nAllow = peer0 -> 10.1.0.0/16, 10.9.0.0 -> 10.2.0.0/16\n"
    for number, comment in enumerate(expires):
        key = KEYS[number + 1].public_key().to_base64()
        text += f"[Peer]\nPublicKey = {key}\n# friendly_name = peer{number}\n{comment}\n"
        text += f"AllowedIPs = 10.9.0.{number}/{32 - 8 * number}\n"
    return config.parse(text, name="wg0")


@dataclass
class Reloading:
    """A daemon as far as this matters."""

    config: TunnelConfig
    failures: int = 0
    reloads: list[float] = field(default_factory=list)

    async def reload(self, new: TunnelConfig) -> None:
        now = time.time()
        self.reloads.append(now - START)
        if self.failures:
            self.failures -= 1
            raise DaemonError("not possible")
        self.config = without_expired(new, now)


def test_what_expired_is_left_out_with_its_allowances() -> None:
    whole = conf("# expires = 2030-01-01T00:00:05Z", "")
    assert without_expired(whole, START) is whole
    left = without_expired(whole, START + 5)
    assert [peer.friendly_name for peer in left.peers] == ["peer1"]
    assert left.interface.options.allow == (), "peer1 has the address, but not the permission"


def test_a_time_is_read_back() -> None:
    assert expiry_text(START) == "2030-01-01T00:00:00Z"
    assert expiry("2030-01-01T02:00:00+02:00") == START
    whole = conf("# expires = 2030-01-01T00:00:05Z")
    assert config.parse(config.dump(whole), name="wg0").peers[0].expires == START + 5


@pytest.mark.parametrize("text", ["soon", "2030-01-01T00:00:00", "", "2030-13-01T00:00:00Z"])
def test_what_is_no_time_is_warned_of(text: str) -> None:
    found = conf(f"# expires = {text}")
    (warning,) = found.warnings
    assert warning.key == "expires"
    assert found.peers[0].expires is None


@pytest.mark.parametrize("failures", [0, 2])
def test_each_peer_goes_at_its_time(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon = Reloading(conf("# expires = 2030-01-01T00:00:25Z", "# expires = 2030-01-01T01:00:00Z"))
    daemon.failures = failures

    async def main() -> None:
        began = trio.current_time()
        monkeypatch.setattr(time, "time", lambda: START + trio.current_time() - began)
        with trio.move_on_after(7200):
            await watch_expiry(cast(Daemon, daemon))

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert daemon.config.peers == ()
    first = [each for each in daemon.reloads if each < 3600]
    assert len(first) == failures + 1
    assert len(daemon.reloads) == failures + 2
