"""Lines of records, and what becomes of them on a disk that is full or a file that is moved."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio

from tunnel.daemon import records as module
from tunnel.daemon.records import Records

KEY = "nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8="


def recorder(path: Path) -> Records:
    found = Records("wg0", path, lambda key: 'the "roof"\n' if key == KEY else "")
    found.kind = "sessions"
    return found


def session(records: Records, number: int) -> None:
    at = {"peer": KEY, "endpoint": "192.0.2.7:9"}
    records.handle_event("connected", {**at, "rx_bytes": 100, "tx_bytes": 50})
    end = {**at, "rx_bytes": 100 + number, "tx_bytes": 51, "reason": "no handshake for 180 s"}
    records.handle_event("disconnected", end)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_session_is_one_line_and_a_moved_file_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log" / "wg0.jsonl"
    records = recorder(path)

    async def main() -> None:
        session(records, 7)
        await records.write()
        path.rename(tmp_path / "old")
        session(records, 8)
        session(records, 9)
        await records.write()

    trio.run(main)
    (first,) = lines(tmp_path / "old")
    assert first["end"] >= first["start"]
    del first["start"], first["end"]
    assert first == {
        "type": "session",
        "interface": "wg0",
        "peer": KEY,
        "name": 'the "roof"\n',
        "endpoint": "192.0.2.7:9",
        "rx_bytes": 7,
        "tx_bytes": 1,
        "reason": "no handshake for 180 s",
    }
    assert [each["rx_bytes"] for each in lines(path)] == [8, 9]
    assert path.stat().st_mode & 0o777 == 0o600
    assert records.troubles() == ()


def test_a_full_disk_loses_whole_lines_and_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wg0.jsonl"
    records = recorder(path)
    writes = iter([10, None])
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        room = next(writes)
        if room is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:room])

    async def main() -> None:
        session(records, 1)
        await records.write()
        session(records, 2)
        session(records, 3)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            await records.write()
        session(records, 4)
        await records.write()

    trio.run(main)
    assert [each["rx_bytes"] for each in lines(path)] == [1, 4]
    assert records.troubles() == (f"2 records ({path}: No space left on device)",)


def test_what_comes_faster_than_it_is_written_is_counted(tmp_path: Path) -> None:
    records = recorder(tmp_path / "wg0.jsonl")

    async def main() -> None:
        for number in range(module.MAX_WAITING + 3):
            session(records, number)
        await records.write()

    trio.run(main)
    assert len(lines(tmp_path / "wg0.jsonl")) == module.MAX_WAITING
    assert records.lost == 3


@pytest.mark.parametrize("obstacle", ["link", "folder"])
def test_nothing_is_written_through_what_is_no_file(tmp_path: Path, obstacle: str) -> None:
    path, target = tmp_path / "wg0.jsonl", tmp_path / "target"
    path.symlink_to(target) if obstacle == "link" else path.mkdir()
    records = recorder(path)

    async def main() -> None:
        session(records, 1)
        await records.write()

    trio.run(main)
    assert records.lost == 1
    assert not target.exists()


def test_nothing_is_recorded_that_was_not_asked_for(tmp_path: Path) -> None:
    records = recorder(tmp_path / "wg0.jsonl")
    records.kind = "off"

    async def main() -> None:
        session(records, 1)
        await records.write()

    trio.run(main)
    assert list(tmp_path.iterdir()) == []
