from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support.hosts import TwoHosts
from tunnel.lab import Lab, LabError, LabTimeoutError, namespace, state, wait_for
from tunnel.lab.namespace import NETNS_DIRECTORY
from tunnel.lab.weather import Faults

pytestmark = pytest.mark.root


def names_of(lab_id: str) -> list[str]:
    return [path.name for path in NETNS_DIRECTORY.glob(f"{state.PREFIX}{lab_id}-*")]


def gone(pids: list[int]) -> bool:
    # An orphan that has ended may wait a little for init to reap it.
    return all(namespace.start_time(pid) is None for pid in pids)


def test_two_hosts_reach_each_other(two_hosts: TwoHosts) -> None:
    two_hosts.a.ping("192.0.2.2")
    two_hosts.b.ping("2001:db8::1")
    found = [str(entry.address) for entry in two_hosts.a.addresses("eth0")]
    assert found == ["192.0.2.1/24", "2001:db8::1/64"]


def test_a_host_has_its_own_run_sysfs_name_and_etc(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    for host in (a, b):
        host.run(["sh", "-c", 'mkdir /run/wireguard && hostname > "/run/wireguard/wg0"'])
    assert a.run(["cat", "/run/wireguard/wg0"]).stdout == "a\n"
    assert b.run(["cat", "/var/run/wireguard/wg0"]).stdout == "b\n"
    assert set(a.run(["ls", "/sys/class/net"]).stdout.split()) == {"lo", "eth0"}
    (a.etc / "hosts").write_text("192.0.2.2 peer.example\n")
    assert "192.0.2.2" in a.run(["getent", "ahosts", "peer.example"]).stdout
    assert not Path("/run/wireguard/wg0").exists()


def test_a_program_runs_in_our_folder(two_hosts: TwoHosts) -> None:
    assert two_hosts.a.run(["pwd"]).stdout.strip() == str(Path.cwd())


def test_failure_and_timeout_say_what_was_printed(two_hosts: TwoHosts) -> None:
    with pytest.raises(LabError, match=r"a: sh -c .*: status 3: too bad"):
        two_hosts.a.run(["sh", "-c", "echo too bad >&2; exit 3"])
    with pytest.raises(LabTimeoutError, match=r"not finished within 0\.1 s; so far"):
        two_hosts.a.run(["sh", "-c", "echo so far; exec sleep 60"], timeout=0.1)


def test_a_program_that_is_not_there_is_an_error_in_any_case(two_hosts: TwoHosts) -> None:
    with pytest.raises(LabError, match=r"a: no-such-program: status 127: env: .no-such-program"):
        two_hosts.a.run(["no-such-program"], check=False)
    assert two_hosts.a.run(["sh", "-c", "exit 127"], check=False).returncode == 127


def test_started_programs_are_tracked_by_their_own_pid(two_hosts: TwoHosts) -> None:
    process = two_hosts.a.popen(["sh", "-c", "echo up; exec sleep 60"])
    process.wait_for_output("up")
    assert two_hosts.a.pids() == [process.pid]
    assert Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n"
    assert process.kill() == -signal.SIGKILL
    with pytest.raises(LabError, match="ended with status"):
        process.wait_for_output("never")


def test_teardown_ends_daemons_and_removes_names() -> None:
    with Lab() as lab:
        host = lab.host("a")
        directory = lab.directory
        host.run(["sh", "-c", "setsid sleep 60 >/dev/null 2>&1 &"])
        stubborn = host.popen(["sh", "-c", "trap '' TERM; echo up; while :; do sleep 60; done"])
        stubborn.wait_for_output("up")
        wait_for(lambda: len(host.pids()) == 3, 5, "daemon, shell and its sleep")
        assert names_of(lab.id)
        pids = [*host.pids(), host.pid]
    assert not names_of(lab.id)
    assert not directory.exists()
    assert gone(pids)
    assert lab.id not in [found.id for found in state.read_all()]
    lab.close()
    with pytest.raises(LabError, match="has been taken down"):
        lab.host("b")


def test_one_host_can_go_early(two_hosts: TwoHosts) -> None:
    netns = two_hosts.b.netns
    two_hosts.b.popen(["sleep", "60"])
    two_hosts.lab.remove_host(two_hosts.b)
    assert netns not in names_of(two_hosts.lab.id)
    wait_for(lambda: two_hosts.a.interfaces() == ["lo"], 5, "veth gone with its other end")


OWNER = """
import sys, time
from tunnel.lab import Lab
with Lab() as lab:
    host = lab.host("a")
    daemon = host.popen(["sleep", "300"])
    print(lab.id, host.pid, daemon.pid, flush=True)
    if sys.argv[1] == "keep":
        lab.keep()
    elif sys.argv[1] == "raise":
        raise RuntimeError
    else:
        time.sleep(60)
"""


def owner(what: str) -> tuple[subprocess.Popen[str], str, list[int]]:
    # A coverage run has a handler of SIGTERM of its own, where this test wants none.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE_")}
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, what],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert process.stdout is not None
    lab_id, *pids = process.stdout.readline().split()
    process.stdout.close()
    return process, lab_id, [int(pid) for pid in pids]


@pytest.mark.parametrize(
    ("what", "number"),
    [("wait", signal.SIGTERM), ("wait", signal.SIGINT), ("wait", signal.SIGHUP), ("raise", None)],
)
def test_nothing_is_left_however_the_owner_ends(what: str, number: signal.Signals | None) -> None:
    process, lab_id, pids = owner(what)
    if number is not None:
        process.send_signal(number)
    assert process.wait(10) != 0
    assert gone(pids)
    assert not names_of(lab_id)


def test_sweep_follows_sigkill_and_spares_the_living(two_hosts: TwoHosts) -> None:
    process, lab_id, pids = owner("wait")
    process.kill()
    process.wait()
    wait_for(lambda: gone(pids), 5, "the holder ends what ran in its host")
    # Another lab that starts meanwhile may have swept before us.
    Lab.sweep()
    assert not names_of(lab_id)
    two_hosts.a.ping("192.0.2.2")


def test_sweeps_side_by_side_do_not_trip_over_each_other() -> None:
    lab_id = secrets.token_hex(3)
    for index in range(20):
        subprocess.run(["ip", "netns", "add", f"{state.PREFIX}{lab_id}-h{index}"], check=True)
    script = "from tunnel.lab import Lab; Lab.sweep()"
    sweepers = [
        subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert [process.communicate(timeout=30)[1] for process in sweepers] == [""] * 4
    assert not names_of(lab_id)


def test_a_kept_lab_stays_until_it_is_removed() -> None:
    process, lab_id, pids = owner("keep")
    assert process.wait(10) == 0
    assert lab_id not in Lab.sweep()
    try:
        inside = subprocess.run(
            ["ip", "netns", "pids", f"{state.PREFIX}{lab_id}-a"], capture_output=True, text=True
        ).stdout.split()
        assert sorted(map(int, inside)) == sorted(pids)
    finally:
        Lab.remove(lab_id)
    assert gone(pids)
    assert not names_of(lab_id)
    with pytest.raises(LabError, match="there is no lab"):
        Lab.remove(lab_id)


def test_switch_and_router(lab: Lab) -> None:
    switch, router = lab.switch("switch"), lab.router("router")
    hosts = [lab.host(f"h{index}") for index in range(3)]
    for index, host in enumerate(hosts, 1):
        switch.attach(host, [f"192.0.2.{index}/24", f"2001:db8::{index}/64"])
    hosts[0].ping("192.0.2.3")
    hosts[2].ping("2001:db8::2")
    a, b = lab.host("a"), lab.host("b")
    lab.routed(a, router, b, mtu=1400)
    a.ping("203.0.113.1")
    b.ping("2001:db8:a::1")
    big = a.run(["ping", "-n", "-c1", "-w2", "-M", "do", "-s", "1400", "203.0.113.1"], check=False)
    assert "mtu = 1400" in big.stdout + big.stderr


def test_hosts_are_usable_from_many_threads(two_hosts: TwoHosts) -> None:
    failures: list[BaseException] = []

    def body() -> None:
        try:
            for _ in range(5):
                two_hosts.a.run(["true"])
                two_hosts.b.popen(["true"]).wait(5)
                assert two_hosts.b.call(lambda: os.listdir("/proc/self/net/dev_snmp6"))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=body) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_name_is_used_once(two_hosts: TwoHosts) -> None:
    with pytest.raises(LabError, match="has a host 'a' already"):
        two_hosts.lab.host("a")


def test_a_wire_is_a_switch_and_looks_like_any_other_cable(lab: Lab) -> None:
    hosts = [lab.host(name) for name in "abc"]
    interfaces = lab.wire(hosts, Faults(delay=0.01), seed=1)
    for number, (host, interface) in enumerate(zip(hosts, interfaces, strict=True), start=1):
        host.add_addresses(interface, [f"192.0.2.{number}/24", f"2001:db8::{number}/64"])
        (link,) = host.ip_json(["-details", "link", "show", interface])
        # A TUN or TAP device is taken for another tunnel, by the rules of Isolate for one.
        assert link["linkinfo"]["info_kind"] == "veth"
    a, _, c = hosts
    for address in ("192.0.2.2", "192.0.2.3", "2001:db8::2"):
        a.ping(address)
    times = c.run(["ping", "-n", "-c", "1", "-w", "10", "2001:db8::1"]).stdout
    found = re.search(r"time=([0-9.]+) ms", times)
    assert found is not None
    assert float(found[1]) >= 20
