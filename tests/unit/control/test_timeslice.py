"""What people and programs ask of a tunnel with very many networks or peers: packets go on."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import pytest
import trio

from tests.support.operations import longest_turn
from tests.support.uapi_device import make_device
from tunnel.config import PrivateKey, PublicKey, TunnelConfig, parse
from tunnel.control import json_socket, run_folder, unix_socket
from tunnel.control.timeslice import Pace, let_go
from tunnel.daemon import metrics, save
from tunnel.daemon.hook_effects import HookEffects
from tunnel.daemon.host_state import HOME, HostState, Surroundings
from tunnel.daemon.meter import Meter
from tunnel.daemon.reload import parts, plan, to_resolve
from tunnel.device import sync
from tunnel.device.device import Device
from tunnel.device.endpoints import Endpoints
from tunnel.device.look_up import resolve_all
from tunnel.device.status import take_status
from tunnel.host.state import DesiredState
from tunnel.io.endpoint import Endpoint

BOUND = 40.0
"""Slices that the event loop may be held: what is begun all at once for 10,000 peers takes most."""

NETWORKS = [f"10.{n >> 8}.{n & 255}.0/24" for n in range(65_280)]
NETWORKS += [f"fd00:0:{n:x}::/48" for n in range(1, 65_281)]

OWN = PrivateKey.from_bytes(bytes([1] * 32))

T = TypeVar("T")


class Run(Protocol):
    """Runs some work and returns what it gives."""

    def __call__(self, work: Callable[[], Awaitable[T]]) -> T: ...


def key(number: int) -> PublicKey:
    return PublicKey.from_bytes(number.to_bytes(2, "big") + bytes([9] * 30))


def conf(*sections: str) -> TunnelConfig:
    head = f"[Interface]\nPrivateKey = {OWN.to_base64()}\nMTU = 1420\nTable = off\n"
    text = "\n".join([head, *sections])
    return parse(text, name="wg0", source="test")


def large(*more: str) -> str:
    lines = [f"PublicKey = {key(1).to_base64()}", f"AllowedIPs = {', '.join(NETWORKS)}", *more]
    return "\n".join(["[Peer]", *lines, ""])


def many(count: int) -> list[str]:
    return [
        f"[Peer]\nPublicKey = {key(n).to_base64()}\nAllowedIPs = 10.{n >> 8}.{n & 255}.1/32\n"
        f"Endpoint = 192.0.2.{n % 250 + 1}:{n + 1}\n"
        for n in range(count)
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Gives what some work gives; fails if it held the event loop for too long."""

    def run_work(work: Callable[[], Awaitable[T]]) -> T:
        found, slices = trio.run(longest_turn, work, monkeypatch)
        assert slices < BOUND, f"held for {slices:.1f} slices"
        return found

    return run_work


def running(config: TunnelConfig) -> Device:
    device, udp = make_device()
    udp.gso = udp.gro = False
    endpoints = {
        peer.public_key: Endpoint(ip_address(peer.endpoint.host).packed, peer.endpoint.port)
        for peer in config.peers
        if peer.endpoint is not None
    }
    trio.run(sync.apply, device.engine, config, endpoints)
    return device


@pytest.fixture(params=["130,560 networks", "10,000 peers"])
def config(request: pytest.FixtureRequest) -> TunnelConfig:
    return large_conf() if "networks" in request.param else many_conf()


@cache
def large_conf() -> TunnelConfig:
    return conf(large())


@cache
def many_conf() -> TunnelConfig:
    return conf(*many(10_000))


def test_status_on_its_way_to_the_client(
    run: Run, config: TunnelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = running(config)
    engine = device.engine
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)

    async def status(params: dict[str, Any]) -> Any:
        return await take_status(engine, config)

    async def main() -> bytes:
        listener = unix_socket.bind_unix_socket(tmp_path / "wg0.sock")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(json_socket.serve, listener, {"status": status})
            async with await trio.open_unix_socket(str(tmp_path / "wg0.sock")) as stream:
                await stream.send_all(b'{"v": 1, "method": "status"}\n')
                answer = bytearray()
                while not answer.endswith(b"\n"):
                    answer += await stream.receive_some(65_536)
            nursery.cancel_scope.cancel()
        return bytes(answer)

    result = json.loads(run(main))["result"]
    assert len(result["peers"]) == len(config.peers)
    if len(config.peers) == 1:
        (peer,) = result["peers"]
        assert peer["allowed_ips"] == NETWORKS
        assert peer["endpoint"] is None


def test_networks_are_shown_in_order_however_they_came(run: Run) -> None:
    shuffled = [NETWORKS[n * 7919 % len(NETWORKS)] for n in range(len(NETWORKS))]
    config = conf(large().replace(", ".join(NETWORKS), ", ".join(shuffled)))
    device = running(config)
    engine = device.engine
    status = run(lambda: take_status(engine, config))
    assert list(status.peers[0].allowed_ips) == NETWORKS


def test_metrics_do_without_long_lists(run: Run, config: TunnelConfig) -> None:
    device = running(config)
    engine = device.engine
    engine.udp.queued = dict  # type: ignore[method-assign]

    daemon: Any = SimpleNamespace(config=config, meter=Meter(), running=lambda: device)
    taken = run(lambda: metrics.gather(daemon))
    shown = taken.status.peers[0].allowed_ips
    assert shown == (("130560 networks",) if len(config.peers) == 1 else ("10.0.0.1/32",))


def test_what_a_reload_would_change(run: Run, config: TunnelConfig) -> None:
    device = running(config)
    engine = device.engine

    applied: Any = SimpleNamespace(state=DesiredState("wg0"), missing=lambda: ())
    around = HostState(applied, Surroundings(applied.state, None, 0))

    async def main() -> Any:
        assert await to_resolve(engine, config, config, {}) == []
        return await plan(engine, config, config, around, {}, HookEffects(config.interface), HOME)

    assert run(main).outcome.changes == ()
    assert len(run(lambda: sync.differences(engine, config, conf()))) == len(config.peers)
    empty = running(conf()).engine
    told = run(lambda: sync.differences(empty, conf(), config))
    assert len([change for change in told if "endpoint" not in change.subject]) == len(config.peers)
    if len(config.peers) == 1:
        assert told[0].detail.endswith("10.0.3.0/24, and 130556 more")


def test_reload_that_adds_keeps_and_removes(run: Run, config: TunnelConfig) -> None:
    engine = running(conf()).engine
    run(lambda: sync.apply(engine, config, {}))
    assert len(engine.interface.peers) == len(config.peers)
    assert len(engine.interface.allowed_ips) in (130_560, 10_000)
    run(lambda: sync.apply(engine, config, {}))
    assert len(engine.interface.allowed_ips) in (130_560, 10_000)
    run(lambda: sync.apply(engine, conf(), {}))
    assert len(engine.interface.allowed_ips) == 0
    assert len(engine.interface.peers) == 0


def test_conf_that_nobody_needs_any_more(run: Run, config: TunnelConfig) -> None:
    # As a daemon has it, which reads a conf and compares: nobody else has any of it.
    held = parts(conf(large()) if len(config.peers) == 1 else conf(*many(10_000)))
    assert len(held) in (130_561, 20_000)
    run(lambda: let_go(held))
    assert held == []


def test_endpoints_of_many_peers(run: Run, config: TunnelConfig) -> None:
    names = Endpoints()

    async def main() -> int:
        found = await resolve_all(config.peers)
        await names.update(config.peers, found)
        return len(found)

    assert run(main) in (0, 10_000)


def test_save(
    run: Run, config: TunnelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = running(config)
    engine = device.engine
    path = tmp_path / "wg0.conf"
    path.write_text(f"[Interface]\nPrivateKey = {OWN.to_base64()}\n")
    monkeypatch.setattr("tunnel.host.interface_status", lambda name, **_: None)
    config = parse(path.read_text(), name="wg0", source="test")
    object.__setattr__(config, "path", path)
    assert run(lambda: save.save(device, config, HOME, auto_mark=0)).lines
    text = path.read_text()
    assert text.count("[Peer]") == len(engine.interface.peers)
    assert text.count("/") >= len(engine.interface.allowed_ips)


def test_thirty_clients_that_ask_at_once_take_turns() -> None:
    """Between two turns of packets the work of one client is done, not of each."""
    paced: list[int] = []

    async def work(client: int) -> None:
        pace = Pace()
        for _ in range(5):
            pace._until = 0.0  # the slice is over
            await pace.step()
            paced.append(client)

    async def main() -> list[int]:
        turns = []
        async with trio.open_nursery() as nursery:
            for client in range(30):
                nursery.start_soon(work, client)
            while len(paced) < 150:
                before = len(paced)
                await trio.lowlevel.checkpoint()
                turns.append(len(paced) - before)
        return turns

    turns = trio.run(main)
    # Tasks run in any order: between two turns of packets there may be two of the others.
    assert max(turns) <= 2
    assert len(turns) <= 310, "and no turn is wasted"
    assert all(len(set(paced[at : at + 30])) == 30 for at in range(0, 150, 30)), "all in a row"
