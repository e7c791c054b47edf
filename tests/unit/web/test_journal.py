"""Who connected when, in a file that may be full, damaged, or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.web.journal import FILE_BYTES, KEPT, Journal
from tunnel.web.messages import LogEntry


def entry(number: int, kind: str = "connected", peer: str = "desk") -> LogEntry:
    return LogEntry(float(number), kind, peer, "192.0.2.1:1")


def test_another_one_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    path = tmp_path / "state" / "log"
    first = Journal(path)
    for number in range(3):
        first.add(entry(number))
    with path.open("a") as file:
        file.write('{"time": 3.0, "kind"\nnot json\n[]\n{"time": "x", "kind": 1}\n')
    second = Journal(path)
    second.add(entry(4))
    assert [found.time for found in second.newest().entries] == [4, 2, 1, 0]
    assert path.stat().st_mode & 0o777 == 0o600


def test_who_is_there_is_who_came_and_did_not_go(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log")
    journal.add(entry(1))
    journal.add(entry(2, peer="laptop"))
    journal.add(entry(3, "added", "phone"))
    journal.add(LogEntry(4.0, "moved", "desk", "192.0.2.9:2"))
    journal.add(entry(5, "disconnected", "laptop"))
    assert Journal(tmp_path / "log").connected() == {"desk": "192.0.2.9:2"}


def test_memory_and_file_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"\n" * FILE_BYTES)
    journal = Journal(path)
    for number in range(KEPT + 5):
        journal.add(entry(number))
    assert len(journal.newest().entries) == KEPT
    assert (tmp_path / "log.1").stat().st_size > FILE_BYTES
    assert path.stat().st_size < FILE_BYTES


@pytest.mark.parametrize("is_link", [False, True])
def test_what_cannot_be_kept_is_shown_and_said(tmp_path: Path, is_link: bool) -> None:
    path = tmp_path / "state" / "log"
    journal = Journal(path)
    if is_link:
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.parent.rmdir()
    journal.add(entry(1))
    shown = journal.newest()
    assert [found.time for found in shown.entries] == [1]
    assert "entries are not kept" in shown.problem
    assert not (tmp_path / "elsewhere").exists()
    path.unlink() if is_link else os.mkdir(path.parent)
    journal.add(entry(2))
    assert journal.newest().problem == ""
