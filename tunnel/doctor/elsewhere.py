"""Looking where the daemon is, and where its interface is: each may be in a namespace of its own.

Links, routes, rules and probes are those of one network namespace. So a doctor runs in each.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.doctor import machine
from tunnel.doctor.facts import Facts, Options
from tunnel.doctor.findings import Finding, Report
from tunnel.doctor.gathering import NOT_INSIDE
from tunnel.linux import netns
from tunnel.systemd.units import own_command

_LOCAL = ("ip ", "nft ", "sysctl ")
"""How remedies begin that work in the network namespace that they are run in."""

_SYMPTOMS = frozenset({"nothing_comes", "endpoint_refuses", "address_silent"})
"""What only the doctor that sends probes can say."""


def examine_elsewhere(name: str, conf: str | None, options: Options) -> Report | None:
    """The report of a doctor in the daemon's network namespace; None if that is ours.

    None as well if it cannot be entered: then what can be seen from here is all there is.
    """
    pid = None if options.inside else _daemon_elsewhere(name)
    return None if pid is None else _examine_in(Path(f"/proc/{pid}/ns/net"), name, conf, options)


def join_inside(report: Report, facts: Facts, conf: str | None) -> Report:
    """The report, with that of a doctor where the interface is, if that is not where `facts` are
    from. As it is where that namespace cannot be found or entered.
    """
    status = facts.after
    if status is None or status.here or facts.elsewhere or status.device != facts.name:
        return report
    place = netns.find_namespace(status.device_netns) if status.device_netns else None
    if place is None:
        return report
    inner = _examine_in(place, facts.name, conf, replace(facts.options, inside=True))
    if inner is None:
        return report
    known = {(finding.code, finding.peer) for finding in inner.findings}
    outer = (
        finding
        for finding in report.findings
        if finding.code not in _SYMPTOMS and (finding.code, finding.peer) not in known
    )
    moved = Finding(
        "interface_elsewhere",
        f"the interface {facts.name} is in another network namespace than its daemon; both were "
        "looked at",
        f"it is in the one of {place}",
        f"nsenter --net={place} ip address show {facts.name}   # to see it there",
    )
    notes = [note for note in report.notes if note.code != moved.code]
    return replace(
        report,
        findings=(*(_from(place, finding) for finding in inner.findings), *outer),
        notes=(*notes, moved, *inner.notes),
        skipped=(*(each for each in report.skipped if each != NOT_INSIDE), *inner.skipped),
    )


def _from(place: Path, finding: Finding) -> Finding:
    """The finding, its remedy a command for this namespace."""
    remedy, comment, words = finding.remedy.partition("   #")
    if not remedy.startswith(_LOCAL):
        return finding
    enter = f"nsenter --net={shlex.quote(str(place))} "
    command = f"sh -c {shlex.quote(remedy)}" if set(remedy) & set(";&|<>") else remedy
    return replace(finding, remedy=f"{enter}{command}{comment}{words}")


def _examine_in(place: Path, name: str, conf: str | None, options: Options) -> Report | None:
    """The report of a doctor in a network namespace; None if it cannot be entered."""
    arguments = [conf or name, "--json", "--wait", str(options.wait)]
    arguments += ["--forward"] if options.forward else []
    arguments += ["--address", options.address] if options.address else []
    arguments += ["--inside"] if options.inside else []
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # A process of its own: threads that have run once stay where they were begun.
        done = subprocess.run(
            [*own_command(), "doctor", *arguments],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            preexec_fn=lambda: netns.enter(descriptor),
        )
        (report,) = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    finally:
        os.close(descriptor)
    return Report.from_json(report)


def _daemon_elsewhere(name: str) -> int | None:
    """The process of the daemon, if it is in another network namespace than we."""
    try:
        with TunnelClient(name) as client:
            pid = client.peer_pid()
    except (ControlError, OSError):
        return None
    return None if machine.in_our_namespace(pid) else pid
