"""Up and down, and everything that can come in between."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.daemons import kill, remains, status
from tests.support.failing_up import STEPS
from tests.support.hosts import TwoHosts
from tests.support.pairs import Pair
from tunnel.lab import LabError
from tunnel.lab.peers import Node, OurEnd, render_conf
from tunnel.linux.files import RUN_FOLDER

pytestmark = pytest.mark.root

FULL = ("0.0.0.0/0", "::/0")


def make_end(two: TwoHosts, *lines: str, routes: tuple[str, ...] = ()) -> OurEnd:
    """An end on host a, with more lines of [Interface]; b is a peer that does not answer."""
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), "192.0.2.1")
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=routes)
    return OurEnd(a, render_conf(a, [b], extra=lines))


@pytest.mark.parametrize("how", ["fail", "stop"])
def test_each_step_may_fail_and_nothing_stays(two_hosts: TwoHosts, how: str) -> None:
    end = make_end(two_hosts, "PreUp = true", "PostUp = true", "DNS = 10.77.0.2", routes=FULL)
    for step in STEPS:
        run = two_hosts.a.run(
            [sys.executable, "-m", "tests.support.failing_up", str(end.conf), step, how],
            check=False,
        )
        printed = run.stdout + run.stderr
        assert "Traceback" not in printed, step
        # One who is told to stop while the last hook runs has come up, and goes down again.
        if not (how == "stop" and step == "PostUp"):
            assert run.returncode == 3, (step, printed)
            assert "ready" not in printed, step
        assert remains(two_hosts.a) == [], step


def test_hooks_run_in_wg_quicks_order(two_hosts: TwoHosts) -> None:
    trace = two_hosts.a.directory / "trace"
    # The number of interfaces and of addresses that the hook finds.
    links = "$(ip -o link show dev %i 2>/dev/null | wc -l)"
    addresses = "$(ip -o -4 address show dev %i 2>/dev/null | wc -l)"
    kinds = ("PreUp", "PostUp", "PreDown", "PostDown")
    hooks = [f"{kind} = echo {kind} {links} {addresses} >> {trace}" for kind in kinds]
    end = make_end(two_hosts, *hooks)
    end.up()
    end.down()
    assert trace.read_text().splitlines() == [
        "PreUp 1 0",
        "PostUp 1 1",
        "PreDown 1 1",
        "PostDown 0 0",
    ]


@pytest.mark.parametrize("level", ["info", "error"])
def test_log_level_bounds_what_the_log_holds(two_hosts: TwoHosts, level: str) -> None:
    end = make_end(two_hosts, f"#! tunnel: LogLevel = {level}", "PreDown = false")
    end.up()
    end.tunnel("down", "wg0", check=False)
    log = two_hosts.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert ("wg0 is up" in log) is (level == "info")
    assert "PreDown number 1: exit status 1" in log


def test_failing_hook_on_the_way_up_undoes_everything(two_hosts: TwoHosts) -> None:
    key = base64.b64encode(bytes([64] * 32)).decode()
    end = make_end(two_hosts, f"PostUp = echo -e 'sorry\\a\\n{key}'; false")
    with pytest.raises(
        LabError, match=r"status 1: tunnel: run PostUp number 1: exit status 1"
    ) as caught:
        end.up()
    assert "it printed last:\n  sorry\\x07\n  (hidden)" in str(caught.value)
    assert remains(two_hosts.a) == []


def test_failing_hook_on_the_way_down_stops_nothing(two_hosts: TwoHosts) -> None:
    trace = two_hosts.a.directory / "trace"
    end = make_end(
        two_hosts,
        "PreDown = echo bye; false",
        f"PreDown = echo second >> {trace}",
        "PostDown = no-such-program",
    )
    end.up()
    with pytest.raises(LabError) as caught:
        end.down()
    said = str(caught.value)
    assert "status 1: tunnel: run PreDown number 1: exit status 1" in said
    assert "it printed last:\n  bye" in said
    assert "tunnel: run PostDown number 1: exit status 127" in said
    assert remains(two_hosts.a) == []
    assert trace.read_text() == "second\n"


def test_saveconfig_that_fails_is_reported_and_a_copy_is_kept(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end = make_end(two_hosts, "SaveConfig = true")
    end.up()
    a.ip("address add 10.88.0.1/24 dev wg0")
    broken = end.conf.read_text() + "Adress = 10.0.0.1/24\n"
    end.conf.write_text(broken)
    with pytest.raises(LabError) as caught:
        end.down()
    assert "status 1: tunnel: SaveConfig: " in str(caught.value)
    assert "what was running is in /run/tunnel/wg0.unsaved.conf" in str(caught.value)
    copy = a.run(["cat", "/run/tunnel/wg0.unsaved.conf"]).stdout
    assert "10.88.0.1/24" in copy
    assert "PrivateKey" in copy
    assert a.run(["stat", "-c", "%a", "/run/tunnel/wg0.unsaved.conf"]).stdout == "600\n"
    assert end.conf.read_text() == broken
    assert remains(a) == ["wg0.unsaved.conf"]


def wait_until_it_runs(two: TwoHosts, mark: Path) -> None:
    two.a.wait_for(mark.exists, 30, "the hook to start")


def hanging(mark: Path) -> str:
    """A hook that hangs, with a process of its own that would outlive it."""
    return f"touch {mark}; sleep 300 & sleep 300"


def test_hook_that_hangs_on_the_way_up_is_ended_by_down(two_hosts: TwoHosts) -> None:
    mark = two_hosts.a.directory / "mark"
    end = make_end(two_hosts, f"PostUp = {hanging(mark)}")
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)])
    wait_until_it_runs(two_hosts, mark)
    end.down()
    assert up.wait(30) == 1
    assert "PostUp number 1: ended, as the tunnel was asked to stop" in up.log()
    assert remains(two_hosts.a) == []


@pytest.mark.parametrize("kind", ["PreDown", "PostDown"])
def test_hook_that_hangs_on_the_way_down_has_a_time_limit(two_hosts: TwoHosts, kind: str) -> None:
    mark = two_hosts.a.directory / "mark"
    end = make_end(two_hosts, "#! tunnel: HookTimeout = 1", f"{kind} = {hanging(mark)}")
    end.up()
    with pytest.raises(LabError, match=rf"{kind} number 1: ended, as it ran for more than 1 s"):
        end.down()
    assert remains(two_hosts.a) == []


def test_hook_that_hangs_on_the_way_down_is_ended_by_another_down(two_hosts: TwoHosts) -> None:
    mark = two_hosts.a.directory / "mark"
    end = make_end(two_hosts, f"PreDown = {hanging(mark)}")
    end.up()
    first = two_hosts.a.popen([sys.executable, "-m", "tunnel", "down", str(end.conf)])
    wait_until_it_runs(two_hosts, mark)
    end.tunnel("down", "wg0", check=False)
    assert first.wait(30) == 1
    assert "PreDown number 1: ended, as the tunnel was asked to stop" in first.log()
    assert remains(two_hosts.a) == []


@pytest.mark.parametrize("way", ["down", "up"])
def test_down_hooks_of_a_killed_daemon_run_once(two_hosts: TwoHosts, way: str) -> None:
    a = two_hosts.a
    trace = a.directory / "trace"
    hooks = [f"{kind} = echo {kind} %i >> {trace}" for kind in ("PreDown", "PostDown")]
    end = make_end(two_hosts, *hooks, routes=FULL)
    end.up()
    kill(end)
    a.wait_for(lambda: not a.pids(), 5, "it to die")
    if way == "down":
        # By the record alone: nothing of the conf is there any more.
        end.conf.unlink()
        end.down()
        assert remains(a) == []
    else:
        end.up()
    assert trace.read_text().splitlines() == ["PreDown wg0", "PostDown wg0"]
    if way == "up":
        end.down()
        assert trace.read_text().splitlines() == ["PreDown wg0", "PostDown wg0"] * 2
        assert remains(a) == []
    with pytest.raises(LabError, match="nothing is left of one"):
        end.down()


def test_down_hook_that_was_begun_is_begun_once_more_after_a_crash(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    trace = a.directory / "trace"
    kill = f"echo first >> {trace}; kill -9 $PPID"
    end = make_end(two_hosts, f"PostDown = {kill}", f"PostDown = echo second >> {trace}")
    end.up()
    end.tunnel("down", "wg0", check=False)
    a.wait_for(lambda: not a.pids(), 5, "it to die")
    # The hook kills this one, too; there is no third time.
    end.tunnel("down", "wg0", check=False)
    end.tunnel("down", "wg0", check=False)
    assert trace.read_text().split() == ["first", "first", "second"]
    assert remains(a) == []


@pytest.mark.parametrize("kind", ["PreUp", "PostUp"])
def test_a_hook_that_outlives_its_daemon_is_waited_for(two_hosts: TwoHosts, kind: str) -> None:
    a = two_hosts.a
    began, may_end = a.directory / "began", a.directory / "may-end"
    late = f"echo $$ > {began}; until test -e {may_end}; do sleep 0.05; done"
    end = make_end(
        two_hosts,
        f"{kind} = {late}; ip link add hooked type bridge",
        "PostDown = ip link delete hooked",
    )
    up = a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)])
    a.wait_for(lambda: began.exists() and began.read_text(), 30, "the hook to start")
    hook = int(began.read_text())
    for pid in a.pids():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) != hook:
                os.kill(pid, signal.SIGKILL)
    up.wait(10)
    down = a.popen([sys.executable, "-m", "tunnel", "down", str(end.conf)])
    lock = RUN_FOLDER / "wg0.hook"
    a.wait_for(lambda: not down.running or lock in opened_by(down.pid), 30, "it to look for a hook")
    may_end.touch()
    assert down.wait(30) == 0, down.log()
    a.wait_for(lambda: not Path(f"/proc/{hook}").exists(), 10, "the hook to end")
    assert "hooked" not in a.run(["ip", "-br", "link"]).stdout
    assert remains(a) == []


def opened_by(pid: int) -> list[Path]:
    """The files that a process has open."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(descriptor.readlink())
    return found


def test_a_down_hook_with_nothing_to_undo_is_a_warning_after_a_kill(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    mark = a.directory / "mark"
    end = make_end(two_hosts, f"PostUp = {hanging(mark)}", "PostDown = ip link delete hooked")
    up = a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)])
    wait_until_it_runs(two_hosts, mark)
    for pid in a.pids():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    up.wait(10)
    down = a.run([sys.executable, "-m", "tunnel", "down", str(end.conf)])
    assert "warning: run PostDown number 1: exit status 1; it may have had nothing" in down.stderr
    assert remains(a) == []


def test_down_while_it_comes_up(two_hosts: TwoHosts) -> None:
    started, told = two_hosts.a.directory / "started", two_hosts.a.directory / "told"
    waiting = f"for n in $(seq 600); do test -e {told} && break; sleep 0.1; done"
    end = make_end(two_hosts, f"PreUp = touch {started}; {waiting}")
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)])
    two_hosts.a.wait_for(started.exists, 30, "the hook to start")
    down = two_hosts.a.popen([sys.executable, "-m", "tunnel", "down", str(end.conf)])
    two_hosts.a.wait_for(
        lambda: "is going down" in end.tunnel("show", "wg0", check=False), 30, "it to be told"
    )
    told.touch()
    assert down.wait(30) == 0
    assert up.wait(30) == 1
    assert remains(two_hosts.a) == []
    assert "was stopped while starting" in up.log()


def test_of_two_ups_at_once_one_is_refused(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts)
    command = [sys.executable, "-m", "tunnel", "up", str(end.conf)]
    ups = [two_hosts.a.popen(command) for _ in range(2)]
    assert sorted(up.wait(30) for up in ups) == [0, 1]
    assert any("wg0 is already running" in up.log() for up in ups)
    end.down()
    assert remains(two_hosts.a) == []


def test_foreground_stops_on_sigterm_with_status_0(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts)
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", "-f", str(end.conf)])
    up.wait_for_output("wg0 is up")
    two_hosts.a.run(["kill", "-TERM", str(status(end)["pid"])])
    assert up.wait(10) == 0
    assert remains(two_hosts.a) == []


def test_deleted_interface_ends_the_daemon_and_runs_the_down_hooks(two_hosts: TwoHosts) -> None:
    trace = two_hosts.a.directory / "trace"
    end = make_end(two_hosts, f"PostDown = echo gone >> {trace}", routes=FULL)
    end.up()
    two_hosts.a.ip("link delete wg0")
    two_hosts.a.wait_for(lambda: not two_hosts.a.pids(), 10, "the daemon to leave")
    assert remains(two_hosts.a) == []
    assert trace.read_text() == "gone\n"


def test_removed_socket_of_wg_ends_the_daemon_in_order(two_hosts: TwoHosts) -> None:
    trace = two_hosts.a.directory / "trace"
    hooks = [f"{kind} = echo {kind} >> {trace}" for kind in ("PreDown", "PostDown")]
    end = make_end(two_hosts, *hooks, routes=FULL)
    end.up()
    two_hosts.a.run(["rm", "/run/wireguard/wg0.sock"])
    two_hosts.a.wait_for(lambda: not two_hosts.a.pids(), 10, "the daemon to leave")
    assert remains(two_hosts.a) == []
    assert trace.read_text().split() == ["PreDown", "PostDown"]


def test_kill_and_down_of_a_full_tunnel(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts, routes=FULL)
    end.up()
    kill(end)
    two_hosts.a.wait_for(lambda: not two_hosts.a.pids(), 5, "it to die")
    assert any("fwmark" in line or "table" in line for line in remains(two_hosts.a))
    with pytest.raises(LabError, match=r"status 1: .*was killed .*tunnel down wg0 removes them"):
        end.tunnel("show", "wg0")
    assert "tunnel down wg0 removes them" in end.tunnel("show", check=False)
    end.down()
    assert remains(two_hosts.a) == []


def test_too_few_descriptors_are_told_and_nothing_stays(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts)
    for limit in (*range(9, 34, 4), 63):
        run = two_hosts.a.run(
            ["prlimit", f"--nofile={limit}", sys.executable, "-m", "tunnel", "up", str(end.conf)],
            check=False,
        )
        assert run.returncode == 1, run.stderr
        assert remains(two_hosts.a) == [], limit
    assert "may open 63 files, and a tunnel needs 64; raise the limit (ulimit -n" in run.stderr
    two_hosts.a.run(["prlimit", "--nofile=64", sys.executable, "-m", "tunnel", "up", str(end.conf)])
    end.down()


@pytest.mark.parametrize("warned", [False, True])
def test_full_run_folder_is_told_and_nothing_stays(two_hosts: TwoHosts, warned: bool) -> None:
    a = two_hosts.a
    end = make_end(two_hosts)
    # A secret that others may read is a warning: a line of the log, for which there is no room.
    end.conf.chmod(0o644 if warned else 0o600)
    a.run(["mkdir", "-p", "/run/tunnel"])
    a.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", "/run/tunnel"])
    a.run(["sh", "-c", "cat /dev/zero > /run/tunnel/filling.log"], check=False)
    with pytest.raises(LabError, match=r"(?s)status 1: .*No space left on device.*make room"):
        end.up()
    a.run(["rm", "/run/tunnel/filling.log"])
    assert remains(a) == []
    end.up()
    end.down()


def test_log_is_bounded(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts, "PostUp = seq -f 'one of very many lines, number %.0f' 40000")
    end.up()
    sizes = two_hosts.a.run(["sh", "-c", "stat -c %s /run/tunnel/wg0.log*"]).stdout.split()
    assert len(sizes) == 2
    assert all(int(size) <= 1 << 20 for size in sizes)
    end.down()


def test_it_leaves_the_folder_it_was_started_in(pair: Pair) -> None:
    assert status(pair.a)["conf"] == str(pair.a.conf)
    assert re.match("/$", os.readlink(f"/proc/{status(pair.a)['pid']}/cwd"))


@pytest.mark.parametrize("table", ["off", "1234"])
def test_table_is_wg_quicks(two_hosts: TwoHosts, table: str) -> None:
    a = two_hosts.a
    rules = a.run(["ip", "rule"]).stdout
    end = make_end(two_hosts, f"Table = {table}", routes=("10.88.0.0/16", *FULL))
    end.up()
    routes = a.run(["ip", "route", "show", "table", "all", "dev", "wg0"]).stdout
    if table == "off":
        assert "10.88.0.0/16" not in routes
        assert "default" not in routes
    else:
        for destination in ("10.88.0.0/16", "default"):
            assert re.search(rf"^{destination} table 1234 ", routes, re.MULTILINE)
    # No mark, no rules, no firewall: that is for the default route of Table = auto.
    assert a.run(["ip", "rule"]).stdout == rules
    assert a.run(["nft", "list", "tables"]).stdout == ""
    end.down()
    assert remains(a) == []


@pytest.mark.parametrize(
    ("link", "words"),
    [
        ("link add wg0 type veth peer name other", "of another kind (veth): give this conf"),
        ("link add wg0 type bridge", "of another kind (bridge): give this conf another name"),
        ("tuntap add wg0 mode tun", "a TUN or TAP device of another program: end that, or"),
    ],
)
def test_interface_of_that_name_is_never_to_be_deleted(
    two_hosts: TwoHosts, link: str, words: str
) -> None:
    end = make_end(two_hosts)
    two_hosts.a.ip(link)
    with pytest.raises(LabError) as caught:
        end.up()
    assert words in str(caught.value)
    assert "delete" not in str(caught.value)


def test_same_name_in_another_namespace_has_a_way_out(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end = make_end(two_hosts)
    end.up()
    a.run(["ip", "netns", "add", "inner"])
    try:
        inside = ["ip", "netns", "exec", "inner"]
        command = [sys.executable, "-m", "tunnel"]
        refused = a.run([*inside, *command, "up", str(end.conf)], check=False)
        assert refused.returncode == 1
        assert "already running, in another network namespace" in refused.stderr
        program = " ".join(command)
        both = f"mount -t tmpfs tmpfs /run && {program} up {end.conf} && {program} down wg0"
        a.run([*inside, "unshare", "--mount", "sh", "-c", both])
    finally:
        a.run(["ip", "netns", "del", "inner"])
    assert status(end)["pid"] in a.pids()
    end.down()
    assert remains(a) == []


def test_second_up_writes_nothing_into_the_log_of_the_first(two_hosts: TwoHosts) -> None:
    end = make_end(two_hosts)
    end.up()
    before = two_hosts.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    end.conf.chmod(0o644)  # a warning, too
    with pytest.raises(LabError, match="wg0 is already running"):
        end.up()
    assert two_hosts.a.run(["cat", "/run/tunnel/wg0.log"]).stdout == before
    end.down()


def test_failed_up_leaves_no_log_and_one_of_before_stays(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end = make_end(two_hosts, "PostUp = false")
    for _ in range(2):
        with pytest.raises(LabError, match="PostUp number 1"):
            end.up()
        assert a.run(["ls", "/run/tunnel"]).stdout == ""
    a.run(["sh", "-c", "echo before > /run/tunnel/wg0.log"])
    with pytest.raises(LabError, match="PostUp number 1"):
        end.up()
    log = a.run(["cat", "/run/tunnel/wg0.log"]).stdout
    assert log.startswith("before\n")
    assert "PostUp number 1: exit status 1" in log


def test_interrupted_up_takes_its_daemon_along(two_hosts: TwoHosts) -> None:
    mark = two_hosts.a.directory / "mark"
    end = make_end(two_hosts, f"PreUp = {hanging(mark)}")
    up = two_hosts.a.popen([sys.executable, "-m", "tunnel", "up", str(end.conf)])
    wait_until_it_runs(two_hosts, mark)
    up.signal(signal.SIGINT)
    assert up.wait(30) == 1
    assert "stopping; undoing what was set up so far" in up.log()
    assert remains(two_hosts.a) == []


@pytest.mark.parametrize("name", ["wg0.log", "wg0.lock", "wg0.state"])
@pytest.mark.parametrize("make", ["mkfifo", "mkdir"])
def test_name_of_ours_that_is_taken_by_no_plain_file(
    two_hosts: TwoHosts, name: str, make: str
) -> None:
    a = two_hosts.a
    end = make_end(two_hosts)
    a.run(["mkdir", "-p", "/run/tunnel"])
    a.run([make, f"/run/tunnel/{name}"])
    with pytest.raises(LabError, match=rf"status 1: tunnel: .*{name}.*move away"):
        end.up()
    a.run(["rm", "-r", f"/run/tunnel/{name}"])
    assert remains(a) == []


@pytest.mark.parametrize("number", ["USR1", "USR2", "QUIT", "ABRT", "XCPU", "ALRM"])
def test_signal_that_ends_a_process_leaves_nothing_behind(two_hosts: TwoHosts, number: str) -> None:
    end = make_end(two_hosts, routes=FULL)
    end.up()
    two_hosts.a.run(["kill", f"-{number}", str(status(end)["pid"])])
    two_hosts.a.wait_for(lambda: not two_hosts.a.pids(), 30, "the daemon to end")
    assert remains(two_hosts.a) == []


def test_orphans_of_hooks_are_waited_for_by_the_first_process(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    # A grandchild that outlives the hook, and ends then.
    end = make_end(two_hosts, "PostUp = (sleep 0.1 &) ; true")
    command = f"exec {sys.executable} -m tunnel up -f {end.conf}"
    unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", command]
    up = a.popen(unshare)
    up.wait_for_output("wg0 is up", 30)

    def no_zombie() -> bool:
        states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for pid in a.pids()]
        return not any(state.split()[0] == "Z" for state in states)

    a.wait_for(no_zombie, 10, "the orphan to be gone")
    end.down()
    assert up.wait(10) == 0
    assert remains(a) == []


def test_device_that_may_not_be_opened_has_the_right_remedy(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end = make_end(two_hosts)
    conf, device = Path("/run/wg0.conf"), a.directory / "tun"
    a.run(["sh", "-c", f"cat {end.conf} >{conf} && chmod 644 {conf}"])
    a.run(["mknod", "-m", "600", str(device), "c", "10", "200"])
    a.run(["chown", "1234", str(device)])
    a.run(["mount", "--bind", str(device), "/dev/net/tun"])
    # Root, but bound by modes: another user may not be able to read what is tested.
    bound = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = a.run([*bound, sys.executable, "-m", "tunnel", "up", str(conf)], check=False)
    assert done.returncode == 1
    assert "/dev/net/tun cannot be opened by this user: chmod 666" in done.stderr


def test_stopped_daemon_hides_no_other_and_its_way_out_is_right(two_hosts: TwoHosts) -> None:
    a = two_hosts.a
    end = make_end(two_hosts)
    node = Node(a, ("10.78.0.1/24",), "192.0.2.1", interface="wg1", port=51821)
    other = OurEnd(node, render_conf(node, []))
    end.up()
    other.up()
    pid = status(end)["pid"]
    a.run(["kill", "-STOP", str(pid)])
    said = end.tunnel("show", check=False)
    assert "interface: wg1" in said
    remedy = f"the daemon of wg0 is stopped (process {pid}): kill -CONT {pid} lets it go on"
    assert remedy in said
    for command in ("reload", "down"):
        with pytest.raises(LabError, match=re.escape(f"status 1: tunnel: {remedy}")):
            end.tunnel(command, "wg0")
    a.run(["kill", "-CONT", str(pid)])
    end.down()
    other.down()
    assert remains(a) == []
