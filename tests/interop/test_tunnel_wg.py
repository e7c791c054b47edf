"""The daemon's contract: arguments, environment, background, and every way in which it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess

import pytest

from tests.support.hosts import TwoHosts
from tests.support.tunnel_wg import SOCKET, start, wg
from tunnel.io.tun import Tun
from tunnel.lab import Host

pytestmark = [pytest.mark.root, pytest.mark.foreign("wg")]


def daemon_of(host: Host) -> int:
    """The one process in the host."""
    (pid,) = host.pids()
    return pid


def is_gone(host: Host) -> bool:
    """Whether daemon, interface and socket have all gone."""
    exists = host.run(["test", "-e", SOCKET], check=False).returncode == 0
    return not host.pids() and "wg0" not in host.interfaces() and not exists


def test_background_is_a_daemon_with_no_ties(host: Host) -> None:
    pid = daemon_of(host)
    assert os.getsid(pid) == pid
    for descriptor in (0, 1, 2):
        assert os.readlink(f"/proc/{pid}/fd/{descriptor}") == "/dev/null"
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    mode = host.run(["stat", "-c", "%a", SOCKET, "/run/wireguard"]).stdout.split()
    assert mode == ["600", "755"]
    assert host.run(["cat", "/sys/class/net/wg0/mtu"]).stdout == "1420\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it(host: Host, number: signal.Signals) -> None:
    os.kill(daemon_of(host), number)
    host.wait_for(lambda: is_gone(host), 5, "nothing to be left")


def test_deletion_of_the_interface_ends_it(host: Host) -> None:
    host.ip("link delete wg0")
    host.wait_for(lambda: is_gone(host), 5, "nothing to be left")


def test_removal_of_the_socket_ends_it(host: Host) -> None:
    host.run(["rm", SOCKET])
    host.wait_for(lambda: is_gone(host), 5, "nothing to be left")


def test_hangup_does_not_end_it(host: Host) -> None:
    os.kill(daemon_of(host), signal.SIGHUP)
    assert wg(host, "show", "wg0", "listen-port").strip().isdigit()


def test_second_one_is_refused_and_a_killed_one_is_replaced(host: Host, script: str) -> None:
    refused = host.run([script, "wg0"], check=False)
    assert refused.returncode == 1
    assert "an interface named wg0 already exists" in refused.stderr
    os.kill(daemon_of(host), signal.SIGKILL)
    host.wait_for(lambda: "wg0" not in host.interfaces(), 5, "the interface to go")
    assert host.run(["test", "-e", SOCKET], check=False).returncode == 0
    start(host, script)
    assert wg(host, "show", "interfaces") == "wg0\n"


def test_socket_in_use_is_named_and_no_interface_stays(two_hosts: TwoHosts, script: str) -> None:
    a = two_hosts.a
    holder = f"""
import os, socket
os.makedirs("/run/wireguard")
listener = socket.socket(socket.AF_UNIX)
listener.bind("{SOCKET}")
listener.listen()
print("listening", flush=True)
listener.accept()
input()
"""
    process = a.popen(["python3", "-c", holder])
    process.wait_for_output("listening")
    refused = a.run([script, "wg0"], check=False)
    assert refused.returncode == 1
    assert f"cannot listen on /var{SOCKET}" in refused.stderr
    assert "wg0" not in a.interfaces()


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["far-too-long-name"], {}, "1 to 15 bytes"),
        (["wg/0"], {}, "refused as a name"),
        (["wg0"], {"WG_TUN_FD": "x"}, "WG_TUN_FD is the number of an open descriptor"),
        (["wg0"], {"WG_TUN_FD": "9" * 5000}, "WG_TUN_FD is the number of an open descriptor"),
        (["wg0"], {"WG_TUN_FD": "0"}, "TUNSETIFF"),
        (["wg0"], {"WG_TUN_FD": "99"}, "descriptor 99"),
        (["wg0"], {"WG_UAPI_FD": "99"}, "descriptor 99 is not a socket"),
        (["wg0"], {"WG_UAPI_FD": "0"}, "descriptor 0 is not a socket"),
    ],
)
def test_what_cannot_start_says_why(
    two_hosts: TwoHosts,
    script: str,
    arguments: list[str],
    environment: dict[str, str],
    said: str,
) -> None:
    a = two_hosts.a
    refused = a.run([script, *arguments], environment=environment, check=False)
    assert refused.returncode == 1
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert is_gone(a)


def test_command_line(two_hosts: TwoHosts, script: str) -> None:
    a = two_hosts.a
    assert a.run([script, "--version"]).stdout.startswith("tunnel-wg ")
    assert "WG_TUN_FD" in a.run([script, "--help"]).stdout
    assert a.run([script], check=False).returncode == 2
    assert a.run([script, "wg0", "wg1"], check=False).returncode == 2


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [(["-f"], {}), (["--foreground"], {}), ([], {"WG_PROCESS_FOREGROUND": "1"})],
)
def test_foreground(
    two_hosts: TwoHosts, script: str, arguments: list[str], environment: dict[str, str]
) -> None:
    a = two_hosts.a
    process = a.popen(
        [script, *arguments, "wg0"], environment={"LOG_LEVEL": "verbose", **environment}
    )
    process.wait_for_output("wg0: ready, UDP port")
    process.signal(signal.SIGTERM)
    assert process.wait(5) == 0
    assert is_gone(a)


def test_log_level_asks_for_output_in_the_background(two_hosts: TwoHosts, script: str) -> None:
    a = two_hosts.a
    log = a.directory / "verbose.log"
    command = f'exec "{script}" wg0 2>"{log}" >&2'
    a.run(["sh", "-c", command], environment={"LOG_LEVEL": "verbose"})
    a.wait_for(lambda: "ready" in log.read_text(), 5, "the log")
    wg(a, "set", "wg0", "peer", "A" * 42 + "E=", "allowed-ips", "10.0.0.0/8")
    a.ip("link delete wg0")
    a.wait_for(lambda: "ended" in log.read_text(), 5, "the end")
    assert "was deleted: leaving" in log.read_text()


def test_kernel_may_pick_the_number(two_hosts: TwoHosts, script: str) -> None:
    start(two_hosts.a, script, "wg%d")
    start(two_hosts.a, script, "wg%d")
    assert sorted(wg(two_hosts.a, "show", "interfaces").split()) == ["wg0", "wg1"]


@pytest.mark.parametrize("background", [True, False])
def test_descriptors_are_taken_over(two_hosts: TwoHosts, script: str, background: bool) -> None:
    a = two_hosts.a
    tun = a.call(lambda: Tun.open("passed0", mtu=1300))
    path = str(a.directory / "passed.sock")
    with tun, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        numbers = (tun.fileno(), listener.fileno())
        command = [*a.enter_command(), script, *([] if background else ["-f"]), "ignored"]
        environment = {**os.environ, "WG_TUN_FD": str(numbers[0]), "WG_UAPI_FD": str(numbers[1])}
        with subprocess.Popen(command, pass_fds=numbers, env=environment) as process:
            if background:
                assert process.wait(10) == 0
            listener.close()
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(10)
                client.connect(path)
                client.sendall(b"get=1\n\n")
                answer = client.recv(65536)
                assert answer.startswith(b"listen_port=")
                assert answer.endswith(b"errno=0\n\n")
            os.unlink(path)
            a.wait_for(lambda: not a.pids(), 5, "the daemon to end with its socket")
