"""Of a tunnel that is not up, the doctor names what `tunnel up` fails at; and `up` fails at it."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.doctoring import (
    DOCTOR,
    Net,
    carry_out,
    codes,
    conf_of,
    examine,
    lines,
    remedy_of,
)
from tunnel.lab import Host
from tunnel.lab.peers import Node, OurEnd

pytestmark = pytest.mark.root

UP = [sys.executable, "-m", "tunnel", "up"]
NETWORK = "10.5.0.0/24"
Around = Callable[[Host], contextlib.AbstractContextManager[object]]


def around(do: str, undo: str) -> Around:
    return lambda host: lines(host, do, undo)


@dataclass(frozen=True)
class Case:
    """What is in the way of a conf: `found` names it, and `said` is what both commands say."""

    found: str
    said: str
    around: Around = lambda host: contextlib.nullcontext()
    extra: tuple[str, ...] = ()
    routes: tuple[str, ...] = (NETWORK,)
    port: int = 51829
    mode: int = 0o600
    heals: bool = False


CASES = {
    "the name of another interface": Case(
        "interface_taken",
        "a TUN or TAP device of another program",
        around("ip tuntap add wg9 mode tun", "ip tuntap del wg9 mode tun"),
    ),
    "the port of another tunnel": Case(
        "port_taken", r"UDP port 51820 is taken by \S+ \(process \d+\)", port=51820
    ),
    "a route of another program": Case(
        "route_taken",
        "no device has this route already",
        around(f"ip route add blackhole {NETWORK}", f"ip route del blackhole {NETWORK}"),
    ),
    "the host's own network": Case("allowed_ips_swallow", "192.0.2.0/24", routes=("192.0.2.0/24",)),
    "IPv6 that is off": Case(
        "ipv6_off",
        "Permission denied",
        around(
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=1",
            "sysctl -qw net.ipv6.conf.default.disable_ipv6=0",
        ),
        routes=("fd05::/64",),
        heals=True,
    ),
    "a conf that any user may change": Case(
        "up_refused", "chmod go-w", extra=("PostUp = true",), mode=0o666
    ),
}


def end_of(net: Net, case: Case) -> OurEnd:
    here = Node(net.host, ("10.6.0.1/32",), port=case.port, interface="wg9")
    there = Node(net.far, ("10.6.0.2/32",), "192.0.2.2", routes=case.routes)
    end = OurEnd(here, conf_of(here, there, extra=case.extra))
    end.conf.chmod(case.mode)
    return end


@pytest.mark.parametrize("case", CASES.values(), ids=[*CASES])
def test_what_up_fails_at_is_named_before(net: Net, case: Case) -> None:
    end = end_of(net, case)
    with case.around(net.host):
        report = examine(end)
        assert codes(report) == {case.found, "not_running"}, report
        assert report["findings"][0]["code"] == case.found
        failed = net.host.run([*UP, str(end.conf)], check=False)
        assert failed.returncode == 1
        for text in (failed.stderr, str(report["findings"][0])):
            assert re.search(case.said, text)
        if case.heals:
            carry_out(end, remedy_of(report, case.found))
            end.up()
            end.down()


def test_what_up_cannot_do_without_programs(net: Net, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    (folder / "ip").symlink_to(shutil.which("ip") or "ip")
    few = ["env", f"PATH={folder}", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={tmp_path}/none"]
    case = Case("", "", extra=("DNS = 192.0.2.53",), routes=("0.0.0.0/0",))
    end = end_of(net, case)
    report = examine(end, command=[*few, *DOCTOR])
    assert codes(report) == {"dns_missing", "nft_missing", "not_running"}
    for conf, said in (
        (end.conf.read_text(), "neither resolvconf nor systemd-resolved is there"),
        (end.conf.read_text().replace("DNS", "# DNS"), "nft is not installed"),
    ):
        end.conf.write_text(conf)
        failed = net.host.run([*few, *UP, str(end.conf)], check=False)
        assert failed.returncode == 1
        assert said in failed.stderr
        assert said in str(report["findings"])


def test_no_hook_sets_the_private_key(net: Net) -> None:
    end = end_of(net, Case("", "", extra=("PostUp = true",)))
    end.conf.write_text(re.sub("PrivateKey.*\n", "", end.conf.read_text()))
    report = examine(end)
    assert codes(report) == {"not_running"}, report
    end.up()
    try:
        report = examine(end, wait="0.5")
    finally:
        end.down()
    assert report["findings"][0]["code"] == "private_key_missing"


def test_nothing_is_in_the_way(net: Net) -> None:
    end = end_of(net, Case("", "", routes=("0.0.0.0/0", "::/0")))
    state = [net.host.run(["ip", what], check=False).stdout for what in ("link", "route", "rule")]
    assert codes(examine(end)) == {"not_running"}
    after = [net.host.run(["ip", what], check=False).stdout for what in ("link", "route", "rule")]
    assert after == state
    end.up()
    end.down()
