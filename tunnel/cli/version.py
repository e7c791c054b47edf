"""What `--version` prints, for all three programs. It never fails: what is not known, it says."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tunnel import datapath

DISTRIBUTION = "tunnel-vpn"
"""The name in package indexes; the import package is `tunnel`."""

UNKNOWN = "not known"

_BUILT_FROM = Path(__file__).with_name("commit.txt")
"""Written into each sdist and wheel by setup.py, if the commit is known there."""
_CHECKOUT = Path(__file__).parents[2]
_PATIENCE = 5.0
"""Seconds that git may take to look for changed files."""


def version_text(program: str) -> str:
    """Version, commit, datapath, cipher and Python of this installation, one a line."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{program} {version()}\n"
        f"commit: {_commit() or UNKNOWN}\n"
        f"{_datapath()}\n"
        f"Python: {python} ({sys.executable})"
    )


def version() -> str:
    """The version of this program, or that it is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _commit() -> str | None:
    try:
        return _BUILT_FROM.read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        pass
    if not (_CHECKOUT / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(_CHECKOUT)]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        asked = subprocess.run(
            [*git, *describe], capture_output=True, text=True, timeout=_PATIENCE, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return asked.stdout.strip() or None


def _datapath() -> str:
    try:
        chosen = datapath.load()
    except datapath.UnknownDatapathError as error:
        return f"datapath: none, {error}"
    note = f"; {chosen.note}" if chosen.note else ""
    return f"datapath: {chosen.name}{note}\ncipher: ChaCha20-Poly1305 of {chosen.cipher}"
