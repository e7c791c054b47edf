"""What a process gives up; what it may not give up raises. As any user."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from tunnel.linux import rights

HIDE = """
import ctypes, resource
from tunnel.linux import rights
libc = ctypes.CDLL(None)
PR_GET_DUMPABLE = 3
before = libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0)
rights.hide_memory()
print(before, libc.prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


def test_the_memory_of_a_process_is_hidden() -> None:
    done = subprocess.run([sys.executable, "-c", HIDE], capture_output=True, text=True, check=True)
    assert done.stdout == "1 0 0\n"


def test_rights_that_a_second_thread_would_keep_are_not_given_up() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="another thread"):
            rights.give_up_all_but(())
    finally:
        over.set()
        thread.join()
