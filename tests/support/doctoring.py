"""Hosts with something wrong, and what the doctor says of them."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunnel.lab import Host, Lab, faults
from tunnel.lab.faults import Hook
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.lab.process import HostProcess, wait_for

DOCTOR = [sys.executable, "-m", "tunnel", "doctor"]


PROGRAM = [sys.executable, "-m", "tests.support.doctor_program"]
"""The same command, odd: see there."""


A, B = "10.77.0.1", "10.77.0.2"


NAME = "b.example"


LONG = "30"


SHORT = "2"
"""Seconds to wait where nothing is expected to answer; what does happen, happens at once."""


PUT_BACK = 10.0
"""Seconds in which a daemon has put back what went with its interface."""


ENDED = 10.0
"""Seconds in which a daemon in the foreground must have ended."""


@dataclass(frozen=True)
class Net:
    """Hosts a and b with the tunnel wg0 between them; a's conf knows b by name."""

    lab: Lab
    a: OurEnd
    b: OurEnd

    @property
    def host(self) -> Host:
        return self.a.node.host

    @property
    def far(self) -> Host:
        return self.b.node.host


def conf_of(node: Node, *peers: Node, psk: str | None = None, extra: Sequence[str] = ()) -> str:
    return render_conf(node, peers, psk, extra=extra)


def examine(
    end: OurEnd, *options: str, wait: str = LONG, command: Sequence[str] = DOCTOR
) -> dict[str, Any]:
    """What the doctor says on the host of `end`."""
    begun = begin_to_examine(end, *options, wait=wait, command=command)
    return examined(begun)


def begin_to_examine(
    end: OurEnd, *options: str, wait: str = LONG, command: Sequence[str] = DOCTOR
) -> HostProcess:
    arguments = [*command, str(end.conf), "--json", "--wait", wait, *options]
    return end.node.host.popen(arguments)


def examined(process: HostProcess) -> dict[str, Any]:
    status = process.wait(60)
    (report,) = json.loads(process.log())
    assert status == (0 if report["healthy"] else 1), process.log()
    for finding in report["findings"]:
        assert all(finding[part] for part in ("what", "evidence", "remedy"))
    found: dict[str, Any] = report
    return found


IGNORED = {"datapath_python", "dropped_earlier"}
"""Which datapath there is does not matter, nor what was dropped in the tests before."""


def codes(report: dict[str, Any], kind: str = "findings") -> set[str]:
    """Codes of a report's findings, or of its notes, without those that are `IGNORED`."""
    return {finding["code"] for finding in report[kind]} - IGNORED


def remedy_of(report: dict[str, Any], code: str) -> str:
    """The only finding's with that code."""
    (remedy,) = [each["remedy"] for each in report["findings"] if each["code"] == code]
    return str(remedy)


def carry_out(end: OurEnd, remedy: str) -> None:
    """Do what the doctor printed, as it stands there."""
    # Our command is on no PATH here.
    program = f'tunnel() {{ "{sys.executable}" -m tunnel "$@"; }}\n'
    end.node.host.run(["sh", "-ec", program + remedy])


@contextlib.contextmanager
def conf_is(end: OurEnd, text: str) -> Iterator[None]:
    """Let the conf of `end` hold `text` for a while; the tunnel does not know."""
    right = end.conf.read_text()
    end.conf.write_text(text)
    try:
        yield
    finally:
        end.conf.write_text(right)


@contextlib.contextmanager
def reloaded(end: OurEnd, text: str, *, forget: bool = False) -> Iterator[None]:
    """Let the running tunnel of `end` follow another conf; with `forget`, sessions end."""
    right = end.conf.read_text()
    with conf_is(end, text):
        end.tunnel("reload", end.node.interface)
        if forget:
            forget_sessions(end)
        try:
            yield
        finally:
            end.conf.write_text(right)
            end.tunnel("reload", end.node.interface)
            if forget:
                forget_sessions(end)


def forget_sessions(end: OurEnd) -> None:
    """An interface that goes down has none. Up again, it begins again, and the daemon puts back the
    addresses and routes that went with it."""
    name = end.node.interface
    before = _addresses_and_routes(end)
    end.node.host.ip(f"link set {name} down", f"link set {name} up")
    wait_for(lambda: before <= _addresses_and_routes(end), PUT_BACK, f"the addresses of {name}")


def _addresses_and_routes(end: OurEnd) -> set[tuple[str, ...]]:
    """Those of the interface that its conf asks for: no link-local ones."""
    name, host = end.node.interface, end.node.host
    (link,) = json.loads(host.run(["ip", "-json", "address", "show", "dev", name]).stdout)
    found: set[tuple[str, ...]] = {
        (each["local"], str(each["prefixlen"]))
        for each in link["addr_info"]
        if each["scope"] != "link"
    }
    for family in ("-4", "-6"):
        words = ["ip", "-json", family, "route", "show", "table", "all", "dev", name]
        for each in json.loads(host.run(words).stdout or "[]"):
            if each.get("protocol") != "kernel":
                found.add((family, each["dst"], each.get("table", "main")))
    return found


@contextlib.contextmanager
def runs(end: OurEnd) -> Iterator[None]:
    end.up()
    try:
        yield
    finally:
        end.down()


@contextlib.contextmanager
def in_foreground(end: OurEnd, clock: str) -> Iterator[HostProcess]:
    """The tunnel of `end` as a child of ours, with a clock of its own; see program.py."""
    process = end.node.host.popen([*PROGRAM, clock, "up", "--foreground", str(end.conf)])
    process.wait_for_output(" is up", 30)
    try:
        yield process
    finally:
        process.stop(ENDED)


@contextlib.contextmanager
def done_and_undone(host: Host, do: str, undo: str) -> Iterator[None]:
    """Two lines of `ip`."""
    host.ip(do)
    try:
        yield
    finally:
        host.ip(undo)


@contextlib.contextmanager
def lines(host: Host, do: str, undo: str) -> Iterator[None]:
    """Two scripts of shell; what a remedy has undone already is no error."""
    host.run(["sh", "-ec", do])
    try:
        yield
    finally:
        host.run(["sh", "-c", undo], check=False)


@contextlib.contextmanager
def sysctls(host: Host, *names: str, value: str, old: str) -> Iterator[None]:
    for name in names:
        host.set_sysctl(name, value)
    try:
        yield
    finally:
        for name in names:
            host.set_sysctl(name, old)


@contextlib.contextmanager
def blocked(host: Host, hook: Hook, match: str) -> Iterator[None]:
    faults.block(host, hook, match)
    try:
        yield
    finally:
        faults.unblock(host, hook)


@contextlib.contextmanager
def rules(host: Host, table: str, chains: str) -> Iterator[None]:
    host.nft(f"table {table} {{\n{chains}\n}}")
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", *table.split()])


def tables(host: Host) -> str:
    return host.run(["nft", "list", "tables"]).stdout
