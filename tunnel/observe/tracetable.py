"""The temporary nftables table that makes the kernel tell of our packets, and of no others.

One chain first and one last at each of netfilter's five hooks. The first ones set `meta nftrace 1`
on packets into and out of the tunnel that the filter lets through, and on our own outer UDP; from
there on the kernel reports every rule that a marked packet meets. The last ones have no rule: that
their policy is reported says that a packet left the hook, with the addresses it left with.

The table belongs to the netlink socket of an `nft -i` that we keep open (`flags owner`): when its
input ends, be it that we were killed, it goes, and the kernel takes the table with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import string
import subprocess
from collections.abc import AsyncIterator, Iterator

import trio

from tunnel.observe.filter import Filter

PREFIX = "tunnel-trace-"
FIRST, LAST = -310, 310
"""Priorities: before connection tracking and raw (-300), after everything but its confirmation."""

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
INNER_RATE, OUTER_RATE = 50, 200
"""Packets a second that a rule marks at most: each costs two dozen messages to user space."""

_PLAIN = frozenset(string.ascii_letters + string.digits + "_.-")
_START_SECONDS = 10.0
_END_SECONDS = 5.0


class TraceTableError(Exception):
    """The table could not be made; the text says why and what to do."""


def table_name(interface: str) -> str:
    """Our table's name for a trace of `interface` by this process."""
    safe = (letter if letter in _PLAIN else f"/{ord(letter):x}" for letter in interface)
    return f"{PREFIX}{''.join(safe)}-{os.getpid()}"


def render(table: str, interface: str, port: int, wanted: Filter) -> str:
    """The table as commands of nft, one a line. `port` is the UDP port of the tunnel."""
    lines = [f"add table inet {table} {{ flags owner; }}"]
    for hook in HOOKS:
        for place, priority in (("first", FIRST), ("last", LAST)):
            base = f"type filter hook {hook} priority {priority}; policy accept;"
            lines.append(f"add chain inet {table} {place}-{hook} {{ {base} }}")
    for hook in HOOKS:
        for match, rate in _matches(hook, interface, port, wanted):
            limit = f"limit rate {rate}/second burst {2 * rate} packets"
            lines.append(f"add rule inet {table} first-{hook} {match} {limit} meta nftrace set 1")
    return "".join(f"{line}\n" for line in lines)


def _matches(hook: str, interface: str, port: int, wanted: Filter) -> Iterator[tuple[str, int]]:
    """What is to be marked at a hook, and how much of it a second."""
    comes, goes = f'iifname "{interface}"', f'oifname "{interface}"'
    inner = {
        # Where a packet will leave is not decided yet: ask the routing tables.
        "prerouting": (comes, f'fib daddr . mark oifname "{interface}"'),
        "input": (comes,),
        "forward": (comes, goes),
        "output": (goes,),
        "postrouting": (goes,),
    }
    for side in inner[hook]:
        for alternative in wanted.nft():
            yield f"{side} {alternative}".rstrip(), INNER_RATE
    if hook in ("prerouting", "input"):
        yield f"{comes.replace('iifname', 'iifname !=')} udp dport {port}", OUTER_RATE
    elif hook in ("output", "postrouting"):
        yield f"{goes.replace('oifname', 'oifname !=')} udp sport {port}", OUTER_RATE


@contextlib.asynccontextmanager
async def trace_table(interface: str, port: int, wanted: Filter) -> AsyncIterator[str]:
    """The table for the time of the `async with`; its name. Raises TraceTableError."""
    if shutil.which("nft") is None:
        raise TraceTableError("the program nft is missing: apt-get install nftables")
    name = table_name(interface)
    # A session of its own: ^C at the terminal ends us, and we end it when all is read.
    process = await trio.lowlevel.open_process(
        ["nft", "-i"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        await _make(process, name, render(name, interface, port, wanted))
        yield name
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


async def _make(process: trio.Process, name: str, commands: str) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    said = b""
    with trio.move_on_after(_START_SECONDS), contextlib.suppress(trio.BrokenResourceError):
        await process.stdin.send_all(f"{commands}list table inet {name}\n".encode())
        # The listing comes last, and ends with a brace at the start of a line.
        while b"\n}" not in said and b"Error" not in said:
            data = await process.stdout.receive_some()
            if not data:
                break
            said += data
    text = said.decode(errors="replace").strip()
    if b"\n}" not in said:
        raise TraceTableError(_reason(text))


def _reason(text: str) -> str:
    first = next((line for line in text.splitlines() if "Error" in line), text)
    if "Operation not permitted" in text or "cache initialization" in text:
        return f"nft refused ({first}): run it as root (sudo)"
    if "owner" in text or "syntax" in text:
        return f"nft refused ({first}): tracing needs nftables 1.0 and Linux 5.12, or newer"
    return f"nft refused: {first or 'it said nothing'}"


async def _end(process: trio.Process) -> None:
    assert process.stdin is not None
    await process.stdin.aclose()
    with trio.move_on_after(_END_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()
