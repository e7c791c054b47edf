"""What the kernel may answer to a read or write of the TUN device, without one."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator

import pytest

from tunnel.io.drops import IoDrop
from tunnel.io.errors import TunDeleted, TunMergeRefused, TunWriteDropped
from tunnel.io.tun import READ_SIZE, Tun

FRAME = bytes(10) + b"\x45" + bytes(19)


@pytest.fixture
def tun() -> Tun:
    made = object.__new__(Tun)
    made._fd = -1
    made.vnet_hdr = True
    made.drops = Counter()
    return made


def answer(monkeypatch: pytest.MonkeyPatch, *answers: int | bytes) -> None:
    """Let reads fail with these numbers, or give these frames; then there is nothing more."""
    left: Iterator[int | bytes] = iter(answers)

    def readv(_: int, buffers: tuple[memoryview, ...]) -> int:
        found = next(left, errno.EAGAIN)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        buffers[0][: len(found)] = found
        return len(found)

    monkeypatch.setattr("tunnel.io.tun._readv", readv)


def test_refused_frame_is_counted_and_the_next_one_read(
    tun: Tun, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, errno.EINVAL, errno.EINVAL, FRAME)
    buffer = bytearray(READ_SIZE)
    assert tun.read(buffer) == len(FRAME)
    assert tun.drops == {IoDrop.TUN_READ_REFUSED: 2}
    assert tun.read(buffer) == 0


def test_refusals_without_end_give_others_their_turn(
    tun: Tun, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, *[errno.EINVAL] * 1000)
    assert tun.read(bytearray(READ_SIZE)) == 0
    assert 0 < tun.drops[IoDrop.TUN_READ_REFUSED] < 1000


@pytest.mark.parametrize("number", [errno.EBADFD, errno.EFAULT])
def test_deleted_device_is_told(tun: Tun, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    answer(monkeypatch, number)
    with pytest.raises(TunDeleted):
        tun.read(bytearray(READ_SIZE))


def test_interface_that_is_down_has_nothing_to_read(
    tun: Tun, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, errno.EIO)
    assert tun.read(bytearray(READ_SIZE)) == 0
    assert not tun.drops


def test_any_other_error_is_a_defect(tun: Tun, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, errno.EPERM)
    with pytest.raises(PermissionError):
        tun.read(bytearray(READ_SIZE))


def refuse(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def writev(_: int, __: tuple[memoryview, ...]) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tunnel.io.tun._writev", writev)


def test_a_frame_of_several_packets_that_is_refused_is_not_lost_yet(
    tun: Tun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some kernels have granted the offload and answer EINVAL to each such frame."""
    merged = b"\1\5" + FRAME[2:]
    refuse(monkeypatch, errno.EINVAL)
    with pytest.raises(TunMergeRefused):
        tun.write(merged)
    assert not tun.drops
    with pytest.raises(TunWriteDropped):
        tun.write(FRAME)
    assert tun.drops == {IoDrop.TUN_REFUSED: 1}
    refuse(monkeypatch, errno.EIO)
    with pytest.raises(TunWriteDropped):
        tun.write(merged)
    assert tun.drops == {IoDrop.TUN_REFUSED: 1, IoDrop.TUN_DOWN: 1}
