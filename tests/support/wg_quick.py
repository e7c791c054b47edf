"""Debian's wg-quick in a host of the lab."""

from __future__ import annotations

from pathlib import Path

from tunnel.lab import Host


def quick(host: Host, script: str, command: str, conf: Path) -> str:
    """What wg-quick says."""
    environment = {"WG_QUICK_USERSPACE_IMPLEMENTATION": script}
    result = host.run(["wg-quick", command, str(conf)], environment=environment)
    return result.stdout + result.stderr


def write(host: Host, text: str) -> Path:
    path = host.directory / "wg0.conf"
    path.write_text(text)
    path.chmod(0o600)
    return path
