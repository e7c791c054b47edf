"""The wheels that `tunnel pair --install` takes to the other host."""

from __future__ import annotations

import io
import platform
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tunnel.pair.installing import wheels


def test_a_source_folder_in_which_a_wheel_was_built_describes_itself_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = metadata.distribution("tunnel-vpn")
    left = tmp_path / "tunnel_vpn.egg-info"
    left.mkdir()
    (left / "PKG-INFO").write_text(str(known.metadata))
    (left / "entry_points.txt").write_text(known.read_text("entry_points.txt") or "")
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.distribution("tunnel-vpn").read_text("METADATA") is None
    own = next(data for name, data in wheels(platform.machine()) if name.startswith("tunnel_vpn-"))
    with zipfile.ZipFile(io.BytesIO(own)) as wheel:
        (described,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        assert f"\nVersion: {known.version}\n" in wheel.read(described).decode()
