"""Where the sockets of running daemons are."""

from __future__ import annotations

from pathlib import Path

from tunnel.linux.files import RUN_FOLDER


def socket_path(name: str) -> Path:
    """Where the daemon of interface `name` listens."""
    return RUN_FOLDER / f"{name}.sock"


def metrics_path(name: str) -> Path:
    """Where the daemon of interface `name` shows its metrics, which are not in JSON."""
    return RUN_FOLDER / f"{name}.metrics"


def running_names() -> list[str]:
    """Names of the interfaces whose control sockets exist, sorted; some may be stale."""
    return sorted(path.stem for path in RUN_FOLDER.glob("*.sock"))
