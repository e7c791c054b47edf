"""CPU time and memory of processes, from a /proc made here."""

from __future__ import annotations

import os
from pathlib import Path

from tunnel.bench.usage import Cpu, rss_mib


def thread(proc: Path, pid: int, tid: int, nanoseconds: int) -> None:
    folder = proc / str(pid) / "task" / str(tid)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "schedstat").write_text(f"{nanoseconds} 50056 1\n")


def test_time_is_that_of_all_threads_since(tmp_path: Path) -> None:
    thread(tmp_path, 10, 10, 5_000)
    thread(tmp_path, 10, 11, 9_000_000_000)
    thread(tmp_path, 20, 20, 0)
    thread(tmp_path, 30, 30, 0)
    before = Cpu.of([10, 20, 40], tmp_path)
    assert before.seconds_since() == 0
    thread(tmp_path, 10, 10, 250_005_000)
    thread(tmp_path, 10, 12, 500_000_000)  # began since
    thread(tmp_path, 20, 20, 1_000_000_000)
    thread(tmp_path, 30, 30, 7_000_000_000)  # no one asked for
    ended = tmp_path / "10" / "task" / "11"
    (ended / "schedstat").unlink()
    ended.rmdir()
    assert before.seconds_since() == 1.75


def test_memory_is_that_of_all_that_are_there(tmp_path: Path) -> None:
    for pid in (10, 20):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"VmHWM:\t99999 kB\nVmRSS:\t  {pid * 512} kB\n")
    (tmp_path / "30").mkdir()
    (tmp_path / "30" / "status").write_text("Name:\tkthread\n")
    assert rss_mib([10, 20, 30, 40], tmp_path) == 15.0


def test_the_kernel_has_what_is_read() -> None:
    now = Cpu.of([os.getpid()])
    assert (os.getpid(), str(os.getpid())) in now.used
    assert rss_mib([os.getpid()]) > 5
