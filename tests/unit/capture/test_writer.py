"""Where captures go: order, limits, rings, modes."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from tunnel.capture.writer import Recording


def test_packets_are_written_in_order_of_time(tmp_path: Path) -> None:
    file = tmp_path / "f"
    with Recording(file, preamble=b"<") as recording:
        for time in (3, 1, 2):
            recording.add_packet(time, str(time).encode())
        recording.add_secrets(b"k")
        recording.write_until(2)
        assert file.read_bytes() == b"<k12"
        recording.add_packet(2, b"+")
        recording.finish(b">")
    assert file.read_bytes() == b"<k12+3>"
    assert recording.written == 4


def test_no_more_than_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "f"
    with Recording(file, preamble=b"", limit=2) as recording:
        for time in range(5):
            recording.add_packet(time, str(time).encode())
        found = [recording.full]
        recording.write_until(0)
        found.append(recording.full)
        recording.finish(b">")
        found.append(recording.full)
    assert found == [False, False, True]
    assert file.read_bytes() == b"01>"


def test_a_ring_keeps_the_latest_files_and_repeats_the_secrets(tmp_path: Path) -> None:
    with Recording(tmp_path / "f.pcapng", preamble=b"<", ring=2, size=4) as recording:
        recording.add_secrets(b"k")
        for time in range(7):
            recording.add_packet(time, f"{time}{time}".encode())
        recording.finish(b">")
    found = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert found == {"f-00003.pcapng": b"<k4455", "f-00004.pcapng": b"<k66>"}


def test_a_packet_larger_than_a_file_gets_one_of_its_own(tmp_path: Path) -> None:
    with Recording(tmp_path / "f", preamble=b"<", ring=9, size=2) as recording:
        for time, block in enumerate([b"aaaa", b"b", b"c", b"dddd"]):
            recording.add_packet(time, block)
        recording.finish(b"")
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [
        b"<aaaa",
        b"<bc",
        b"<dddd",
    ]


@pytest.mark.parametrize("ring", [0, 1])
def test_files_are_their_owners_alone(tmp_path: Path, ring: int) -> None:
    there = tmp_path / ("f-00001" if ring else "f")
    there.write_bytes(b"what was there before")
    there.chmod(0o666)
    with Recording(tmp_path / "f", preamble=b"<", ring=ring, size=9):
        assert there.stat().st_mode & 0o777 == 0o600
    assert there.read_bytes() == b"<"


def test_a_stream_is_flushed_each_time() -> None:
    class Counting(io.BytesIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    stream = Counting()
    with Recording(stream, preamble=b"<") as recording:
        recording.write_until(0)
        assert (stream.getvalue(), stream.flushes) == (b"<", 1)


@pytest.mark.root
@pytest.mark.real_root
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_another_user_has_put_there_is_not_written(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "x.pcapng", tmp_path / "target"
    target.write_text("precious")
    if kind == "link":
        path.symlink_to(target)
    else:
        path.write_text("precious")
    with Recording(path, preamble=b"ours") as ours:
        ours.finish(b"")
    assert target.read_text() == ("ours" if kind == "link" else "precious")
    path.write_text("precious")
    os.chown(path, 1234, 1234, follow_symlinks=False)
    with pytest.raises(PermissionError, match="of another user"):
        Recording(path, preamble=b"")
    assert path.read_text() == "precious"


def test_a_full_disk_is_told_once() -> None:
    """Closing tries to write again what is buffered, and would fail for a second time."""
    with (
        pytest.raises(OSError, match="No space left") as caught,
        open("/dev/full", "wb") as full,
        Recording(full, preamble=b"<") as recording,
    ):
        recording.finish(b">")
    assert caught.value.__context__ is None
