"""Hooks: the shell, %i, the output, failures, and who may have written them."""

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tunnel.config import ConfigErrors, load
from tunnel.daemon.reload import check_hooks
from tunnel.host import hook_watch, hooks
from tunnel.host.errors import HostError
from tunnel.host.hook_watch import HookLimits, HookStopper
from tunnel.host.hooks import check_save_target, run_hooks
from tunnel.lab.process import wait_for


def run(*commands: str) -> list[str]:
    lines: list[str] = []
    run_hooks("PostUp", commands, "tun0", lines.append)
    return lines


def test_output_and_interface_name() -> None:
    assert run("echo %i; echo oops >&2; printf tail-%i", "true") == [
        "PostUp: echo tun0; echo oops >&2; printf tail-tun0",
        "tun0",
        "oops",
        "tail-tun0",
        "PostUp: true",
    ]


def test_bytes_that_are_no_text() -> None:
    assert run(r"printf 'a\377b\n'")[1] == "a�b"


def test_failure_names_the_hook_and_stops(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"^run PostUp number 2: exit status 3 \(") as caught:
        run("true", "exit 3 # secret", f"touch {tmp_path}/never")
    assert "secret" not in str(caught.value)  # told where every user reads it
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HostError, match="killed by signal 9"):
        run("kill -9 $$")


FAILING = (
    "no-such-program -A FORWARD; touch {}",
    "false; touch {}",
    "x=$(false); touch {}",
    "true && (false; touch {})",
)
# Not every sh knows pipefail.
FAILING_IN_BASH = (*FAILING, "cat /nonexistent | wc -l")


@pytest.mark.parametrize(
    ("shell", "command"),
    [
        *(("bash", command) for command in FAILING_IN_BASH),
        *(("sh", command) for command in FAILING),
    ],
)
def test_hook_ends_at_the_first_command_that_fails(
    shell: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shell == "sh":
        monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(HostError, match="exit status"):
        run(command.format(tmp_path / "never"))
    assert list(tmp_path.iterdir()) == []


def test_what_may_fail_in_wg_quicks_shell_may_fail_here() -> None:
    assert run("false || true; if false; then :; fi; ! true; echo on")[1:] == ["on"]
    # What wg-quick sets besides: extglob and the locale C, also where another one is set.
    assert run("case wg12 in wg+([0-9])) echo $LC_ALL;; esac")[1:] == ["C"]


def notes_of(command: str, hide: Callable[[str], str] = str) -> list[str]:
    """What the error of a hook that fails says beside its text."""
    with pytest.raises(HostError) as caught:
        run_hooks("PostUp", ["echo before", command], "tun0", lambda line: None, hide=hide)
    return getattr(caught.value, "__notes__", [])


def test_failure_comes_with_the_last_lines_that_the_hook_printed() -> None:
    assert notes_of("echo first; seq 100; echo; echo oops >&2; false") == [
        "it printed last:\n  97\n  98\n  99\n  100\n  oops"
    ]
    assert notes_of("printf 'no end of line'; false") == ["it printed last:\n  no end of line"]
    assert notes_of("false") == []


def test_last_lines_are_bounded_and_hidden_as_in_the_log() -> None:
    (note,) = notes_of("head -c 300000 /dev/zero | tr '\\0' x; echo; echo key; false")
    assert note.endswith("x…\n  key")
    assert len(note) < 3000
    assert notes_of("echo key; false", lambda line: line.replace("key", "(hidden)")) == [
        "it printed last:\n  (hidden)"
    ]


def ended(command: str, limits: HookLimits) -> str:
    with pytest.raises(HostError) as caught:
        run_hooks("PostUp", [command], "tun0", lambda line: None, limits=limits)
    return str(caught.value)


def test_hook_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    hang = f"sleep 300 & echo $! > {pids}; sleep 300"
    assert "ran for more than 0.5 s" in ended(hang, HookLimits(0.5))
    wait_for(lambda: not is_running(int(pids.read_text())), 10, "its background process to end")


def test_hook_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hook_watch, "ENDING", 0.2)
    assert "ran for more than 0.5 s" in ended("trap '' TERM; sleep 300", HookLimits(0.5))


@pytest.mark.parametrize("times", [1, 2])
def test_hook_is_ended_when_the_tunnel_is_asked_to_stop(
    times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first call leaves it some time, the second none.
    monkeypatch.setattr(hook_watch, "GRACE", 0.2 if times == 1 else 300.0)
    limits = HookLimits(stopper=HookStopper())
    lines: list[str] = []

    def stop_when_it_runs(line: str) -> None:
        lines.append(line)
        if line == "runs":
            for _ in range(times):
                limits.stopper.stop()

    limits.stopper.stop()  # before there is a hook: of no meaning for the next one
    with pytest.raises(HostError, match="ended, as the tunnel was asked to stop"):
        run_hooks("PostUp", ["echo runs; sleep 300"], "tun0", stop_when_it_runs, limits=limits)


def test_hook_that_ends_by_itself_in_time_has_not_failed() -> None:
    limits = HookLimits(30, HookStopper())
    lines: list[str] = []

    def stop_when_it_runs(line: str) -> None:
        lines.append(line)
        if line == "runs":
            limits.stopper.stop()

    run_hooks("PostUp", ["echo runs; sleep 0.1; echo done"], "t", stop_when_it_runs, limits=limits)
    assert lines[1:] == ["runs", "done"]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_lot_of_output() -> None:
    assert len(run("seq 200000")) == 200_001


def test_background_process_does_not_hold_us_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    assert run(f"sleep 30 & echo $! > {pid_file}; echo done")[1:] == ["done"]
    # It fails if the process has ended: then we waited for it.
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def test_closed_output_is_waited_for() -> None:
    with pytest.raises(HostError, match="exit status 4"):
        run("exec >&- 2>&-; sleep 0.1; exit 4")


def test_what_stays_in_the_background_prints_on(tmp_path: Path) -> None:
    done = tmp_path / "done"
    loop = f"for n in 1 2 3; do sleep 0.1; echo line $n || exit; done; echo all >{done}"
    lines: list[str] = []
    run_hooks("PostUp", [f"{{ {loop}; }} &"], "tun0", lines.append)
    wait_for(done.exists, 30, "the background process to end by itself")
    wait_for(lambda: lines[1:] == ["line 1", "line 2", "line 3"], 30, "its lines in the log")


def test_what_stays_in_the_background_outlives_us(tmp_path: Path) -> None:
    done = tmp_path / "done"
    late = "while kill -0 $PPID; do sleep 0.05; done; echo out && echo err >&2"
    program = "import sys; from tunnel.host.hooks import check_save_target, run_hooks; "
    program += "run_hooks('PostDown', sys.argv[1:], 'tun0', lambda line: None)"
    hook = f"{{ {late} && echo all >{done}; }} &"
    subprocess.run([sys.executable, "-c", program, hook], check=True, timeout=60)
    wait_for(done.exists, 30, "the background process to print when we are gone")


def test_flood_from_the_background_is_held_back(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    count = 0

    def log(_line: str) -> None:
        nonlocal count
        count += 1

    run_hooks("PostUp", [f"timeout 20 yes & echo $! > {pid_file}"], "tun0", log)
    try:
        returned = time.monotonic()
        before = count
        goal = 2 * hooks.BACKGROUND_RATE / len("y\n")
        wait_for(lambda: count - before > goal, 60, "the flood to be read on")
        most = (time.monotonic() - returned + 1) * hooks.BACKGROUND_RATE
        assert count - before < most / len("y\n")
    finally:
        os.kill(int(pid_file.read_text()), signal.SIGTERM)


def test_output_without_an_end_of_line_is_bounded() -> None:
    lines = run("head -c 300000 /dev/zero | tr '\\0' x; echo; echo end")[1:]
    assert lines[-1] == "end"
    assert sum(map(len, lines[:-1])) == 300_000
    assert max(map(len, lines)) <= 2 * 65536


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """A conf with a hook, in a folder of its own that others can only look into."""
    folder = tmp_path / "confs"
    folder.mkdir()
    folder.chmod(0o755)
    return write_conf(folder / "tun0.conf", "true")


def write_conf(path: Path, hook: str) -> Path:
    key = base64.b64encode(bytes(range(8, 40))).decode()
    path.write_text(f"[Interface]\nPrivateKey = {key}\nPostUp = {hook}\n")
    path.chmod(0o600)
    return path


def check(path: Path) -> None:
    """Read it, and say whether its hooks may run."""
    check_hooks(load(path))


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "accepted"),
    [
        (0o600, 0o700, True),
        (0o644, 0o755, True),
        (0o620, 0o755, False),
        (0o646, 0o755, False),
        (0o600, 0o775, False),
        (0o600, 0o777, False),
        (0o600, 0o1777, True),
    ],
)
def test_only_confs_that_others_cannot_write(
    conf: Path, file_mode: int, folder_mode: int, accepted: bool
) -> None:
    conf.chmod(file_mode)
    conf.parent.chmod(folder_mode)
    if accepted:
        check(conf)
        return
    with pytest.raises(HostError, match="other users can write") as caught:
        check(conf)
    if folder_mode in (0o775, 0o777):
        assert caught.value.remedy == (
            f"install -D -b -m 600 {conf} /etc/tunnel/tun0.conf, then use tunnel up tun0"
        )
    else:
        assert caught.value.remedy == f"chmod go-w {conf}; chown root {conf}"


def test_the_file_that_was_read_counts(conf: Path) -> None:
    """Not the one that has its name by the time the hooks are to run."""
    theirs = write_conf(conf.parent / "theirs", "echo evil")
    theirs.chmod(0o666)
    link = conf.parent / "tun1.conf"
    link.symlink_to(theirs)
    read = load(link)
    assert read.interface.post_up == ("echo evil",)
    link.unlink()
    link.symlink_to(conf)
    with pytest.raises(HostError, match="other users can write"):
        check_hooks(read)
    check(link)


def test_the_folder_of_every_link_counts(conf: Path, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("one", "two")]
    before = conf
    for folder in folders:
        folder.mkdir()
        folder.chmod(0o755)
        (folder / "tun0.conf").symlink_to(Path("..", before.parent.name, before.name))
        before = folder / "tun0.conf"
    check(before)
    for folder in folders:
        folder.chmod(0o777)
        with pytest.raises(HostError, match=f"other users can write .*{folder.name}"):
            check(before)
        folder.chmod(0o755)


@pytest.mark.real_root
@pytest.mark.root
def test_what_belongs_to_others_does_not_count_as_ours(conf: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "tmp"
    open_to_all.mkdir()
    open_to_all.chmod(0o1777)
    link = open_to_all / "tun0.conf"
    link.symlink_to(conf)
    check(link)
    os.chown(link, 1234, 1234, follow_symlinks=False)
    if Path("/proc/sys/fs/protected_symlinks").read_text() == "0\n":
        with pytest.raises(HostError, match=f"other users can write {link}") as caught:
            check(link)
        assert caught.value.remedy.startswith(f"install -D -b -m 600 {link} /etc/tunnel/tun0.conf")
    else:
        with pytest.raises(ConfigErrors, match=f"{link}: .* not even by root; .* the file itself"):
            check(link)
    os.chown(conf, 1234, 1234)
    with pytest.raises(HostError, match="other users can write"):
        check(conf)


def test_a_conf_that_is_gone(conf: Path) -> None:
    read = load(conf)
    conf.unlink()
    with pytest.raises(HostError, match="No such file"):
        check_hooks(read)


@pytest.mark.real_root
@pytest.mark.root
def test_conf_in_a_home_folder(conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = conf.parent
    home.chmod(0o755)
    for place in (home, conf):
        os.chown(place, 1234, 1234)
    with pytest.raises(HostError) as caught:
        check(conf)
    # Nothing that would take a folder away from its owner.
    assert "chown" not in caught.value.remedy
    assert f"install -D -b -m 600 {conf} /etc/tunnel/tun0.conf" in caught.value.remedy
    monkeypatch.setenv("TUNNEL_TRUSTED_USERS", "root, 4321")
    with pytest.raises(HostError, match="other users can write"):
        check(conf)
    monkeypatch.setenv("TUNNEL_TRUSTED_USERS", "4321, 1234")
    check(conf)
    # Trust in an owner is none in everybody.
    home.chmod(0o777)
    with pytest.raises(HostError, match="other users can write"):
        check(conf)


def test_what_is_left_behind_prints_where_its_starter_did(tmp_path: Path) -> None:
    """Also more than a pipe holds, when the starter is gone."""
    said, done = tmp_path / "said", tmp_path / "done"
    command = f"(sleep 0.3; seq 100000; touch {done}) & echo begun"
    script = (
        "from tunnel.host import run_hooks\n"
        f"run_hooks('PostUp', [{command!r}], 'wg0', print, output=2)"
    )
    with said.open("wb") as output:
        subprocess.run([sys.executable, "-c", script], check=True, stderr=output)
    wait_for(done.exists, 10, "the one behind to have printed all")
    assert said.read_text().startswith("begun\n1\n2\n")
    assert said.read_text().endswith("\n100000\n")


@pytest.mark.parametrize("mode", [0o755, 0o1777, 0o775])
def test_folder_that_others_can_write_is_no_place_to_save_into(conf: Path, mode: int) -> None:
    conf.chmod(0o666)  # what is written is not run
    conf.parent.chmod(mode)
    if mode != 0o775:
        check_save_target(conf)
        return
    with pytest.raises(HostError, match=f"^save {conf}: other users can write {conf.parent} "):
        check_save_target(conf)
