"""Gathering where something fails: it is noted, and the rest goes on."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import trio

from tests.support.doctor_facts import HEALTHY, PEER, STATUS, conf
from tunnel.control.json_client import NotRunningError, connect_error
from tunnel.control.json_protocol import ControlError
from tunnel.doctor import Options, choosing, diagnose, gathering, machine
from tunnel.doctor.facts import Facts, Probe
from tunnel.host import HostError
from tunnel.trace.session import TraceSession


class SilentPinger:
    """Nobody answers."""

    identifier = 7
    refusals: dict[str, str] = {}  # noqa: RUF012  # as the real one's

    @classmethod
    @contextlib.asynccontextmanager
    async def opened(cls, interface: str) -> AsyncIterator[SilentPinger]:
        yield cls()


async def no_pings(
    facts: Facts, pinger: SilentPinger, notes: gathering._Notes
) -> tuple[Probe, ...]:
    return facts.probes


@pytest.mark.parametrize(
    "error",
    [
        KeyError("POSTROUTING"),
        OSError(1, "Operation not permitted"),
        subprocess.TimeoutExpired("nft", 20),
        ExceptionGroup("nursery", [ExceptionGroup("inner", [ValueError("what")])]),
    ],
)
def test_a_trace_that_fails_is_noted(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def fail(session: TraceSession) -> None:
        await trio.lowlevel.checkpoint()
        raise error

    monkeypatch.setattr(TraceSession, "run", fail)
    monkeypatch.setattr(gathering, "Pinger", SilentPinger)
    monkeypatch.setattr(gathering, "_ping", no_pings)
    notes = gathering._Notes()
    facts = trio.run(gathering._probe, HEALTHY, notes)
    assert facts.probe_id == 7
    (skipped,) = notes.skipped
    assert skipped.startswith("verdicts of the firewall, by a trace (")
    assert any(
        word in skipped for word in ("POSTROUTING", "not permitted", "timed out", "ValueError")
    )


def test_a_tunnel_that_goes_down_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(error: ControlError) -> None:
        def connect(name: str) -> None:
            raise error

        monkeypatch.setattr(gathering, "TunnelClient", connect)

    monkeypatch.setattr(machine, "read_links", lambda: HEALTHY.links)
    refuse(ControlError("busy", "later"))
    assert gathering._look_again(HEALTHY).after is HEALTHY.after
    refuse(NotRunningError("wg0"))
    (finding,) = diagnose(gathering._look_again(HEALTHY)).findings
    assert finding.code == "not_running"
    assert finding.evidence == "it went down while the doctor looked"


def test_what_a_killed_daemon_left_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(name: str, *, timeout: float) -> None:
        error = NotRunningError(name)
        error.killed = True
        raise error

    monkeypatch.setattr(gathering, "TunnelClient", connect)
    monkeypatch.setattr(machine, "has_kill_switch", lambda name: False)
    down = gathering._ask_daemon(replace(HEALTHY, before=None, after=None), gathering._Notes())
    (finding,) = diagnose(replace(down, conf=None)).findings
    assert finding.evidence == "its daemon was killed and has left things behind"
    assert finding.remedy == "tunnel up with its conf"

    monkeypatch.setattr(machine, "has_kill_switch", lambda name: name == "wg0")
    down = gathering._ask_daemon(replace(HEALTHY, before=None, after=None), gathering._Notes())
    (finding,) = diagnose(replace(down, conf=None)).findings
    assert finding.what.endswith("; its kill switch refuses all that should go into it")
    assert finding.remedy.startswith("tunnel up with its conf   #"), "nothing leaves in between"


def test_a_daemon_that_answers_root_alone_is_not_said_to_be_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def connect(name: str, *, timeout: float) -> None:
        raise connect_error(name, PermissionError(13, "Permission denied"))

    monkeypatch.setattr(gathering, "TunnelClient", connect)
    unknown = replace(HEALTHY, before=None, after=None)
    facts = gathering._ask_daemon(unknown, gathering._Notes())
    for missing in ((), ("CAP_NET_ADMIN",)):
        (finding,) = diagnose(replace(facts, missing=missing)).findings
        assert finding.code == "privileges"
        assert "is for root only" in finding.evidence
        assert finding.remedy == "sudo tunnel doctor wg0"


def chosen(facts: Facts, **changes: Any) -> list[str]:
    status = replace(STATUS, peers=(replace(PEER, **changes),))
    return [probe.address for probe in choosing.choose(facts, status)]


def test_who_is_spoken_to() -> None:
    roams = replace(HEALTHY, conf=conf(endpoint=""))
    assert chosen(HEALTHY, latest_handshake=1.0) == ["10.77.0.2"]
    assert chosen(roams) == ["10.77.0.2"]  # its session is fresh
    assert chosen(roams, latest_handshake=1.0) == []
    asked = replace(roams, options=Options(address="10.77.0.2"))
    assert chosen(asked, latest_handshake=1.0) == ["10.77.0.2"]
    link_local_first = ("fe80::2/128", "10.77.0.2/32")
    own = replace(STATUS, addresses=("fe80::1/64", "10.77.0.1/24"))
    peer = replace(PEER, allowed_ips=link_local_first)
    status = replace(own, peers=(peer,))
    assert [probe.address for probe in choosing.choose(HEALTHY, status)] == ["10.77.0.2"]
    assert choosing.own_address(status, "10.77.0.9") == "10.77.0.1"
    assert choosing.own_address(status, "fe80::9") == "fe80::1"
    assert choosing.own_address(replace(own, addresses=()), "fe80::9") is None


@pytest.mark.parametrize(
    ("allowed_ips", "address", "probes"),
    [
        (("0.0.0.0/0",), "10.64.1.2/32", ["10.64.0.9", "10.64.1.1"]),
        (("0.0.0.0/1", "128.0.0.0/1"), "10.64.1.1/24", ["10.64.0.9", "10.64.1.2"]),
        (("::/0",), "fc00:bb::5/128", ["fc00:bb::1", "fc00:bb::2"]),
        (("8.0.0.0/7",), "10.64.1.2/32", ["8.0.0.1"]),
        (("10.64.0.0/16",), "10.64.1.2/32", ["10.64.0.1"]),
        # What another peer gets says nothing of this one.
        ((), "10.64.1.2/32", []),
    ],
)
def test_an_address_of_a_peer_that_has_but_default_routes(
    allowed_ips: tuple[str, ...], address: str, probes: list[str]
) -> None:
    facts = replace(HEALTHY, conf=conf("DNS = 10.64.0.9"))
    status = replace(STATUS, addresses=(address,), peers=(replace(PEER, allowed_ips=allowed_ips),))
    assert [probe.address for probe in choosing.choose(facts, status)] == probes


def test_programs_that_answer_otherwise_than_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(text: str) -> None:
        monkeypatch.setattr(machine, "run_program", lambda *arguments, install: text)

    answer("nonsense")
    with pytest.raises(HostError, match="not JSON"):
        machine.read_links()
    assert machine.read_route("192.0.2.1").error == "its answer is not JSON"
    answer("[]")
    assert machine.read_route("192.0.2.1").error == "no route"
    assert machine.read_links() == {}
