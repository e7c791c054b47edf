"""A WireGuard program with wireguard-go's command line, run in a network namespace.

Each attempt has a process of its own with an interface of its own, all in one namespace; the peers
are sockets on loopback addresses there. Packets of applications are written to the interface, and
read from it, by an AF_PACKET socket: it has no addresses, so that the machine's stack says nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tunnel.lab import Host, HostProcess, LabError

from .subject import SubjectError, Wire
from .wire import Arrival, family_of

STARTS_AT_ONCE = 2
START_SECONDS = 60.0
ANSWER_SECONDS = 20.0
MTU = 1420
_PORT = 20000
_ETH_P = {0: 0x0800, 4: 0x0800, 6: 0x86DD}
_ETH_P_ALL = 0x0003
_UDP_SEGMENT = 103
_SEGMENTS = 64
_AT_ONCE = 256
"""Datagrams or packets that are read in a turn."""

_ENVIRONMENT = {
    "LOG_LEVEL": "error",
    # BoringTun and GotaTun would become the user who called sudo, and write a log where all write.
    "WG_SUDO": "true",
    "WG_LOG_FILE": os.devnull,
    "WG_LOG_LEVEL": "error",
}


class UdpWire:
    """A UDP socket in the namespace of the subject."""

    def __init__(self, sock: socket.socket, target: tuple[str, int]) -> None:
        self.address, self.port = sock.getsockname()[:2]
        self._target = target
        self._level, self._tos = (
            (socket.IPPROTO_IP, socket.IP_TOS)
            if sock.family is socket.AF_INET
            else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
        )
        received = socket.IP_RECVTOS if self._level == socket.IPPROTO_IP else socket.IPV6_RECVTCLASS
        sock.setsockopt(self._level, received, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._raw = sock
        self._sock = trio.socket.from_stdlib_socket(sock)

    async def send(self, data: bytes, *, tos: int = 0) -> None:
        control = [(self._level, self._tos, struct.pack("i", tos))] if tos else []
        await self._sock.sendmsg([data], control, 0, self._target)

    async def send_many(self, data: bytes, count: int) -> None:
        control = [(socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("H", len(data)))]
        for start in range(0, count, _SEGMENTS):
            part = data * min(_SEGMENTS, count - start)
            await self._sock.sendmsg([part], control, 0, self._target)

    async def receive(self) -> list[Arrival]:
        found: list[Arrival] = []
        while not found:
            await trio.lowlevel.wait_readable(self._raw)
            # All at once: with many subjects a turn of the event loop takes long.
            with contextlib.suppress(BlockingIOError):
                while len(found) < _AT_ONCE:
                    data, control, _, _ = self._raw.recvmsg(65536, 64)
                    tos = next((item[2][0] for item in control if item[0] == self._level), 0)
                    found.append(Arrival(trio.current_time(), data, tos))
        return found

    def close(self) -> None:
        self._sock.close()


class RunningProgram:
    """One process, its interface `name` and its UAPI."""

    def __init__(self, host: Host, process: HostProcess, name: str, port: int) -> None:
        self._host = host
        self._process = process
        self._name = name
        self._port = port
        self._socket = f"/proc/{host.pid}/root/run/wireguard/{name}.sock"
        self._tap: socket.socket | None = None
        self._inner: trio.socket.SocketType | None = None
        self._send, self.delivered = trio.open_memory_channel[tuple[float, bytes]](10_000)

    async def begin(self) -> None:
        """Wait for the UAPI, set the port, and bring the interface up."""
        with trio.move_on_after(START_SECONDS) as scope:
            while not await self._is_served():
                self.check()
                await trio.sleep(0.05)
        if scope.cancelled_caught:
            raise SubjectError(f"no UAPI within {START_SECONDS:g} s")
        answer = await self.uapi(f"set=1\nlisten_port={self._port}\n\n")
        if "errno=0" not in answer:
            raise SubjectError(f"listen_port was answered by {answer.strip()!r}")
        await self._ip(f"link set {self._name} mtu {MTU} up")
        sock = self._host.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        sock.bind((self._name, _ETH_P_ALL))
        self._tap = sock
        self._inner = trio.socket.from_stdlib_socket(sock)

    async def _ip(self, line: str) -> None:
        try:
            await trio.to_thread.run_sync(self._host.ip, line)
        except LabError as error:
            raise SubjectError(str(error)) from None

    async def set_link(self, *, up: bool) -> None:
        await self._ip(f"link set {self._name} {'up' if up else 'down'}")

    async def _is_served(self) -> bool:
        try:
            stream = await trio.open_unix_socket(self._socket)
        except OSError:
            return False
        await stream.aclose()
        return True

    async def take(self) -> None:
        """Take what it delivers, until cancelled."""
        assert self._tap is not None
        while True:
            await trio.lowlevel.wait_readable(self._tap)
            try:
                for _ in range(_AT_ONCE):
                    data, address = self._tap.recvfrom(65536)
                    # What is injected is seen, too.
                    if address[2] != socket.PACKET_OUTGOING:
                        self._send.send_nowait((trio.current_time(), data))
            except OSError:
                # Nothing more, or the interface is down or gone: that is said once.
                continue

    def check(self) -> None:
        if (status := self._process.returncode) is not None:
            raise SubjectError(f"the program ended with status {status}")

    async def uapi(self, request: str) -> str:
        answer = b""
        try:
            with trio.fail_after(ANSWER_SECONDS):
                async with await trio.open_unix_socket(self._socket) as stream:
                    await stream.send_all(request.encode())
                    while not answer.endswith(b"\n\n"):
                        part = await stream.receive_some(1 << 16)
                        if not part:
                            break
                        answer += part
        except (trio.TooSlowError, trio.BrokenResourceError, OSError) as error:
            self.check()
            raise SubjectError(f"the UAPI does not answer: {error!r}") from None
        return answer.decode("utf-8", "replace")

    async def inject(self, inner: bytes) -> None:
        assert self._inner is not None
        protocol = _ETH_P.get(inner[0] >> 4 if inner else 0, _ETH_P[0])
        try:
            await self._inner.sendto(inner, (self._name, protocol))
        except OSError as error:
            # An interface is gone a moment before its program.
            await trio.sleep(0.5)
            self.check()
            raise SubjectError(f"the interface takes no packet: {error.strerror}") from None

    async def open_wire(self, address: str, port: int = 0) -> Wire:
        family = family_of(address)
        sock = self._host.socket(family, socket.SOCK_DGRAM)
        sock.bind((address, port))
        target = "127.0.0.1" if family is socket.AF_INET else "::1"
        return UdpWire(sock, (target, self._port))

    async def close(self) -> None:
        """End the process."""
        if self._inner is not None:
            self._inner.close()
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._process.stop, 5.0)


class Program:
    """What is started for each attempt: `command` is a program on the PATH or a path."""

    def __init__(self, host: Host, command: str) -> None:
        found = shutil.which(command) or shutil.which(command, path=Path(sys.executable).parent)
        if found is None:
            raise SubjectError(f"no such program: {command}")
        self.path = found
        self.name = Path(found).name
        self._host = host
        self._starting = trio.CapacityLimiter(STARTS_AT_ONCE)
        host.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")

    def version(self) -> str:
        """What `--version` says, without the name; empty if it says nothing of the kind."""
        done = self._host.run([self.path, "--version"], check=False)
        found = re.search(r"v?\d+\.\d[\w.+-]*", done.stdout + done.stderr)
        return found[0].removeprefix("v") if found else ""

    @asynccontextmanager
    async def make_subject(self, number: int) -> AsyncIterator[RunningProgram]:
        """A process for one attempt. Raises SubjectError if it does not start."""
        name = f"wg{number}"
        async with self._starting:
            process = await trio.to_thread.run_sync(self._start, name)
            running = RunningProgram(self._host, process, name, _PORT + number)
            try:
                await running.begin()
            except BaseException:
                await running.close()
                raise
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(running.take)
                yield running
                nursery.cancel_scope.cancel()
        finally:
            await running.close()

    def _start(self, name: str) -> HostProcess:
        return self._host.popen([self.path, "-f", name], environment=_ENVIRONMENT)
