"""Where no Docker engine can run, the reason and the remedy are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunnel.lab import LabUnavailableError, docker


def test_missing_programs_are_named_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LabUnavailableError) as caught:
        docker.check()
    assert caught.value.problem == "a Docker engine needs dockerd, docker, busybox, iptables"
    assert caught.value.remedy == (
        "sudo apt-get install --no-install-recommends docker.io busybox-static iptables"
    )


def test_the_root_of_a_user_namespace_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("dockerd", "docker", "busybox", "iptables"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(docker, "outer_uid", lambda: 1000)
    with pytest.raises(LabUnavailableError, match="remedy: run the same command with sudo"):
        docker.check()
    monkeypatch.setattr(docker, "outer_uid", lambda: 0)
    docker.check()
