"""The temporary nftables table that makes the kernel report our packets, and no others.

One chain first and one last at each of netfilter's five hooks. The first ones set `meta nftrace 1`
on packets into and out of the tunnel that the filter lets through, and on our own outer UDP; from
there on the kernel reports every rule that a marked packet meets. The last ones have no rule: that
their policy is reported says that a packet left the hook, with the addresses it left with.

The table belongs to the netlink socket of an `nft -i` that we keep running (`flags owner`). When
its input ends, also because we were killed, it exits, and the kernel removes the table.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import string
import subprocess
from collections.abc import AsyncIterator, Iterator

import trio

from tunnel.errors import TunnelError
from tunnel.linux.netns import entering
from tunnel.packet.filter import Filter
from tunnel.packet.headers import TRANSPORT_DATA

PREFIX = "tunnel-trace-"
FIRST, LAST = -310, 310
"""Priorities: before connection tracking and raw (-300), after everything but its confirmation."""

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
INNER_RATE, OUTER_RATE, HANDSHAKE_RATE = 50, 200, 10
"""Packets a second that a rule marks at most: each costs two dozen messages to user space.

Datagrams without data have a rate of their own, so that forged handshakes do not use up
that of data.
"""

_PLAIN = frozenset(string.ascii_letters + string.digits + "_.-")
_START_SECONDS = 10.0
_END_SECONDS = 5.0


class TraceTableError(TunnelError):
    """The table could not be made; the text says why and what to do."""

    code = "trace"


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
    return "".join(f"{line}\n" for line in lines) + render_rules(table, interface, port, wanted)


def render_rules(table: str, interface: str, port: int, wanted: Filter) -> str:
    """The rules alone, in place of those that there are."""
    lines = []
    for hook in HOOKS:
        lines.append(f"flush chain inet {table} first-{hook}")
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
    # Only what is for this host or from it: others' tunnels may pass through, to the same port.
    if hook in ("prerouting", "input"):
        outer = f'iifname != "{interface}" fib daddr type local udp dport {port}'
    elif hook in ("output", "postrouting"):
        outer = f'oifname != "{interface}" fib saddr type local udp sport {port}'
    else:
        return
    for operator, rate in (("==", OUTER_RATE), ("!=", HANDSHAKE_RATE)):
        yield f"{outer} @th,64,8 {operator} {TRANSPORT_DATA}", rate


class TraceTable:
    """The table that there is, in the hands of a running nft."""

    def __init__(self, process: trio.Process, interface: str, wanted: Filter) -> None:
        self.name = table_name(interface)
        self._process = process
        self._interface = interface
        self._wanted = wanted

    async def follow(self, port: int) -> None:
        """Mark the datagrams of another port instead. Raises TraceTableError."""
        await self._command(render_rules(self.name, self._interface, port, self._wanted))

    async def make(self, port: int) -> None:
        """Let nft create it. Raises TraceTableError."""
        await self._command(render(self.name, self._interface, port, self._wanted))

    async def _command(self, commands: str) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        said = b""
        gone = (trio.BrokenResourceError, trio.ClosedResourceError)
        with trio.move_on_after(_START_SECONDS), contextlib.suppress(*gone):
            listing = f"list table inet {self.name}\n"
            await process.stdin.send_all(f"{commands}{listing}".encode())
            # The listing comes last, and ends with a brace at the start of a line.
            while b"\n}" not in said and b"Error" not in said:
                data = await process.stdout.receive_some()
                if not data:
                    break
                said += data
        text = said.decode(errors="replace").strip()
        if b"\n}" not in said:
            raise TraceTableError(_reason(text))


@contextlib.asynccontextmanager
async def trace_table(
    interface: str, port: int, wanted: Filter, seconds: float, netns: str = ""
) -> AsyncIterator[TraceTable]:
    """The table for the time of the `async with`, in the network namespace at the path `netns` if
    that is given. Raises TraceTableError.

    After `seconds` it is removed even if we were stopped and cannot do it.
    """
    if shutil.which("nft") is None:
        raise TraceTableError("the program nft is missing: apt-get install nftables")
    # A session of its own: ^C at the terminal ends us, and we end it when all is read.
    process = await trio.lowlevel.open_process(
        [*_deadline(seconds), "nft", "-i"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=entering(netns),
    )
    try:
        table = TraceTable(process, interface, wanted)
        await table.make(port)
        yield table
    finally:
        with trio.CancelScope(shield=True):
            await _end(process)


def _deadline(seconds: float) -> list[str]:
    """Ends what follows after that time, and lives without us; part of coreutils and busybox."""
    return [] if shutil.which("timeout") is None else ["timeout", str(math.ceil(seconds))]


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
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.stdout is not None:
        await process.stdout.aclose()
