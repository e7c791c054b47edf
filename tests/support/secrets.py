"""Where the secrets of a tunnel can be found: in what was written, and in memory."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


def spellings(keys: Mapping[str, str]) -> dict[str, bytes]:
    """Keys in base64 by name, in each form that a program could write: raw, base64 and hex."""
    found: dict[str, bytes] = {}
    for name, text in keys.items():
        raw = base64.b64decode(text)
        # Without its last character, which depends on what follows in a longer text.
        found |= {
            f"{name} raw": raw,
            f"{name} base64": text.encode()[:42],
            f"{name} hex": raw.hex().encode(),
            f"{name} HEX": raw.hex().upper().encode(),
        }
    return found


def secrets_in(data: bytes, keys: Mapping[str, str]) -> list[str]:
    """Which of the keys are in `data`, and how."""
    return [name for name, form in spellings(keys).items() if form in data]


def counted_in_memory(pid: int, keys: Mapping[str, str]) -> dict[str, int]:
    """How often each form of each key is in what the process may write to. Needs root."""
    forms = spellings(keys)
    counts = dict.fromkeys(forms, 0)
    for data in _writable(pid):
        for name, form in forms.items():
            counts[name] += data.count(form)
    return counts


def _writable(pid: int) -> Iterator[bytes]:
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            area = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if area is None:
                continue
            begin, end = int(area[1], 16), int(area[2], 16)
            with contextlib.suppress(OSError):  # what belongs to a device
                memory.seek(begin)
                yield memory.read(end - begin)
