"""What the kernel knows of a process."""

from __future__ import annotations

import re
from pathlib import Path


def resident_kb(pid: int, kind: str = "VmRSS") -> int:
    """Its resident memory in units of 1,024 bytes, or a part of it, as /proc/PID/status names it.

    Raises LookupError when it has ended.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text()
        found = re.search(rf"^{kind}:\s+(\d+) kB$", text, re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        found = None
    if found is None:
        raise LookupError(f"process {pid} has ended")
    return int(found[1])
