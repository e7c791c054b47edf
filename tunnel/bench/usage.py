"""What processes have used of the machine: CPU time by the nanosecond, and memory."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

_RSS = re.compile(r"^VmRSS:\s+(\d+) kB", re.MULTILINE)
_NANOSECONDS = 1e9


@dataclass(frozen=True)
class Cpu:
    """The CPU time that each thread of some processes had used at one moment.

    By /proc/PID/task/TID/schedstat: the ticks of /proc/PID/stat are as long as fifty pings.
    """

    pids: tuple[int, ...]
    used: dict[tuple[int, str], int]
    proc: Path

    @classmethod
    def of(cls, pids: Iterable[int], proc: Path = PROC) -> Cpu:
        """The times now. A process or thread that has ended is left out."""
        chosen = tuple(pids)
        used = {}
        for pid in chosen:
            with contextlib.suppress(OSError):
                for task in (proc / f"{pid}/task").iterdir():
                    with contextlib.suppress(OSError):
                        used[pid, task.name] = int((task / "schedstat").read_text().split()[0])
        return cls(chosen, used, proc)

    def seconds_since(self) -> float:
        """What the same processes have used since, in seconds, in threads that still run."""
        now = Cpu.of(self.pids, self.proc).used
        return sum(time - self.used.get(key, 0) for key, time in now.items()) / _NANOSECONDS


def rss_mib(pids: Iterable[int], proc: Path = PROC) -> float:
    """Resident memory of the processes in MiB; those that have ended count nothing."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = _RSS.search((proc / f"{pid}/status").read_text())
            total += int(found[1]) if found else 0
    return total / 1024
