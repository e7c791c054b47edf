"""The agent: does on its host what `tunnel pair` asks for, and undoes it if it hears no `commit`.

Whoever asks may be gone at any time, by a kill or a broken wire. Whatever the reason is why no
request comes, the host is afterwards as it was before.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar, TypeVarTuple

import trio

from tunnel import host
from tunnel.config import PrivateKey
from tunnel.config.files import folders
from tunnel.config.peers import endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.daemon import teardown
from tunnel.daemon.lock import hold
from tunnel.doctor import Options, diagnose, gather
from tunnel.doctor.probing import SMALL, Pinger
from tunnel.errors import AlreadyRunningError, TunnelError
from tunnel.linux.files import RUN_FOLDER, create_file
from tunnel.linux.processes import netns_inode
from tunnel.pair.choosing import taken_networks, taken_ports
from tunnel.pair.messages import (
    MAX_LINE,
    PROTOCOL,
    Hello,
    NewConf,
    PairError,
    Proof,
    Situation,
    line_of,
    message_untrusted,
    object_untrusted,
)
from tunnel.systemd import units

SILENCE = 120.0
"""Seconds without a request after which a host that was changed is put back as it was."""

_OTHERS = 30.0
"""Seconds to wait for another agent on this host to end."""

_PING_EVERY = 0.3
"""Seconds between two echo requests."""

_KNOCKS = 3
"""Datagrams that are sent to see whether one arrives."""


_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class _Gone(Exception):  # noqa: N818  # no error: an order to end
    """Whoever asks is gone, or we have to end."""


class Agent:
    """Serves requests that come by the descriptor `reading`, and replies by `writing`."""

    def __init__(self, version: str, *, reading: int = 0, writing: int = 1) -> None:
        self._version = version
        self._reading, self._writing = reading, writing
        self._buffer = bytearray()
        self._held = contextlib.ExitStack()
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._key: PrivateKey | None = None
        self._written: dict[str, Path] = {}
        self._ears: list[socket.socket] = []
        self._is_alone = self._is_waiting = self._has_to_end = self._is_done = False

    def serve(self) -> None:
        """Serve until `commit`, or else undo everything. Raises PairError for what is no request,
        and everything is undone then, too.
        """
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self._end)
        with self._held:
            try:
                self._say(_hello(self._version).to_json())
                while not self._is_done:
                    self._say(self._answer(self._next()))
            except _Gone:
                pass
            finally:
                # Nothing ends us on this way.
                self._is_waiting = False
                self._close_ears()
                self._undo_all()

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._has_to_end = True
        if self._is_waiting:
            raise _Gone

    def _next(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            self._is_waiting = True
            try:
                if self._has_to_end:
                    raise _Gone
                patience = SILENCE if self._undo else None
                if not select.select([self._reading], [], [], patience)[0]:
                    raise _Gone
            finally:
                self._is_waiting = False
            data = os.read(self._reading, 65536)
            if not data or len(self._buffer) > MAX_LINE:
                raise _Gone
            self._buffer += data
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = rest
        return object_untrusted(bytes(line))

    def _say(self, data: dict[str, Any]) -> None:
        left = line_of(data)
        try:
            while left:
                left = left[os.write(self._writing, left) :]
        except OSError:
            raise _Gone from None

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        number = request.pop("id", None)
        method = self._METHODS.get(str(request.pop("do", "")))
        try:
            if method is None:
                raise PairError("unknown request")
            return {"id": number, "result": method(self, **request)}
        except TunnelError as error:
            return {"id": number, "error": str(error)}
        except OSError as error:
            return {"id": number, "error": error.strerror or str(error)}
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            return {"id": number, "error": f"wrong request: {error}"}

    # What is asked for

    def _look(self, name: str, space: list[str], outside: str) -> dict[str, Any]:
        if os.geteuid() != 0:
            raise PairError("the agent is not root")
        wanted = list(map(ip_network, space))
        if not self._is_alone:
            try:
                # As long as we live: what is free has to stay so until it is taken.
                self._held.enter_context(hold(".pair", patience=_OTHERS))
            except AlreadyRunningError:
                raise PairError("another tunnel pair is at work there; try again later") from None
            self._is_alone = True
        try:
            networks = [str(each) for each in taken_networks() if any(map(each.overlaps, wanted))]
        except OSError as error:
            raise PairError(f"cannot list the routes: {error.strerror}") from None
        return Situation(
            _name_taken(name),
            tuple(networks),
            tuple(sorted(taken_ports())),
            _is_ours(outside),
            str(_folder()),
            _has_ipv6(),
            any(Path("/", where, units.UNIT).exists() for where in _UNIT_FOLDERS),
        ).to_json()

    def _listen(self, port: int) -> None:
        """Open the port, so that `heard` can say what has come."""
        for family, any_address in ((socket.AF_INET, ""), (socket.AF_INET6, "::")):
            with contextlib.suppress(OSError):
                ear = socket.socket(family, socket.SOCK_DGRAM)
                self._ears.append(ear)
                if family == socket.AF_INET6:
                    ear.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                ear.bind((any_address, port))

    def _heard(self, token: str, seconds: float) -> bool:
        """Whether a datagram with the token has come, or does in so many seconds; and stop."""
        ends = time.monotonic() + min(seconds, SILENCE)
        try:
            while (left := ends - time.monotonic()) > 0:
                for ear in select.select(self._ears, [], [], left)[0]:
                    if ear.recv(1024) == token.encode():
                        return True
            return False
        finally:
            self._close_ears()

    def _close_ears(self) -> None:
        for ear in self._ears:
            ear.close()
        self._ears.clear()

    def _knock(self, endpoint: str, port: int, token: str) -> str:
        """Send the token to an endpoint, from a port of its own; why that cannot be, or nothing."""
        try:
            where = endpoint_at(endpoint, port)
            found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_DGRAM)
            with socket.socket(found[0][0], socket.SOCK_DGRAM) as knocking:
                for _ in range(_KNOCKS):
                    knocking.sendto(token.encode(), found[0][4])
        except Mistake as mistake:
            return mistake.fault
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def _make_key(self) -> str:
        """Make the private key, which stays here; the public one."""
        self._key = PrivateKey.from_random(os.urandom(32))
        return self._key.public_key().to_base64()

    def _write(self, conf: dict[str, Any]) -> str:
        """Write the conf; its path."""
        new = message_untrusted(NewConf, conf)
        if self._key is None:
            raise PairError("there is no key")
        text = new.text(self._key)
        if taken := _name_taken(new.name):
            raise PairError(taken)
        folder = _folder()
        path = folder / f"{new.name}.conf"
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, parents=True)
                self._undo.append((f"rmdir {folder}", folder.rmdir))
            create_file(path, text)
        except OSError as error:
            raise PairError(f"cannot write {path}: {error.strerror}") from None
        self._undo.append((f"rm {path}", path.unlink))
        self._written[new.name] = path
        return str(path)

    def _conf(self, name: str) -> Path:
        """The conf of that name, if it was written here: others are none of who asks' business."""
        if name not in self._written:
            raise PairError(f"no conf named {name} was written")
        return self._written[name]

    def _up(self, name: str) -> None:
        path, log = self._conf(name), RUN_FOLDER / f"{name}.log"
        if not log.exists():
            self._undo.append((f"rm {log}", lambda: log.unlink(missing_ok=True)))
        with (
            tempfile.TemporaryFile() as said,
            subprocess.Popen(
                [*units.own_command(), "up", str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
            ) as process,
        ):
            ended = os.pidfd_open(process.pid)
            try:
                if ended not in select.select([self._reading, ended], [], [])[0]:
                    # It undoes what it has done so far.
                    process.send_signal(signal.SIGINT)
            finally:
                os.close(ended)
            status = process.wait()
            said.seek(0)
            text = said.read(1 << 16).decode(errors="replace")
        # One that fails has undone all of its own. If the name is another one's now, that stays.
        if status <= 0:
            self._undo.append((f"tunnel down {name}", lambda: _take_down(name)))
        if status:
            raise PairError(text.strip().removeprefix("tunnel: ") or f"tunnel up: status {status}")

    def _prove(self, name: str, address: str, seconds: float) -> dict[str, Any]:
        """Wait for an answer from an address of the other end."""
        self._conf(name)
        return self._unless_asked(_answers, name, str(ip_address(address)), seconds).to_json()

    def _examine(self, name: str) -> list[str]:
        """What the doctor finds, in words."""
        conf = str(self._conf(name))
        facts = self._unless_asked(gather, name, conf, Options(wait=2.0))
        return [f"{each.what}: {each.remedy}" for each in diagnose(facts).findings]

    def _unless_asked(self, function: Callable[[*_Args], Awaitable[_T]], *arguments: *_Args) -> _T:
        """What an asynchronous function returns. Raises PairError if something else comes first: a
        request, or the end of all requests.
        """

        async def run() -> _T | None:
            found = None
            async with trio.open_nursery() as nursery:

                async def watch() -> None:
                    await trio.lowlevel.wait_readable(self._reading)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(watch)
                found = await function(*arguments)
                nursery.cancel_scope.cancel()
            return found

        found: _T | None = trio.run(run)
        if found is None:
            raise PairError("interrupted")
        return found

    def _commit(self) -> None:
        """Leave everything as it is now."""
        self._undo.clear()
        self._is_done = True

    def _undo_all(self) -> list[str]:
        """Put the host back as it was; what could not be done, as the command to do it."""
        failed = []
        while self._undo:
            command, undo = self._undo.pop()
            try:
                undo()
            except (OSError, TunnelError) as error:
                failed.append(f"{command}   # {error}")
        return failed

    _METHODS: dict[str, Callable[..., object]] = {  # noqa: RUF012
        "look": _look,
        "listen": _listen,
        "heard": _heard,
        "knock": _knock,
        "make_key": _make_key,
        "write": _write,
        "up": _up,
        "prove": _prove,
        "examine": _examine,
        "commit": _commit,
        "undo": _undo_all,
    }


_UNIT_FOLDERS = (units.UNIT_FOLDER, units.PACKAGED_FOLDER)


def _hello(version: str) -> Hello:
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    inode = netns_inode("/proc/self/ns/net")
    return Hello(version, PROTOCOL, socket.gethostname().partition(".")[0], f"{boot} {inode}")


def _folder() -> Path:
    return folders()[0]


def _name_taken(name: str) -> str:
    try:
        check_name(name)
    except Mistake as mistake:
        return f"the name of an interface {mistake.fault}"
    for folder in folders():
        if os.path.lexists(folder / f"{name}.conf"):
            return f"{folder / name}.conf is there already"
    if name in run_folder.running_names():
        return f"a tunnel named {name} is running"
    if host.describe_link(name) is not None:
        return f"an interface named {name} is there already"
    return ""


def _is_ours(address: str) -> bool:
    """Whether the address, if it is one that others can reach, is one of this host."""
    try:
        ip = ip_address(address)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_DGRAM) as bound:
            bound.bind((address, 0))
    except (OSError, ValueError):
        return False
    return not ip.is_link_local and not ip.is_loopback


def _has_ipv6() -> bool:
    """Whether a new interface can have IPv6 addresses."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").read_text().strip() == "0"
    return False


def _take_down(name: str) -> None:
    done = teardown.take_down(name)
    if done.failures:
        raise PairError("; ".join(done.failures))


async def _answers(name: str, address: str, seconds: float) -> Proof:
    ping = 0.0
    with contextlib.suppress(OSError):
        async with Pinger.opened(name) as pinger:
            ends = trio.current_time() + seconds
            # The first answer may have waited for a handshake: what is measured is a later one.
            for size in (SMALL, SMALL + 4):
                while not pinger.has_answered(address, size) and trio.current_time() < ends:
                    sent = trio.current_time()
                    await pinger.send(address, size)
                    if await pinger.wait_for_answer(address, size, _PING_EVERY):
                        ping = trio.current_time() - sent
    with TunnelClient(name) as client:
        peers = client.status().peers
    return Proof(any(peer.latest_handshake for peer in peers), ping)
