"""The folder of units that a booted systemd knows: ours as installed, and what it leans on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tunnel.systemd import units

EMPTY_TARGETS = ("sysinit", "basic", "shutdown", "network-online", "nss-lookup", "sockets")
JOURNAL = ("systemd-journald.service", "systemd-journald.socket")
SYSTEM_UNITS = Path("/lib/systemd/system")

ENVIRONMENT = ("PYTHONPATH=/mnt/source:/mnt/packages", "LD_LIBRARY_PATH=/mnt/python/lib")
"""What the test needs more than an installed program: where the source is, and libpython."""


def write(folder: Path, command: Sequence[str], lines: str = "", names: Sequence[str] = ()) -> None:
    """Fill `folder`. `lines` are more of section [Service], `names` the drop-ins to be there."""
    for file in (units.UNIT, units.TARGET):
        (folder / file).write_text(units.render(file, command))
    for name in EMPTY_TARGETS:
        text = f"[Unit]\nDescription={name}\nDefaultDependencies=no\n"
        (folder / f"{name}.target").write_text(text)
    (folder / "lab.target").write_text(
        f"[Unit]\nDefaultDependencies=no\nWants={JOURNAL[1]} tunnel.target\nAfter={JOURNAL[1]}\n"
    )
    for name in JOURNAL:
        shutil.copy(SYSTEM_UNITS / name, folder / name)
    drop_ins = folder / "tunnel@.service.d"
    drop_ins.mkdir()
    environment = " ".join(ENVIRONMENT)
    (drop_ins / "test.conf").write_text(f"[Service]\nEnvironment={environment}\n{lines}\n")
    for name in names:
        (drop_ins / f"{name}.conf").write_text(units.drop_ins()[name].text)
    os.chmod(folder, 0o755)
