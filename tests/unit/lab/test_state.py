from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.lab import LabError, namespace, process, state
from tunnel.linux.processes import end_processes


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(state, "state_directory", lambda: tmp_path)
    return tmp_path


def made(directory: Path, owner: int, start: int, *, kept: bool = False) -> state.LabState:
    files = directory / "files"
    files.mkdir()
    found = state.LabState("abc123", owner, start, str(files), kept=kept)
    found.write()
    return found


def test_a_state_comes_back_as_it_was_written(directory: Path) -> None:
    written = state.LabState("abc123", 1, 2, "/nowhere", kept=True, holders={"a": (3, 4)})
    written.write()
    assert state.read_all() == [written]


def test_a_file_that_is_no_state_is_left_alone(directory: Path) -> None:
    (directory / "x.json").write_text('{"id": 1}')
    (directory / "y.json").write_text("not json")
    assert state.read_all() == []


def test_a_pid_used_again_is_another_owner(directory: Path) -> None:
    start = namespace.start_time(os.getpid())
    assert start is not None
    alive = made(directory, os.getpid(), start)
    assert alive.alive
    alive.owner_start -= 1
    assert not alive.alive


def test_sweep_removes_the_files_of_the_dead_only(directory: Path) -> None:
    start = namespace.start_time(os.getpid())
    assert start is not None
    found = made(directory, os.getpid(), start)
    assert state.sweep() == []
    found.owner_start -= 1
    found.kept = True
    found.write()
    assert state.sweep() == []
    found.kept = False
    found.write()
    assert state.sweep() == ["abc123"]
    assert not Path(found.directory).exists()
    assert state.read_all() == []


def test_processes_are_ended_even_when_they_ignore_sigterm() -> None:
    code = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        stubborn.stdout.readline()
        end_processes([stubborn.pid, 2**22 + 1], grace=0.05)
        assert stubborn.wait(1) == -9


def test_what_a_waiting_needs_is_in_its_error() -> None:
    with pytest.raises(LabError, match=r"the answer: not within 0 s"):
        process.wait_for(lambda: False, 0, "the answer")


def test_an_ended_process_has_no_start_time() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    assert namespace.start_time(ended.pid) is None
