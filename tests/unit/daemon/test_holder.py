"""The holder by itself: a program that holds descriptors and starts what should go on."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio
import trio.testing

from tunnel.control import run_folder
from tunnel.daemon import keeper as keepers
from tunnel.daemon.keeper import HolderProcess, Keeper
from tunnel.daemon.lock import hold
from tunnel.daemon.sd_notify import Notifier
from tunnel.errors import DaemonError

WAIT = 10.0


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In the place of /run/tunnel: unlike pytest's own folders, other users can enter it. We are
    the daemon, which has the lock.
    """
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        monkeypatch.setattr(run_folder, "RUN_FOLDER", Path(name))
        with hold("wg0", folder=Path(name)):
            yield Path(name)


class Scene:
    """A holder whose commands write a line into a pipe that the test reads."""

    def __init__(
        self, folder: Path, stack: ExitStack, *, up: str = "up", shell: str = "/bin/sh"
    ) -> None:
        self.fifo = folder / "said"
        os.mkfifo(self.fifo)
        self.has_ended = False
        self._said = os.open(self.fifo, os.O_RDWR)
        stack.callback(os.close, self._said)
        self.log = folder / "log"
        self.holder = HolderProcess.start("wg0", self.log)
        start = (shell, *self.command(up)[1:])
        self.holder.set_commands(start, self.command("down $SERVICE_RESULT"))
        stack.callback(self._end)

    def command(self, text: str) -> Sequence[str]:
        # Opened so that it does not wait for a reader: the test may have ended.
        return ("/bin/sh", "-c", f"echo {text} 1<> {self.fifo}")

    def said(self) -> str:
        ready, _, _ = select.select([self._said], [], [], WAIT)
        assert ready, "the holder has started nothing"
        return os.read(self._said, 100).decode()

    def ended(self) -> int:
        self.has_ended = True
        return os.waitstatus_to_exitcode(os.waitpid(self.holder.pid, 0)[1])

    def _end(self) -> None:
        self.holder.close()
        if not self.has_ended:
            os.kill(self.holder.pid, signal.SIGKILL)
            self.ended()


@pytest.fixture
def scene(folder: Path) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(folder, stack)


def pipe() -> tuple[int, int]:
    return os.pipe2(os.O_CLOEXEC)


def is_closed(reading: int) -> bool:
    """Whether no process has the other end of a pipe, at once."""
    ready, _, _ = select.select([reading], [], [], 0)
    return bool(ready)


def next_one() -> HolderProcess:
    found = HolderProcess.of("wg0")
    assert found is not None
    return found


def test_a_successor_gets_what_the_dead_one_had(scene: Scene) -> None:
    reading, writing = pipe()
    scene.holder.keep({"tun": writing})
    scene.holder.ready()
    os.close(writing)
    scene.holder.close()  # as the kernel does for a process that was killed
    assert scene.said() == "up\n"
    later = next_one()
    assert later.pid == scene.holder.pid
    assert later.died_at > 0
    found = later.take()
    assert list(found) == ["tun"]
    os.write(found["tun"], b"alive")
    assert os.read(reading, 5) == b"alive"
    os.close(found["tun"])
    later.release()
    assert is_closed(reading)
    assert scene.ended() == 0
    os.close(reading)


def test_what_is_started_inherits_nothing(folder: Path) -> None:
    reading, writing = pipe()
    names = f"pipe:.{os.fstat(reading).st_ino}.\\|socket:"
    with ExitStack() as stack:
        scene = Scene(folder, stack, up=f"$(ls -l /proc/$$/fd | grep -c '{names}')")
        scene.holder.keep({"tun": writing})
        scene.holder.ready()
        scene.holder.close()
        os.close(writing)
        assert scene.said() == "0\n"
        next_one().release()
        assert is_closed(reading)
        assert scene.ended() == 0
    os.close(reading)


def test_the_last_daemon_says_what_starts_the_next(scene: Scene) -> None:
    """It may have been started with another conf, or from another folder of programs."""
    scene.holder.ready()
    scene.holder.hand_over()
    scene.holder.close()
    later = next_one()
    words = (*scene.command("up with $0"), "a name\nREADY=1")
    later.set_commands(words, ("/bin/true",))
    later.ready()
    later.close()
    assert scene.said() == "up with a name READY=1\n"


def test_one_that_never_was_up_has_no_successor(scene: Scene) -> None:
    scene.holder.close()
    assert scene.ended() == 0


def test_what_is_no_longer_wanted_is_closed(scene: Scene) -> None:
    (old, old_end), (new, new_end) = pipe(), pipe()
    scene.holder.keep({"udp4": old_end})
    scene.holder.keep({"udp4": new_end})
    os.close(old_end)
    os.close(new_end)
    later = next_one()
    found = later.take()
    assert is_closed(old)
    os.close(found["udp4"])
    assert not is_closed(new)
    later.drop()
    assert is_closed(new)
    later.release()
    assert scene.ended() == 0
    os.close(old)
    os.close(new)


@pytest.fixture
def hasty(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Holders give up soon, after two attempts."""
    program = folder / "holder.py"
    text = Path(keepers._PROGRAM).read_text()
    assert "DELAYS = (0.0, 0.5, 1.0, 2.0, 5.0)" in text
    program.write_text(text.replace("(0.0, 0.5, 1.0, 2.0, 5.0)", "(0.0, 0.01)"))
    monkeypatch.setattr(keepers, "_PROGRAM", program)


@pytest.mark.usefixtures("hasty")
def test_deaths_in_a_row_end_in_the_undoing(folder: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(folder, stack)
        reading, writing = pipe()
        scene.holder.keep({"tun": writing})
        os.close(writing)
        scene.holder.ready()
        scene.holder.close()
        said = ""
        while said.count("\n") < 3:
            said += scene.said()
        # Two that never connect; then what failed leaves a kill switch.
        assert said.splitlines() == ["up", "up", "down exit-code"]
        assert scene.ended() == 1
        assert is_closed(reading)
        os.close(reading)


@pytest.mark.usefixtures("hasty")
def test_a_program_that_is_not_there_is_a_death_like_others(folder: Path) -> None:
    """As in the middle of an upgrade."""
    with ExitStack() as stack:
        scene = Scene(folder, stack, shell=str(folder / "missing"))
        scene.holder.ready()
        scene.holder.close()
        assert scene.said() == "down exit-code\n"
        assert scene.ended() == 1
    log = (folder / "log").read_text()
    assert log.count("missing: No such file or directory") == 2
    assert "the daemon has ended 3 times in a row" in log


@pytest.mark.usefixtures("hasty")
def test_the_log_says_what_ended_a_daemon(folder: Path) -> None:
    with ExitStack() as stack:
        scene = Scene(folder, stack, up=f"$$ > {folder}/said; kill -KILL $$ #")
        scene.holder.ready()
        scene.holder.close()
        first = scene.said().strip()
        scene.said()  # the second is started once the first one's end is known
    assert f"process {first}, was ended by signal 9" in (folder / "log").read_text()


def test_it_goes_on_without_a_log(folder: Path, scene: Scene) -> None:
    (folder / "log").unlink()
    (folder / "log").symlink_to(folder / "elsewhere")
    scene.holder.ready()
    scene.holder.close()
    assert scene.said() == "up\n"
    assert not (folder / "elsewhere").exists()


def test_a_holder_of_a_dead_daemon_is_dismissed(scene: Scene) -> None:
    reading, writing = pipe()
    scene.holder.keep({"tun": writing})
    os.close(writing)
    assert keepers.dismiss("wg0")
    assert is_closed(reading)
    assert scene.ended() == 0
    assert not keepers.dismiss("wg0")
    os.close(reading)


def test_a_holder_that_is_stopped_is_named_and_nothing_is_said_to_be_done(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It still has the interface."""
    os.kill(scene.holder.pid, signal.SIGSTOP)
    os.waitpid(scene.holder.pid, os.WUNTRACED)
    monkeypatch.setattr(keepers, "HELLO_TIME", 0.05)
    with pytest.raises(DaemonError, match=r"holder of wg0 does not answer.*kill -CONT PID"):
        keepers.dismiss("wg0")
    assert run_folder.holder_path("wg0").is_socket()
    monkeypatch.undo()
    os.kill(scene.holder.pid, signal.SIGCONT)


def test_what_an_announced_successor_finds(scene: Scene) -> None:
    reading, writing = pipe()
    scene.holder.keep({"tun": writing})
    scene.holder.ready()
    scene.holder.hand_over()
    scene.holder.close()
    later = next_one()
    assert list(later.found) == ["tun"]
    later.release()
    os.close(writing)
    assert is_closed(reading)
    assert scene.ended() == 0, "it has started none of its own"
    os.close(reading)


def test_the_program_needs_little() -> None:
    """It goes on while the package is replaced, and is small: no module but the standard ones."""
    names = {
        line.split()[1]
        for line in keepers._PROGRAM.read_text().splitlines()
        if line[:7] == "import "
    }
    assert names <= set(sys.stdlib_module_names)
    assert names.isdisjoint({"logging", "subprocess", "asyncio", "json", "typing"})


class Sent(Keeper):
    """One that writes down what is sent."""

    keeps = True

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[tuple[str, ...], tuple[int, ...]]] = []

    def _send(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        self.sent.append((lines, tuple(descriptors)))


def test_only_what_changes_is_sent() -> None:
    keeper = Sent()
    (tun, old), (other, new) = pipe(), pipe()
    keeper.keep({"tun": tun, "udp4": old})
    assert [lines[:2] for lines, _ in keeper.sent] == [
        ("FDSTORE=1", "FDNAME=tun"),
        ("FDSTORE=1", "FDNAME=udp4"),
    ]
    replaced = [("FDSTOREREMOVE=1", "FDNAME=udp4"), ("FDSTORE=1", "FDNAME=udp4")]
    keeper.sent.clear()
    keeper.keep({"tun": tun, "udp4": new})
    assert [lines[:2] for lines, _ in keeper.sent] == replaced
    # A file that gets the number of one that was closed is another one.
    keeper.sent.clear()
    os.dup2(old, new, inheritable=False)
    keeper.keep({"tun": tun, "udp4": new})
    assert [lines[:2] for lines, _ in keeper.sent] == replaced
    keeper.sent.clear()
    keeper.keep({"tun": tun, "udp4": new})
    assert keeper.sent == []
    for descriptor in (tun, old, other, new):
        os.close(descriptor)


def test_what_systemd_passes_on_is_found_once() -> None:
    environment = {
        "LISTEN_PID": str(os.getpid() + 1),
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "tun",
        "HOME": "/",
    }
    store = keepers.SystemdStore(Notifier(), environment)
    assert store.found == {}, "it was meant for another process"
    assert environment == {"HOME": "/"}, "hooks must not take it for theirs"


def test_a_process_without_the_lock_gets_nothing_and_ends_nothing(scene: Scene) -> None:
    reading, writing = pipe()
    scene.holder.keep({"tun": writing})
    scene.holder.ready()
    program = (
        "import socket, sys\n"
        "stranger = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "stranger.connect(sys.argv[1])\n"
        "sys.exit(len(stranger.recv(100)))\n"
    )
    path = str(run_folder.holder_path("wg0"))
    subprocess.run([sys.executable, "-c", program, path], check=True, timeout=WAIT)
    # The daemon is the same as before: what it says is heeded.
    os.close(writing)
    scene.holder.keep({})
    assert select.select([reading], [], [], WAIT)[0], "it is closed"
    os.close(reading)
    scene.holder.release()
    assert scene.ended() == 0, "it was not taken for dead"


def test_another_holder_takes_the_place_of_one_that_has_ended(scene: Scene) -> None:
    reading, writing = pipe()
    wanted = {"tun": writing}
    scene.holder.keep(wanted)
    scene.holder.ready()
    first = scene.holder.pid
    os.kill(first, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(first, 0)

    async def watch() -> None:
        async with trio.open_nursery() as nursery:

            def keep_again() -> None:
                assert not scene.holder.is_keeping()
                scene.holder.keep(wanted)
                nursery.cancel_scope.cancel()

            nursery.start_soon(scene.holder.watch, keep_again)
            await trio.sleep(WAIT)

    trio.run(watch)
    assert scene.holder.lost == 1
    assert scene.holder.pid not in (0, first)
    assert scene.holder.is_keeping()
    os.close(writing)
    scene.holder.close()
    assert scene.said() == "up\n", "it knows what to start"
    later = next_one()
    assert list(later.found) == ["tun"]
    later.release()
    assert is_closed(reading)
    assert scene.ended() == 0
    os.close(reading)


def test_one_that_cannot_be_replaced_is_missed(scene: Scene, folder: Path) -> None:
    (folder / "log").unlink()
    (folder / "log").mkdir()
    os.kill(scene.holder.pid, signal.SIGKILL)
    scene.ended()
    trio.run(scene.holder.watch, lambda: None)
    assert (scene.holder.pid, scene.holder.lost, scene.holder.keeps) == (0, 1, False)
    assert not run_folder.holder_path("wg0").exists()


def test_what_one_holds_goes_to_the_next(scene: Scene) -> None:
    reading, writing = pipe()
    scene.holder.keep({"tun": writing})
    os.close(writing)
    scene.holder.ready()
    scene.holder.hand_over()
    scene.holder.close()
    old = HolderProcess.of("wg0", scene.log)
    assert old is not None
    new = old.replaced()
    assert scene.ended() == 0
    scene.holder.pid = new.pid
    scene.has_ended = False
    os.close(new.take()["tun"])
    assert not is_closed(reading), "the new one holds it"
    new.release()
    assert is_closed(reading)
    assert scene.ended() == 0
    os.close(reading)


def test_another_users_process_gets_nothing(scene: Scene) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path = run_folder.holder_path("wg0")
    os.chmod(path, 0o666)
    child = os.fork()
    if not child:
        code = 1
        try:
            os.setresuid(65534, 65534, 65534)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(str(path))
                code = 0 if stranger.recv(100) == b"" else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    scene.holder.release()
    assert scene.ended() == 0


def test_one_that_is_released_is_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []
    start = keepers._start

    def counted(name: str, log_file: Path) -> tuple[socket.socket, int]:
        started.append(start(name, log_file))
        return started[-1]

    monkeypatch.setattr(keepers, "_start", counted)

    async def release() -> tuple[int, int]:
        holder = HolderProcess.start("wg0", folder / "log")
        pid = holder.pid
        async with trio.open_nursery() as nursery:
            nursery.start_soon(holder.watch, lambda: None)
            await trio.testing.wait_all_tasks_blocked()
            await trio.to_thread.run_sync(holder.release)
            # It sees the end of the connection, too.
            await trio.testing.wait_all_tasks_blocked(0.05)
            nursery.cancel_scope.cancel()
        return pid, holder.pid

    for _ in range(10):
        before, after = trio.run(release)
        assert before == after
    assert len(started) == 10


def test_one_that_was_left_before_it_looked_ends(folder: Path) -> None:
    holder = HolderProcess.start("wg1", folder / "log")
    # Nobody has the lock of that name any more.
    holder.close()
    watched = os.pidfd_open(holder.pid)
    assert select.select([watched], [], [], WAIT)[0], "it has ended"
    os.close(watched)
    os.waitpid(holder.pid, 0)
