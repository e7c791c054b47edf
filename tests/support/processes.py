"""What the kernel knows of a process."""

from __future__ import annotations

import re
from pathlib import Path

_RSS = re.compile(r"^VmRSS:\s+(\d+) kB$", re.MULTILINE)


def resident_kb(pid: int) -> int:
    """Its resident memory in units of 1,024 bytes. Raises LookupError when it has ended."""
    try:
        found = _RSS.search(Path(f"/proc/{pid}/status").read_text())
    except (FileNotFoundError, ProcessLookupError):
        found = None
    if found is None:
        raise LookupError(f"process {pid} has ended")
    return int(found[1])
