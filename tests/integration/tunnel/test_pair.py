"""`tunnel pair` over a real sshd: what it sets up, and that nothing is left where it fails."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hosts import TwoHosts, two_hosts
from tests.support.ordinary_user import let_all_enter
from tests.support.sshd import TUNNEL, USER, SshServer, own_etc, own_folder, read, write
from tunnel import config
from tunnel.lab import Host, HostProcess, Lab
from tunnel.lab.faults import masquerade

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.foreign("ssh", "sshd", "ssh-keygen", "sudo"),
]

SILENT = """
table inet silent {{
    chain input {{
        type filter hook input priority 0
        {} drop
    }}
}}
"""
NO_PINGS = SILENT.format('iifname != "eth0" icmp type echo-request')
NO_UDP = SILENT.format("udp dport 51820-51900")
SUDO = f"{USER} ALL=(root) NOPASSWD: ALL"
RECORDER = """#!/bin/bash
echo "$*" >>{folder}/words
set -o pipefail
tee -a {folder}/in | {ssh} "$@" | tee -a {folder}/out
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[TwoHosts]:
    """Two hosts, each with an /etc of its own; a logs in to b as `office`, or by its address."""
    with Lab() as lab:
        two = two_hosts(lab)
        for host in (two.a, two.b):
            own_etc(host, sudoers=SUDO)
            let_all_enter(host)
        server = SshServer.start(two.b, "192.0.2.2", path=f"{TUNNEL.parent}:")
        server.let_in(two.a, "office 192.0.2.2")
        yield two


@pytest.fixture
def office(hosts: TwoHosts) -> Iterator[TwoHosts]:
    """The two hosts. Afterwards they are as before, but for /etc/tunnel being there."""
    yield hosts
    for host in (hosts.a, hosts.b):
        for conf in confs(host):
            host.run([str(TUNNEL), "down", conf], check=False)
            host.run(["rm", f"/etc/tunnel/{conf}"])
        host.run(["sh", "-c", "rm -f /run/tunnel/*.log"])
        host.run(["nft", "flush", "ruleset"])


def confs(host: Host) -> list[str]:
    return host.run(["sh", "-c", "ls -A /etc/tunnel 2>/dev/null"], check=False).stdout.split()


def traces(host: Host) -> list[str]:
    """What a pairing leaves behind, or must not."""
    run = host.run(["sh", "-c", "ls -A /run/tunnel 2>/dev/null"], check=False).stdout.split()
    links = [name for name in host.interfaces() if name not in ("lo", "eth0")]
    return [*confs(host), *run, *links]


def pair(host: Host, *words: str, code: int = 0, user: str = "") -> str:
    """What `tunnel pair` says."""
    as_user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"] if user else []
    done = host.run([*as_user, str(TUNNEL), "pair", *words, "--yes"], check=False, timeout=90)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def conf_of(host: Host, name: str) -> config.TunnelConfig:
    assert host.run(["stat", "-c", "%a", f"/etc/tunnel/{name}.conf"]).stdout == "600\n"
    return config.parse(read(host, f"/etc/tunnel/{name}.conf"), name=name, source=host.name)


def waiting_for_a_ping(office: TwoHosts) -> HostProcess:
    """A pairing that has everything up, and waits for an answer that never comes."""
    for host in (office.a, office.b):
        host.nft(NO_PINGS)
    words = ("pair", "office", "--yes", "--wait", "200")
    # Where ssh's socket would outlive a kill.
    started = office.a.popen([str(TUNNEL), *words], environment={"TMPDIR": "/run"})
    office.a.wait_for(lambda: "ping office" in started.log(), 30, "pings")
    assert confs(office.a) == confs(office.b) == ["office.conf"]
    return started


def wait_until_undone(*hosts: Host) -> None:
    hosts[0].wait_for(lambda: not any(map(traces, hosts)), 30, "undone")


def test_both_ends_are_up_and_no_private_key_crossed(office: TwoHosts, tmp_path: Path) -> None:
    a, b = office.a, office.b
    ssh = a.run(["sh", "-c", "command -v ssh"]).stdout.strip()
    recorder = tmp_path / "bin" / "ssh"
    recorder.parent.mkdir()
    recorder.write_text(RECORDER.format(folder=tmp_path, ssh=ssh))
    recorder.chmod(0o755)
    path = f"{recorder.parent}:{os.environ['PATH']}"
    done = a.run([str(TUNNEL), "pair", "office"], environment={"PATH": path})
    assert "ping this host from office … " in done.stdout
    near, far = conf_of(a, "office"), conf_of(b, "office")
    crossed = b"".join((tmp_path / name).read_bytes() for name in ("words", "in", "out"))
    for one, other in ((near, far), (far, near)):
        secret, (peer,) = one.interface.private_key, other.peers
        assert secret is not None
        assert peer.public_key == secret.public_key()
        assert not crossed.count(secret.to_base64().encode())
        assert not crossed.count(bytes(secret))
        assert str(peer.endpoint) == f"192.0.2.{1 if one is near else 2}:51820"
        assert peer.persistent_keepalive == 0
        (key,) = [each.preshared_key for each in one.peers]
        assert key is not None
        assert key == peer.preshared_key
        assert key.to_base64().encode() in (tmp_path / "in").read_bytes(), "the recorder works"
        assert key.to_base64().encode() not in (tmp_path / "words").read_bytes()
    a.ping(str(far.interface.addresses[0].ip))
    b.ping(str(near.interface.addresses[1].ip))
    # The name is there now, on one side and on the other.
    a.run([str(TUNNEL), "down", "office"])
    a.run(["rm", "/etc/tunnel/office.conf"])
    assert "office: /etc/tunnel/office.conf is there already" in pair(a, "office", code=1)
    assert traces(a) == ["office.log"]
    a.run(["rm", "/run/tunnel/office.log"])
    assert conf_of(b, "office") == far


def test_an_ordinary_user_pairs_by_sudo_and_chooses(office: TwoHosts) -> None:
    words = ("--name", "link", "--port", "4000", "--network", "172.30.0.0/30")
    said = pair(office.a, f"{USER}@192.0.2.2", *words, user=USER)
    assert "with sudo there" in said
    conf = conf_of(office.b, "link")
    assert str(conf.interface.addresses[0]) == "172.30.0.2/30"
    assert conf.interface.listen_port == 4000
    # What is in use is refused, before anything is changed.
    said = pair(office.a, "office", "--network", "172.30.0.0/24", code=1)
    assert "172.30.0.0/30 is in use" in said or "172.30.0.1/32 is in use" in said
    assert "UDP port 4000 is taken" in pair(office.a, "office", "--port", "4000", code=1)
    assert confs(office.a) == confs(office.b) == ["link.conf"]


def test_two_at_once_collide_in_nothing(office: TwoHosts) -> None:
    names = ("one", "two")
    words = ("office", "--yes", "--name")
    started = [office.a.popen([str(TUNNEL), "pair", *words, name]) for name in names]
    assert [process.wait(60) for process in started] == [0, 0], [p.log() for p in started]
    made = [conf_of(host, name) for host in (office.a, office.b) for name in names]
    assert len({conf.interface.addresses[0].network for conf in made}) == 2
    assert len({conf.interface.listen_port for conf in made}) == 2


def test_sudo_that_asks_is_named(office: TwoHosts) -> None:
    write(office.b, "/etc/sudoers", f"{USER} ALL=(ALL) ALL", mode="440")
    try:
        said = pair(office.a, f"{USER}@office", code=1)
    finally:
        write(office.b, "/etc/sudoers", SUDO, mode="440")
    assert "sudo asks for a password there" in said
    assert traces(office.a) == traces(office.b) == []


def test_without_a_handshake_it_says_who_was_to_reach_whom(office: TwoHosts) -> None:
    for host in (office.a, office.b):
        host.nft(NO_UDP)
    said = pair(office.a, "office", "--wait", "1", code=1)
    assert "office should have reached this host at 192.0.2.1:51820" in said
    assert "allow UDP port 51820 there" in said
    assert traces(office.a) == traces(office.b) == []


def test_a_full_disk_there_undoes_what_was_written_here(office: TwoHosts) -> None:
    office.b.run(["mkdir", "-p", "/etc/tunnel"])
    office.b.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", "/etc/tunnel"])
    office.b.run(["sh", "-c", "head -c 4096 /dev/zero >/etc/tunnel/full"])
    try:
        said = pair(office.a, "office", code=1)
        assert "office: cannot write /etc/tunnel/office.conf: No space left on device" in said
        assert confs(office.b) == ["full"]
    finally:
        office.b.run(["umount", "/etc/tunnel"])
    assert traces(office.a) == traces(office.b) == []


def test_ctrl_c_undoes_both(office: TwoHosts) -> None:
    started = waiting_for_a_ping(office)
    started.signal(signal.SIGINT)
    assert started.wait(30) == 130
    assert "stopped; nothing was set up" in started.log()
    assert traces(office.a) == traces(office.b) == []


def test_kill_9_undoes_both(office: TwoHosts) -> None:
    started = waiting_for_a_ping(office)
    started.signal(signal.SIGKILL)
    wait_until_undone(office.a, office.b)


def test_a_lost_connection_undoes_both_and_says_what_may_remain(office: TwoHosts) -> None:
    before = set(office.b.pids())
    started = waiting_for_a_ping(office)
    for pid in set(office.b.pids()) - before:
        if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
            os.kill(pid, signal.SIGKILL)
    assert started.wait(60) == 1
    assert "office can no longer be reached" in started.log()
    assert "tunnel down office; rm /etc/tunnel/office.conf" in started.log()
    wait_until_undone(office.a, office.b)


def test_behind_a_nat_this_side_keeps_the_way_open(lab: Lab) -> None:
    a, router, b = lab.host("a"), lab.router("router"), lab.host("b")
    lab.routed(a, router, b)
    masquerade(router, "eth1")
    for host in (a, b):
        own_etc(host)
    SshServer.start(b, "203.0.113.1", path=f"{TUNNEL.parent}:").let_in(a, "203.0.113.1")
    said = pair(a, "203.0.113.1")
    assert "reach this host by UDP from there … no, it is behind a NAT" in said
    assert "this host sends a keepalive every 25 s" in said
    near, far = conf_of(a, "pair0"), conf_of(b, "pair0")
    assert str(near.peers[0].endpoint) == "203.0.113.1:51820"
    assert near.peers[0].persistent_keepalive == 25
    assert far.peers[0].endpoint is None
    assert far.peers[0].persistent_keepalive == 0
    b.ping(str(near.interface.addresses[0].ip))


@pytest.mark.slow
def test_installs_itself_there_without_a_network_of_packages(two_hosts: TwoHosts) -> None:
    a, b = two_hosts.a, two_hosts.b
    for host in (a, b):
        own_etc(host)
    for folder in ("/opt", "/usr/local"):
        own_folder(b, folder)
    b.run(["rm", "-rf", "/opt/tunnel", "/usr/local/bin/tunnel"])
    SshServer.start(b, "192.0.2.2").let_in(a, "office")
    assert "office: tunnel is not installed there; add --install" in pair(a, "office", code=1)
    said = pair(a, "office", "--install", "--dry-run")
    assert "see whether tunnel" in said
    assert "yes, in /opt/tunnel" in said
    assert "tunnel" not in b.run(["ls", "/opt"]).stdout.split()
    said = pair(a, "office", "--install")
    assert "install tunnel" in said
    shown = [
        host.run([program, "--version"]).stdout.splitlines()[:3]
        for host, program in ((a, str(TUNNEL)), (b, "/opt/tunnel/bin/tunnel"))
    ]
    assert shown[0][0] == shown[1][0]
    assert shown[0][2] == shown[1][2], "the same datapath"
    b.run(["/opt/tunnel/bin/tunnel", "down", "office"])
