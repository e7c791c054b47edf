"""The folder of what an ordinary user runs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tunnel.control import run_folder


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The user has no runtime folder."""
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(tmp_path).st_uid or 4711)
    monkeypatch.setattr(run_folder, "_is_ours", Path.is_dir)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    return tmp_path


def test_nothing_of_it_stays_among_temporary_files(ordinary: Path) -> None:
    folder = run_folder.make_own_folder()
    assert folder.parent == ordinary
    (folder / "wg0.sock").touch()
    run_folder.remove_own_folder()
    assert folder.exists(), "another run goes on"
    (folder / "wg0.sock").unlink()
    run_folder.remove_own_folder()
    assert list(ordinary.iterdir()) == []


def test_a_runtime_folder_stays(ordinary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(ordinary / "run"))
    folder = run_folder.make_own_folder()
    run_folder.remove_own_folder()
    assert folder.is_dir()
