"""The unit under a real systemd, which runs as PID 1 of namespaces in a lab host."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hosts import TwoHosts
from tests.support.machine.machine import Machine, boot
from tests.support.secrets import secrets_in
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.lab.process import wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.foreign("journalctl", "systemctl", "systemd-analyze"),
]

UNIT = "tunnel@wg0"


@dataclass(frozen=True)
class Service:
    """Host a has booted; b is up, and b's inner address is 10.77.0.2."""

    machine: Machine
    conf: Path
    two: TwoHosts

    def wait_for_state(self, *states: str) -> None:
        def reached() -> bool:
            return self.machine.property(UNIT, "ActiveState") in states

        wait_for(reached, 30, f"{UNIT} to be {' or '.join(states)}")

    def index(self) -> str:
        return self.two.a.run(["cat", "/sys/class/net/wg0/ifindex"]).stdout.strip()

    def wait_for_daemon_after(self, pid: str) -> None:
        def is_another() -> bool:
            active = self.machine.property(UNIT, "ActiveState") == "active"
            return active and self.machine.property(UNIT, "MainPID") not in ("0", pid)

        wait_for(is_another, 30, "another daemon")

    def ping(self) -> None:
        self.two.a.run(["ping", "-c", "2", "-i", "0.2", "-W", "5", "10.77.0.2"])

    def links(self) -> list[str]:
        return self.two.a.interfaces()


@pytest.fixture
def make(two_hosts: TwoHosts, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    with ExitStack() as stack:

        def make_service(
            lines: str = "",
            extra: tuple[str, ...] = (),
            names: tuple[str, ...] = (),
            routes: tuple[str, ...] = (),
        ) -> Service:
            a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
            b = Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2", routes=routes)
            OurEnd(b, render_conf(b, [a])).up()
            confs, units = tmp_path / "confs", tmp_path / "units"
            confs.mkdir(mode=0o700)
            units.mkdir()
            conf = confs / "wg0.conf"
            conf.touch(mode=0o600)
            conf.write_text(render_conf(a, [b], extra=extra))
            machine = stack.enter_context(boot(two_hosts.a, confs, units, lines, names))
            return Service(machine, conf, two_hosts)

        yield make_service


def test_a_life_under_systemd(make: Callable[..., Service]) -> None:
    service = make()
    machine = service.machine
    machine.systemctl("start", UNIT)
    # Type=notify: start returns when packets can flow.
    service.ping()
    assert machine.property(UNIT, "StatusText") == "UDP port 51820, 1 peer"
    pid = machine.property(UNIT, "MainPID")
    status = machine.run(["cat", f"/proc/{pid}/status"]).stdout
    assert re.search(r"^NoNewPrivs:\t1$", status, re.M)
    assert re.search(r"^Seccomp:\t2$", status, re.M)
    bounding = re.search(r"^CapBnd:\t([0-9a-f]+)$", status, re.M)
    assert bounding is not None
    assert int(bounding[1], 16) == 1 << 2 | 1 << 10 | 1 << 12 | 1 << 13
    # Reload: the daemon is the same one, and has read the conf again.
    service.conf.write_text(service.conf.read_text() + "PersistentKeepalive = 7\n")
    machine.systemctl("reload", UNIT)
    assert machine.property(UNIT, "MainPID") == pid
    assert machine.property(UNIT, "ActiveState") == "active"
    shown = machine.tunnel("show", "wg0", "--json")
    assert '"persistent_keepalive": 7' in shown
    service.ping()
    # A mistake in the conf: the reload fails, the tunnel stays.
    right = service.conf.read_text()
    service.conf.write_text(right.replace("10.77.0.1/24", "10.77.0.1/240"))
    machine.run(["systemctl", "reload", UNIT], check=False)
    assert machine.property(UNIT, "ActiveState") == "active"
    service.ping()
    service.conf.write_text(right)
    machine.systemctl("stop", UNIT)
    assert machine.property(UNIT, "Result") == "success"
    assert "wg0" not in service.links()
    # Levels have arrived in the journal as levels, and nothing went wrong on the way.
    said = machine.journal("-o", "cat", "-u", UNIT, "-p", "6..6")
    assert "wg0 is up, UDP port 51820" in said
    assert "wg0 is going down" in said
    complaints = machine.journal("-o", "cat", "-u", UNIT, "-p", "4")
    assert "persistent" not in complaints.lower()
    whole = machine.journal("-o", "export", "-u", UNIT)
    assert "Traceback" not in whole
    (private_key,) = re.findall(r"^PrivateKey = (\S+)$", service.conf.read_text(), re.M)
    assert secrets_in(whole.encode(), {"private key": private_key}) == []


def test_restarts_and_kills_keep_the_interface(make: Callable[..., Service]) -> None:
    service = make(extra=("PostUp = echo up >> /run/tunnel/wg0.note",), names=("hooks",))
    machine = service.machine
    machine.systemctl("start", UNIT)
    service.ping()
    index = service.index()
    first = machine.property(UNIT, "MainPID")
    machine.systemctl("restart", UNIT)
    second = machine.property(UNIT, "MainPID")
    assert second != first
    machine.run(["kill", "-KILL", second])
    service.wait_for_daemon_after(second)
    assert machine.property(UNIT, "NRestarts") == "1"
    assert service.index() == index
    assert '"restarts": 2' in machine.tunnel("show", "wg0", "--json")
    service.ping()
    assert machine.run(["cat", "/run/tunnel/wg0.note"]).stdout == "up\n", "hooks have run once"
    machine.systemctl("stop", UNIT)
    assert "wg0" not in service.links()
    assert machine.property(UNIT, "NFileDescriptorStore") == "0"
    # The next one is a tunnel of its own.
    machine.systemctl("start", UNIT)
    assert '"restarts": 0' in machine.tunnel("show", "wg0", "--json")


def test_without_seamless_restarts_a_killed_daemon_is_cleaned_up(
    make: Callable[..., Service],
) -> None:
    service = make(extra=("#! tunnel: SeamlessRestart = off",))
    machine = service.machine
    machine.systemctl("start", UNIT)
    index = service.index()
    first = machine.property(UNIT, "MainPID")
    machine.run(["kill", "-KILL", first])
    service.wait_for_daemon_after(first)
    service.ping()
    assert service.index() != index
    machine.systemctl("stop", UNIT)
    assert "wg0" not in service.links()


def test_a_hung_daemon_is_ended_by_the_watchdog(make: Callable[..., Service]) -> None:
    service = make(lines="WatchdogSec=2")
    machine = service.machine
    machine.systemctl("start", UNIT)
    wait_for(lambda: machine.property(UNIT, "WatchdogTimestampMonotonic") != "0", 10, "a beat")
    first = machine.property(UNIT, "MainPID")
    machine.run(["kill", "-STOP", first])
    service.wait_for_daemon_after(first)
    service.ping()


def test_a_wrong_conf_is_not_tried_again(make: Callable[..., Service]) -> None:
    service = make(extra=("Nonsense = 1",))
    machine = service.machine
    assert machine.run(["systemctl", "start", UNIT], check=False).returncode != 0
    service.wait_for_state("failed")
    assert machine.property(UNIT, "NRestarts") == "0"
    assert machine.property(UNIT, "ExecMainStatus") == "2"
    assert "Nonsense" in machine.journal("-o", "cat", "-u", UNIT, "-p", "3..3")


def test_what_the_strict_unit_forbids_names_the_remedy(make: Callable[..., Service]) -> None:
    service = make(routes=("0.0.0.0/0",))
    machine = service.machine
    assert machine.run(["systemctl", "start", UNIT], check=False).returncode != 0
    said = machine.journal("-o", "cat", "-u", UNIT)
    assert "net.ipv4.conf.all.src_valid_mark" in said
    assert "tunnel service install --with sysctl" in said
    machine.systemctl("stop", UNIT)
    assert "wg0" not in service.links()


@pytest.mark.foreign("wg")
def test_drop_ins_give_what_they_say(make: Callable[..., Service]) -> None:
    hooks = (
        "PostUp = sysctl -qw net.ipv4.ip_forward=1; chown 1:1 /run/tunnel/wg0.note",
        "PreUp = echo hook > /run/tunnel/wg0.note",
        "SaveConfig = true",
    )
    service = make(extra=hooks, names=("hooks", "sysctl", "save-config"), routes=("0.0.0.0/0",))
    machine = service.machine
    machine.systemctl("start", UNIT)
    service.ping()
    service.two.a.run(["ping", "-c", "1", "-W", "5", "10.77.0.2"])
    assert machine.run(["stat", "-c", "%u", "/run/tunnel/wg0.note"]).stdout.strip() == "1"
    assert service.two.a.run(["cat", "/proc/sys/net/ipv4/ip_forward"]).stdout.strip() == "1"
    machine.run(["wg", "set", "wg0", "listen-port", "51999"])
    machine.systemctl("stop", UNIT)
    assert "ListenPort = 51999" in service.conf.read_text()
    assert "wg0" not in service.links()


def test_all_tunnels_stop_and_start_together(make: Callable[..., Service]) -> None:
    service = make()
    machine = service.machine
    machine.systemctl("start", "tunnel.target", UNIT)
    machine.systemctl("stop", "tunnel.target")
    service.wait_for_state("inactive")
    assert "wg0" not in service.links()


def test_the_private_key_may_be_a_credential(make: Callable[..., Service]) -> None:
    service = make(lines="LoadCredential=private-key:/etc/tunnel/wg0.key")
    machine = service.machine
    credential = f"/run/credentials/{UNIT}.service/private-key"
    conf = service.conf.read_text()
    (key,) = re.findall(r"^PrivateKey = (.*)$", conf, re.M)
    (service.conf.parent / "wg0.key").touch(mode=0o600)
    (service.conf.parent / "wg0.key").write_text(f"{key}\n")
    service.conf.write_text(conf.replace(f"PrivateKey = {key}", f"PrivateKeyFile = {credential}"))
    machine.systemctl("start", UNIT)
    service.ping()
    # The daemon and commands beside it read the key from there again.
    service.conf.write_text(service.conf.read_text() + "PersistentKeepalive = 7\n")
    machine.systemctl("reload", UNIT)
    assert '"persistent_keepalive": 7' in machine.tunnel("show", "wg0", "--json")
    assert "Traceback" not in machine.tunnel("diff", "wg0")
    service.ping()
    machine.systemctl("stop", UNIT)
    assert machine.property(UNIT, "Result") == "success"
    assert "wg0" not in service.links()
