"""What a process gives up; what it may not give up raises. As any user."""

from __future__ import annotations

import resource
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


LOCK = """
import resource, sys
from tunnel.linux import rights
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, int(sys.argv[1])))
try:
    rights.keep_memory_from_swap()
except OSError as error:
    print(error.strerror)
print(rights.held_by().locked, resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
bytearray(100_000_000)
"""


def locked(hard: int) -> list[str]:
    command = [sys.executable, "-c", LOCK, str(hard)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")


def test_memory_is_kept_from_swap_where_the_limit_can_be_lifted() -> None:
    """With a limit, it is left alone: memory that is there could not be had."""
    held = rights.held_by()
    assert held is not None
    may_lift = rights.Capability.SYS_RESOURCE in held.capabilities
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in (hard, 65536):
        if may_lift or limit == resource.RLIM_INFINITY:
            assert locked(limit)[0] == f"True {resource.RLIM_INFINITY}"
        else:
            assert locked(limit)[:2] == ["Operation not permitted", "False 4096"]


def test_memory_is_left_alone_where_the_right_is_that_of_a_user_namespace() -> None:
    enter = """
import ctypes
CLONE_NEWUSER = 0x10000000
resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 65536))
if ctypes.CDLL(None).unshare(CLONE_NEWUSER):
    print("none")
    sys.exit()
"""
    program = LOCK.replace("import resource, sys\n", "import resource, sys\n" + enter)
    command = [sys.executable, "-c", program, "65536"]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    if done[0] == "none":
        pytest.skip("no user namespace may be made here")
    assert done[:2] == ["Operation not permitted", "False 4096"]


def test_what_is_in_reserve_is_had_in_the_body_and_no_longer() -> None:
    program = """
from tunnel.linux import rights
from tunnel.linux.rights import Capability, raised
own = rights.held_by().capabilities
some = set(sorted(own)[:2])
rights.give_up_all_but((), some) if Capability.SETPCAP in own else None
for wanted in some:
    with raised(Capability(wanted)):
        print(wanted in rights.held_by().capabilities)
    print(rights.held_by().capabilities == (frozenset() if Capability.SETPCAP in own else own))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"True"}


def test_capabilities_have_the_names_of_the_kernel() -> None:
    assert rights.names_of({0, 12, 40, 63}) == ("CHOWN", "NET_ADMIN", "CHECKPOINT_RESTORE", "63")
