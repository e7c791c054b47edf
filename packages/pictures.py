"""Pictures of a terminal for the documentation, of real runs: `python -m packages.pictures`.

Two hosts of a lab; each scene types commands on one of them, and what they print on a terminal of
80 columns becomes an SVG in docs/pictures. As root.
"""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from tunnel.lab import Host, Lab
from tunnel.lab.building import build
from tunnel.lab.plans import PAIR

FOLDER: Final = Path(__file__).parents[1] / "docs" / "pictures"
COLUMNS: Final = 80

# A picture asks no other host for a font.
_FORMAT: Final = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL).replace(
    "font-family: Fira Code,", "font-family: ui-monospace, DejaVu Sans Mono,"
)


@dataclass(frozen=True)
class Scene:
    """Commands typed on a host, of which those in `hidden` come first and are not shown."""

    name: str
    host: str
    commands: tuple[str, ...]
    hidden: tuple[str, ...] = ()


SCENES: Final = (
    Scene("trace", "A", ("tunnel trace icmp -- ping -c 1 10.77.0.2",)),
    Scene(
        "doctor",
        "B",
        ("tunnel doctor",),
        hidden=(
            "nft add table inet site",
            "nft add chain inet site in '{ type filter hook input priority 0; }'",
            "nft add rule inet site in udp dport 51820 drop",
            # Something has to come for the doctor to see it.
            "tunnel lab --enter A -- ping -c 1 -w 1 10.77.0.2",
        ),
    ),
)


def draw(folder: Path) -> Iterator[Path]:
    """Make the pictures in the folder; the path of each."""
    folder.mkdir(exist_ok=True)
    with Lab() as lab:
        built = build(lab, PAIR.with_keys())
        built.up()
        for scene in SCENES:
            host = built.hosts[scene.host]
            for command in scene.hidden:
                _type(host, command)
            console = Console(record=True, width=COLUMNS, file=io.StringIO())
            for command in scene.commands:
                console.print(Text.assemble((f"{scene.host}# ", "bold green"), command))
                console.print(Text.from_ansi(_type(host, command)), overflow="fold")
            path = folder / f"{scene.name}.svg"
            console.save_svg(
                str(path), title=f"host {scene.host}", code_format=_FORMAT, unique_id=scene.name
            )
            yield path


def _type(host: Host, command: str) -> str:
    """What a command prints on a terminal of its own."""
    ours, theirs = pty.openpty()
    command = re.sub(r"(^|-- )tunnel ", rf"\1{sys.executable} -m tunnel ", command)
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
    environment |= {"PYTHONPATH": os.getcwd(), "TUNNEL_LAB": host.netns.split("-")[1]}
    process = subprocess.Popen(
        [*host.enter_command(), "sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    os.close(theirs)
    printed = bytearray()
    # A terminal that nobody has open any more gives EIO.
    with contextlib.suppress(OSError):
        while block := os.read(ours, 65536):
            printed += block
    os.close(ours)
    process.wait()
    # What is said while it works is erased before the result.
    text = printed.decode().rpartition("\x1b[2K")[2]
    return text.replace("\r\n", "\n").rstrip()


if __name__ == "__main__":
    for drawn in draw(FOLDER):
        sys.stdout.write(f"{drawn}\n")
