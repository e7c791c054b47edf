"""Confs as users publish them, in use: what was recorded of wg-quick is what it and we set up.

tests/unit/daemon/test_published.py compares all of them with what we plan; here are those in which
hooks or the device have a part, and a few to see that the records are true.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.pairs import remains
from tests.support.published import (
    IN_USE_ALONE,
    Around,
    Recorded,
    by_wg_quick,
    fakes,
    make_host,
    notes,
    observe,
    put,
)
from tests.support.tunnel_wg import write_script
from tunnel.lab import Host, Lab

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg", "iptables", "ip6tables")]

IN_USE = (*IN_USE_ALONE, "provider-kill-switch")
QUICKLY = ("corner-quotes-in-hook", "provider-kill-switch")
AS_RECORDED = ("corner-mtu-below-ipv6", "hub-of-twenty", "provider-kill-switch")


def by_ours(host: Host, name: str, *command: str, program: str = "") -> tuple[Around, list[str]]:
    """What `command up` makes of a conf, and what its hooks called on the way down."""
    conf = put(host, name)
    before = remains(host)
    with fakes(host) as environment:
        given = {**environment, "WG_QUICK_USERSPACE_IMPLEMENTATION": program}
        said = host.directory / "said"

        def run(verb: str, what: str) -> None:
            shell = f'"$0" "$@" >{said} 2>&1 || {{ cat {said}; exit 1; }}'
            host.run(["sh", "-c", shell, *command, verb, what], environment=given, timeout=60)

        run("up", str(conf))
        around = observe(host)
        run("down", str(conf))
        calls = notes(host, "calls")
    host.wait_for(lambda: remains(host) == before, 10, f"{name}: everything to be gone")
    return around, calls[len(around.calls) :]


def test_tunnel_up(lab: Lab) -> None:
    host = make_host(lab)
    for name in IN_USE:
        around, called = by_ours(host, name, sys.executable, "-m", "tunnel")
        assert (name, around) == (name, Recorded.read(name).around)
        assert bool(called) == (name == "provider-kill-switch")


def test_tunnel_wg_quick_up(lab: Lab, tmp_path: Path) -> None:
    host = make_host(lab)
    program = write_script(tmp_path)
    for name in QUICKLY:
        quick = (sys.executable, "-m", "tunnel.cli.quick")
        around, called = by_ours(host, name, *quick, program=program)
        assert (name, around) == (name, Recorded.read(name).around)
        assert called


@pytest.mark.foreign("wg-quick", "wireguard-go")
def test_the_records_are_true(lab: Lab) -> None:
    host = make_host(lab)
    for name in AS_RECORDED:
        assert (name, by_wg_quick(host, name)) == (name, Recorded.read(name))
