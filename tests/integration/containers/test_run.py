"""`tunnel run`: a command whose only network is the tunnel, as root and as an ordinary user."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.runs import Near, near
from tunnel.lab import crossings
from tunnel.lab.namespace import start_time
from tunnel.lab.peers import PORT
from tunnel.linux.processes import pids_in

pytestmark = [pytest.mark.root]

WEB = 8000
BOTH = pytest.mark.parametrize(
    "caller", ["root", pytest.param("user", marks=pytest.mark.real_root)]
)


@pytest.fixture(scope="module")
def root() -> Iterator[Near]:
    with near(as_user=False) as made:
        yield made


@pytest.fixture(scope="module")
def user() -> Iterator[Near]:
    with near(as_user=True) as made:
        yield made


@pytest.fixture
def run(request: pytest.FixtureRequest, caller: str) -> Near:
    """`tunnel run` as `caller`."""
    found: Near = request.getfixturevalue(caller)
    return found


@contextlib.contextmanager
def services(run: Near) -> Iterator[None]:
    """On host b: a web server, and a name server that knows it as web.corp.example."""
    b = run.hosts.b
    folder = b.directory / "web"
    folder.mkdir()
    (folder / "index.html").write_text("behind the peer\n")
    module = [sys.executable, "-u", "-m"]
    web = b.popen([*module, "http.server", str(WEB), "--bind", "::", "--directory", str(folder)])
    web.wait_for_output("Serving HTTP")
    names = [f"web.corp.example={address}" for address in ("10.77.0.2", "fd77::2")]
    b.popen([*module, "tests.support.name_server", "10.77.0.2", *names]).wait_for_output("ready")
    yield


@pytest.mark.foreign("curl", "dig", "ping", "wireguard-go", "wg")
@pytest.mark.parametrize(
    ("as_user", "foreign"),
    [
        pytest.param(False, None, id="root"),
        pytest.param(True, None, id="user", marks=pytest.mark.real_root),
        pytest.param(True, "wireguard-go", id="user-wireguard-go", marks=pytest.mark.real_root),
    ],
)
def test_hosts_behind_the_peer_are_reached_and_only_encrypted_udp_leaves(
    as_user: bool, foreign: str | None
) -> None:
    dns = ["DNS = 10.77.0.2, corp.example"]
    script = f"""
set -e
for version in 4 6; do
    echo "TCP $version: $(curl -sS -$version http://web.corp.example:{WEB}/)"
    ping -$version -c 1 -w 5 web | grep ' 0% packet loss'
done
echo "UDP: $(dig +short +search web AAAA)"
grep -v '^#' /etc/resolv.conf
"""
    with near(as_user=as_user, foreign=foreign, extra=dns) as run, services(run):
        printed: list[str] = []
        seen = crossings.watch(
            [(run.hosts.a, "eth0")], lambda: printed.append(run.check("sh", "-c", script))
        )
    lines = printed[0].splitlines()
    assert [line for line in lines if "packet loss" not in line] == [
        "TCP 4: behind the peer",
        "TCP 6: behind the peer",
        "UDP: fd77::2",
        "nameserver 10.77.0.2",
        "search corp.example",
    ]
    assert len(lines) == 7
    outside = {
        packet.headers.flow() for packet in seen if not _is_of_the_link(packet.headers.flow())
    }
    assert outside
    assert all(
        flow.startswith("192.0.2.") and " → 192.0.2." in flow and f":{PORT}" in flow
        for flow in outside
    ), outside
    assert not [packet for packet in seen if b"corp" in packet.seen.packet]


def _is_of_the_link(flow: str) -> bool:
    """What a host says by itself on a cable with IPv6: neighbours and groups."""
    return "fe80::" in flow or "ff02::" in flow or flow.startswith("::")


REACH = """
import socket, sys
for kind, address in (
    (socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("192.0.2.1", {port})),
    (socket.AF_INET6, ("::1", {port})), (socket.AF_INET6, ("2001:db8::1", {port})),
    (socket.AF_INET, ("192.0.2.2", {port})), (socket.AF_UNIX, "\\0{name}"),
):
    with socket.socket(kind) as made:
        made.settimeout(5)
        try:
            made.connect(address)
            print("reached", address)
        except OSError as error:
            print(error.strerror)
"""


@BOTH
def test_nothing_of_the_hosts_network_is_reached(run: Near) -> None:
    name = "tunnel-test-abstract"
    a, b = run.hosts.a, run.hosts.b
    with contextlib.ExitStack() as stack:
        everywhere = a.call(
            lambda: socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        )
        stack.enter_context(everywhere)
        port = everywhere.getsockname()[1]
        stack.enter_context(b.call(lambda: socket.create_server(("192.0.2.2", port))))
        abstract = stack.enter_context(a.call(lambda: socket.socket(socket.AF_UNIX)))
        abstract.bind(f"\0{name}")
        abstract.listen()
        command = ["python3", "-c", REACH.format(port=port, name=name)]
        # The question is a good one: outside, all six answer.
        outside = a.run(command).stdout
        assert outside.count("reached") == 6, outside
        inside = run.check(*command)
        assert "reached" not in inside
        assert len(inside.splitlines()) == 6
    seen = run.check("sh", "-c", "ls /sys/class/net; cat /proc/net/dev")
    assert "eth0" not in seen
    assert "wg0" in seen


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -TERM $$"], -15),
        (["no-such-command"], 127),
        (["/no/such/command"], 127),
        (["PLAIN"], 126),
        (["/etc"], 126),
    ],
)
def test_it_ends_as_the_command_did(root: Near, command: list[str], code: int) -> None:
    plain = root.hosts.a.directory / "plain"
    plain.touch(mode=0o644)
    result = root.run(*(str(plain) if word == "PLAIN" else word for word in command))
    assert result.returncode == code, result.stderr
    assert bool(result.stderr) == (code in (126, 127))
    assert root.leftovers() == []


def test_a_script_without_an_interpreter_line_runs_as_from_a_shell(root: Near) -> None:
    script = root.hosts.a.directory / "script"
    script.write_text('echo "ran with $1"\nexit 4\n')
    script.chmod(0o755)
    result = root.run(str(script), "this")
    assert (result.returncode, result.stdout) == (4, "ran with this\n")


STATE = """
import os, resource, sys
print(sorted(os.environ.items()))
print(os.getcwd(), oct(os.umask(0)), os.getuid(), os.getgid(), sys.argv[1:])
print(sorted(os.listdir("/proc/self/fd")))
print(os.read(7, 100), os.getsid(0) == os.getsid(os.getppid()))
print(resource.getrlimit(resource.RLIMIT_NOFILE))
print([line for line in open("/proc/self/status") if line[:3] == "Sig" and line[:4] != "SigQ"])
"""


@BOTH
def test_the_command_finds_all_as_if_run_directly(run: Near) -> None:
    """Environment, folder, umask, user, descriptors, signals, session."""
    program = ["python3", "-c", STATE, "--verbose", "--", "-p", "a b"]

    def printed(words: list[str]) -> str:
        # A folder that is reached, a descriptor that is passed on, a signal that is ignored.
        script = 'cd /usr && umask 027 && trap "" USR1 && exec "$@" 7</etc/hostname'
        shell = run.as_caller(["sh", "-c", script, "sh", *words])
        return run.hosts.a.run(shell, environment={**run.environment, "ODD": "a\nb"}).stdout

    direct = printed(program)
    tunnelled = [sys.executable, "-m", "tunnel", "run", str(run.conf)]
    assert printed([*tunnelled, "--", *program]) == direct
    assert printed([*tunnelled, *program]) == direct


@BOTH
def test_signals_reach_the_command(run: Near) -> None:
    script = (
        'trap "echo bye; exit 9" QUIT; for name in USR1 HUP TERM INT WINCH; do '
        'trap "echo got $name" $name; done; echo ready; while :; do sleep 0.05; done'
    )
    process = run.start("bash", "-c", script)
    process.wait_for_output("ready")
    for name in ("USR1", "HUP", "TERM", "INT", "WINCH"):
        run.hosts.a.run(["kill", f"-{name}", str(process.pid)])
        process.wait_for_output(f"got {name}")
    run.hosts.a.run(["kill", "-QUIT", str(process.pid)])
    assert process.wait(10) == 9
    assert process.log().count("got") == 5
    assert run.leftovers() == []


@BOTH
@pytest.mark.parametrize("victim", ["outside", "inside"])
def test_kill_9_leaves_nothing(run: Near, victim: str) -> None:
    """Neither the command nor what it put into the background, which has left its session."""
    a = run.hosts.a
    process = run.start("sh", "-c", "setsid sleep 1000 & echo parent=$PPID=; exec sleep 1001")
    process.wait_for_output("parent=")
    process.wait_for_output("=\n")
    outside = process.log().split("=")[1]
    # The command becomes another program; the process inside is ours.
    listed = Path(f"/proc/{outside}/task/{outside}/children").read_text().split()
    (keeper,) = [pid for pid in listed if "run" in _words_of(pid)]
    ours = Path(f"/proc/{keeper}/ns/net").stat().st_ino
    a.wait_for(lambda: len(pids_in(ours)) == 3, 5, "the command and its child")
    a.run(["kill", "-9", outside if victim == "outside" else keeper])
    process.wait(10)
    a.wait_for(lambda: not pids_in(ours), 10, "the end of the processes")
    a.wait_for(lambda: not run.leftovers(), 10, "the end of everything")
    if victim == "inside":
        assert process.returncode == 1
        assert "the process that holds the command's network was killed" in process.log()
    assert run.check("echo", "again") == "again\n"


def _words_of(pid: str) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def test_what_the_command_leaves_running_ends_with_it(root: Near) -> None:
    result = root.run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!")
    assert result.returncode == 0
    assert start_time(int(result.stdout)) is None
    assert root.leftovers() == []


def test_the_commands_files_are_not_held_open(root: Near) -> None:
    """A reader sees the end of a pipe when the command closes it, not when it ends."""
    script = "exec <&- >&-; echo still here >&2; exec sleep 1000"
    words = root.words(str(root.conf), "--", "sh", "-c", script)
    with root.popen(words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == b""
        assert process.stderr.readline() == b"still here\n"
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -15


DANGLING = """
mkdir -p "$dir/etc"
cp /etc/nsswitch.conf /etc/ld.so.cache "$dir/etc/"
ln -s /run/nowhere/stub-resolv.conf "$dir/etc/resolv.conf"
mount --bind "$dir/etc" /etc
"""


@pytest.mark.real_root
def test_name_servers_are_shown_where_resolv_conf_leads_nowhere() -> None:
    """As on a host whose systemd-resolved is not running."""
    with near(as_user=True, extra=["DNS = 10.77.0.2"]) as run:
        bare = replace(run, prepare=run.prepare + DANGLING)
        shown = bare.check("sh", "-c", "cat /etc/resolv.conf; grep hosts: /etc/nsswitch.conf")
    assert shown.split() == ["nameserver", "10.77.0.2", "hosts:", "files", "dns"]


def test_name_servers_that_are_not_reached_are_named(root: Near) -> None:
    resolv = root.hosts.a.etc / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.53\n")
    unreached = root.run("true")
    resolv.write_text("nameserver 127.0.0.53\nnameserver 10.77.0.2\n")
    reached = root.run("true")
    resolv.write_text("")
    assert "name servers of this host (127.0.0.53)" in unreached.stderr
    assert reached.stderr == ""


def test_an_interface_that_is_deleted_inside_is_said(root: Near) -> None:
    script = "ip link delete wg0; ping -c 1 10.77.0.2; exec sleep 1000"
    process = root.start("sh", "-c", script)
    process.wait_for_output("Network is unreachable")
    process.wait_for_output("wg0 was deleted from inside: the command has no network any more")
    assert process.stop() == -15
    assert root.leftovers() == []


@pytest.mark.real_root
def test_a_closed_tun_is_named_with_the_remedy(user: Near) -> None:
    prepare = user.prepare.replace("chmod 666", "chmod 600")
    result = replace(user, prepare=prepare).run("true")
    assert result.returncode == 1
    assert "/dev/net/tun cannot be opened by this user: chmod 666 /dev/net/tun" in result.stderr
    assert user.leftovers() == []


def test_forbidden_user_namespaces_are_named_with_the_sysctl(root: Near) -> None:
    """The root of a user namespace that allows no more of them, and has given its rights away."""
    words = root.words(str(root.conf), "--", "true")
    script = (
        "echo 0 >/proc/sys/user/max_user_namespaces && "
        'exec setpriv --bounding-set=-all --inh-caps=-all "$@"'
    )
    inner = ["unshare", "--user", "--map-root-user", "sh", "-c", script, "sh", *words]
    result = root.hosts.a.run(inner, check=False)
    assert result.returncode == 1, result.stderr
    assert "sudo sysctl -w user.max_user_namespaces=15000" in result.stderr
    assert "Traceback" not in result.stderr


def test_captures_traces_and_events_follow_it(root: Near) -> None:
    process = root.start("sh", "-c", "echo ready; exec sleep 1000")
    process.wait_for_output("ready")
    tunnel, a = [sys.executable, "-m", "tunnel"], root.hosts.a
    ping = ["ping", "-n", "-c", "1", "-W", "5", "10.77.0.2"]
    said = a.run([*tunnel, "trace", "wg0", "icmp", "--count", "2", "--", *ping]).stdout
    assert "routed to wg0" in said
    assert "leaves by eth0" in said
    file = a.directory / "run.pcapng"
    capture = a.popen([*tunnel, "capture", "wg0", "-w", str(file), "--count", "4"])
    capture.wait_for_output("capturing wg0")
    events = a.popen([*tunnel, "events", "wg0"])
    events.wait_for_output("following the events")
    a.run([*tunnel, "run", "--join", "wg0", "--", *ping])
    assert capture.wait(10) == 0, capture.log()
    refused = a.run([*tunnel, "reload", "wg0"], check=False).stderr
    assert "takes no changes" in refused
    assert process.stop() == -15
    events.wait(10)


def test_a_conf_in_use_and_a_taken_port_are_named(root: Near) -> None:
    first = root.start("sh", "-c", "echo ready; exec sleep 1000")
    first.wait_for_output("ready")
    second = root.run("true")
    assert second.returncode == 1
    assert "a tunnel named wg0 is already running" in second.stderr
    other = root.conf.with_name("wg9.conf")
    other.write_text(root.conf.read_text())
    other.chmod(0o600)
    taken = replace(root, conf=other).run("true")
    assert taken.returncode == 1
    assert str(PORT) in taken.stderr
    assert f"{other}:" in taken.stderr, "the line of ListenPort"
    assert first.stop() == -15
    assert root.leftovers() == []


def test_what_is_for_a_whole_host_is_left_out_and_said_once(root: Near) -> None:
    mark = root.hosts.a.directory / "ran"
    other = root.conf.with_name("wg8.conf")
    extra = f"[Interface]\nPostUp = touch {mark}\nTable = 1234\nSaveConfig = true"
    other.write_text(root.conf.read_text().replace("[Interface]", extra))
    other.chmod(0o600)
    result = replace(root, conf=other).run("ip", "route", "show")
    assert "10.77.0.0/24 dev wg8" in result.stdout
    said = "tunnel run leaves out of the conf: PostUp, SaveConfig, Table"
    assert result.stderr.count(said) == 1
    assert not mark.exists()


def test_wrong_command_lines_touch_nothing(root: Near) -> None:
    run = root.hosts.a.run
    missing = run(root.words("/nonexistent.conf", "--", "true"), check=False)
    assert missing.returncode == 2
    assert "there is no /nonexistent.conf" in missing.stderr
    which = run(root.words(str(root.conf)), check=False)
    assert which.returncode == 2
    assert "which command? For a shell: tunnel run" in which.stderr
