"""What of a process's memory goes, and what stays. As any user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.linux.memory import _CLEAN

PAGES = 8
"""So few that any limit of locked memory lets a user lock them."""

MADV_DONTNEED_LOCKED = 24

PROGRAM = f"""
import ctypes, mmap, sys
from pathlib import Path
from tunnel.linux.memory import release_unused

libc = ctypes.CDLL(None)
size = {PAGES} * mmap.PAGESIZE
path = Path(sys.argv[1])
path.write_bytes(b"x" * size)
with path.open("r+b") as file:
    memory = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
address = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory)))

def resident():
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    for line in lines:
        if line.endswith(str(path)):
            return next(int(each.split()[1]) for each in lines if each.startswith("Rss:"))

if "written" in sys.argv:
    memory[-1:] = b"y"
if "writable" not in sys.argv:
    # As the linker does with what it has relocated.
    assert libc.mprotect(address, ctypes.c_size_t(size), mmap.PROT_READ) == 0
if "locked" in sys.argv:
    if libc.madvise(address, ctypes.c_size_t(0), {MADV_DONTNEED_LOCKED}):
        sys.exit(0)  # before Linux 5.18
    assert libc.mlock(address, ctypes.c_size_t(size)) == 0
assert b"x" in memory[:: mmap.PAGESIZE]  # each page is read
before = resident()
release_unused()
print(before * 1024 == size, resident() * 1024 == size, memory[-2:])
"""


@pytest.mark.parametrize(
    ("how", "stays", "ends"),
    [
        ((), False, b"xx"),
        (("locked",), False, b"xx"),
        (("written",), True, b"xy"),
        (("writable",), True, b"xx"),
    ],
)
def test_only_pages_that_are_as_in_their_file_go(
    tmp_path: Path, how: tuple[str, ...], stays: bool, ends: bytes
) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "file"), *how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    if "locked" in how and not done.stdout:
        pytest.skip("this kernel lets no locked page go")
    assert done.stdout == f"True {stays} {ends!r}\n"


MAPPING = """\
7f10a0000000-7f10a0004000 r--p 00000000 08:01 1234                       /usr/lib/libssl.so.3
Size:                 16 kB
Rss:                   0 kB
Anonymous:             {} kB
AnonHugePages:         0 kB
Swap:                  {} kB
SwapPss:               0 kB
VmFlags: rd mr mw me sd
"""


@pytest.mark.parametrize("swapped", [4, 16])
def test_what_was_written_and_then_swapped_out_stays(swapped: int) -> None:
    """As in /proc/PID/smaps, for not every machine has swap space."""
    text = MAPPING.format(0, swapped) + MAPPING.format(4, 0) + MAPPING.format(0, 0)
    (found,) = _CLEAN.finditer(text.encode())
    assert found.start() == text.rindex("7f10a0000000-")
