"""The names of routing tables, as `ip` knows them: iproute2's files `rt_tables`."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

FOLDERS: Final = tuple(
    Path(folder) for folder in ("/etc/iproute2", "/usr/share/iproute2", "/usr/lib/iproute2")
)
"""Where iproute2 keeps them, the first before the others; the last two are the distribution's."""

_KERNEL: Final = {"default": 253, "main": 254, "local": 255}


def number_of(name: str) -> int | None:
    """The number of the table of that name; None if no file names it."""
    for known, number in _named():
        if known == name:
            return number
    return _KERNEL.get(name.lower())


def _named() -> Iterator[tuple[str, int]]:
    for folder in FOLDERS:
        more = sorted((folder / "rt_tables.d").glob("*.conf"))
        for path in (folder / "rt_tables", *more):
            with suppress(OSError):
                yield from _entries(path.read_text(encoding="utf-8", errors="replace"))


def _entries(text: str) -> Iterator[tuple[str, int]]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if len(words) >= 2:
            with suppress(ValueError):
                yield words[1], int(words[0], 0)
