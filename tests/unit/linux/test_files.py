"""A file is replaced whole or not at all, and is never open to more users than it should be."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.linux.files import Keep, append_whole, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_new_file_has_the_mode_asked_for(tmp_path: Path, mode: int) -> None:
    previous = os.umask(0)
    try:
        replace_file(tmp_path / "a", "text ü\n", mode=mode)
    finally:
        os.umask(previous)
    assert (tmp_path / "a").read_text(encoding="utf-8") == "text ü\n"
    assert mode_of(tmp_path / "a") == mode
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("keep", "mode"), [("nothing", 0o644), ("owner", 0o644), ("access", 0o640)]
)
def test_access_of_a_replaced_file(tmp_path: Path, keep: Keep, mode: int) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o640)
    inode = path.stat().st_ino
    replace_file(path, "new", mode=0o644, keep=keep)
    assert path.read_text() == "new"
    assert mode_of(path) == mode
    assert path.stat().st_ino != inode


@pytest.mark.parametrize("keep", ["owner", "access"])
def test_owner_that_cannot_be_kept_leaves_a_file_for_us_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: Keep
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o644)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchown", refuse)
    replace_file(path, "new", mode=0o644, keep=keep)
    assert path.read_text() == "new"
    assert mode_of(path) == 0o600


def test_symbolic_link_is_replaced_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    replace_file(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "old"


@pytest.mark.parametrize("call", ["open", "fchmod", "fsync", "replace"])
def test_failure_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OSError, match="No space left"):
            replace_file(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_text_that_cannot_be_encoded_leaves_no_temporary_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        replace_file(tmp_path / "a", "\ud800")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("code", "is_error"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_folder_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_error: bool
) -> None:
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if is_error:
        with pytest.raises(OSError, match="Input/output error"):
            replace_file(tmp_path / "a", "new")
    else:
        replace_file(tmp_path / "a", "new")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("other", ["link", "file"])
def test_only_the_file_that_is_known_is_replaced(tmp_path: Path, other: str) -> None:
    path, precious = tmp_path / "a", tmp_path / "precious"
    path.write_text("old")
    precious.write_text("precious")
    known = path.stat()
    replace_file(path, "new", known=known)
    known = path.stat()
    path.rename(tmp_path / "moved")
    if other == "link":
        path.symlink_to(precious)
    else:
        path.write_text("theirs")
    with pytest.raises(OSError, match="another file has taken its place") as caught:
        replace_file(path, "new", keep="access", known=known)
    assert caught.value.errno == errno.ESTALE
    assert path.read_text() == ("precious" if other == "link" else "theirs")
    assert sorted(os.listdir(tmp_path)) == ["a", "moved", "precious"]


def test_folder_that_is_exchanged_meanwhile_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, theirs = tmp_path / "folder", tmp_path / "theirs"
    for each in (folder, theirs):
        each.mkdir()
        (each / "a").write_text("old")
    fsync = os.fsync

    def exchange(descriptor: int) -> None:
        fsync(descriptor)
        if folder.exists() and not folder.is_symlink():
            folder.rename(tmp_path / "moved")
            folder.symlink_to(theirs)

    monkeypatch.setattr(os, "fsync", exchange)
    replace_file(folder / "a", "new")
    assert (theirs / "a").read_text() == "old"
    assert (tmp_path / "moved" / "a").read_text() == "new"


def test_what_does_not_fit_is_appended_in_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "lines"
    assert append_whole(path, b"one\n") == 4
    write = os.write

    def refuse(descriptor: int, data: memoryview) -> int:
        if len(data) <= 4:
            raise OSError(errno.ENOSPC, "no room")
        return write(descriptor, data[:4])

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(OSError, match="no room"):
        append_whole(path, b"two and a half\n")
    assert path.read_bytes() == b"one\n"
    assert mode_of(path) == 0o600


KILLED = """
import os, signal, sys
from pathlib import Path
from tunnel.linux.files import replace_file
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
replace_file(Path(sys.argv[1]), "new")
"""


@pytest.mark.parametrize("old", [None, "old"])
def test_kill_while_it_is_written_leaves_no_other_file(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "wg0.conf"
    if old is not None:
        path.write_text(old)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [found.read_text() for found in tmp_path.iterdir()] == ([] if old is None else [old])
