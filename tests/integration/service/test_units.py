"""The units as systemd's own checker sees them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tunnel.systemd import units

pytestmark = pytest.mark.foreign("systemd-analyze")

PROGRAM = "/usr/bin/true"
"""Stands for the command: the checker wants a program that exists."""

MAX_EXPOSURE = {
    (): 2.6,
    ("resolvconf",): 2.6,
    ("save-config",): 2.6,
    ("sysctl",): 2.8,
    ("namespaces",): 3.2,
    ("hooks",): 3.8,
    ("hooks", "namespaces", "resolvconf", "save-config", "sysctl"): 4.5,
}
"""0 is best, 10 worst. What a drop-in costs is to be known, and to stay so."""


def installed(tmp_path: Path, names: tuple[str, ...]) -> Path:
    """The folder of units, with an instance for wg0."""
    real = shutil.which(PROGRAM)
    assert real is not None
    (tmp_path / "usr/bin").mkdir(parents=True)
    shutil.copy(real, tmp_path / "usr/bin/true")
    units.install(tmp_path, [PROGRAM], names=names, docker=True, web=True)
    folder = tmp_path / units.UNIT_FOLDER
    shutil.copy(folder / units.UNIT, folder / "tunnel@wg0.service")
    shutil.copy(folder / units.WEB, folder / "tunnel-web@wg0.service")
    if names:
        (folder / "tunnel@.service.d").rename(folder / "tunnel@wg0.service.d")
    return folder


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", "--man=no", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("names", MAX_EXPOSURE)
def test_verify_finds_nothing(tmp_path: Path, names: tuple[str, ...]) -> None:
    folder = installed(tmp_path, names)
    others = ["tunnel-web@wg0.service", "tunnel.target", *units.DOCKER]
    done = analyze(folder, "verify", "./tunnel@wg0.service", *(f"./{name}" for name in others))
    # It warns of units of the machine too, if those have faults.
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "tunnel" in line]
    assert ours == []
    assert done.returncode == 0


@pytest.mark.parametrize(("names", "limit"), MAX_EXPOSURE.items())
def test_exposure(tmp_path: Path, names: tuple[str, ...], limit: float) -> None:
    folder = installed(tmp_path, names)
    threshold = f"--threshold={round(limit * 10)}"
    done = analyze(folder, "security", "--offline=true", threshold, "./tunnel@wg0.service")
    assert done.returncode == 0, done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("unit", "limit"), [(units.DOCKER[0], 3.0), ("tunnel-web@wg0.service", 1.9)]
)
def test_exposure_of_other_units(tmp_path: Path, unit: str, limit: float) -> None:
    folder = installed(tmp_path, ())
    threshold = f"--threshold={round(limit * 10)}"
    done = analyze(folder, "security", "--offline=true", threshold, f"./{unit}")
    assert done.returncode == 0, done.stdout.splitlines()[-1]
