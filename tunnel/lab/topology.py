"""Labs: hosts, and how they are joined.

    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
        a.ping("192.0.2.2")

Every call blocks and may be made from any thread. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN: root,
or an ordinary user after `tunnel.lab.rootless.enter_user_namespace`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TypeVar

from tunnel.lab import state
from tunnel.lab.errors import LabError
from tunnel.lab.host import Host
from tunnel.lab.namespace import start_time
from tunnel.lab.weather import Faults
from tunnel.lab.wire import READY, command

_H = TypeVar("_H", bound=Host)


@dataclass(frozen=True)
class Cable:
    """A veth pair between two hosts, and the names of its two ends."""

    a: Host
    b: Host
    a_interface: str
    b_interface: str


class Router(Host):
    """A host that forwards packets, IPv4 and IPv6."""

    def enable_forwarding(self) -> None:
        """Switch forwarding on; `lab.router` has done it."""
        self.set_sysctl("net.ipv4.ip_forward", "1")
        self.set_sysctl("net.ipv6.conf.all.forwarding", "1")


class Switch(Host):
    """A bridge in a namespace of its own; hosts are plugged in by `attach`."""

    BRIDGE = "br0"

    def make_bridge(self) -> None:
        """Make the bridge; `lab.switch` has done it."""
        # Without forward_delay 0 a new port forwards nothing for 15 seconds.
        self.ip(f"link add {self.BRIDGE} type bridge forward_delay 0", f"link set {self.BRIDGE} up")

    def attach(self, host: Host, addresses: Iterable[str] = (), *, mtu: int = 1500) -> str:
        """Plug `host` in and return the name of its new interface."""
        link = _join(host, self, addresses, (), mtu)
        self.ip(f"link set {link.b_interface} master {self.BRIDGE}")
        return link.a_interface


class Lab:
    """Hosts and links that exist while the `with` block runs, and leave nothing behind.

    Teardown also happens at SIGTERM and SIGHUP (where the program has no handler of its own)
    and at exit. When the owner is killed outright, the holders end what runs in the hosts, and
    the next Lab removes the names that are left.
    """

    def __init__(self) -> None:
        self.id = secrets.token_hex(3)
        self._lock = threading.RLock()
        self._hosts: dict[str, Host] = {}
        self._closed = False
        self._handlers: dict[signal.Signals, object] = {}
        state.sweep()
        self.directory = Path(tempfile.mkdtemp(prefix=f"tunnel-lab-{self.id}-"))
        start = start_time(os.getpid())
        assert start is not None
        self._state = state.LabState(self.id, os.getpid(), start, str(self.directory))
        self._state.write()
        atexit.register(self.close)

    # Parts

    def host(self, name: str) -> Host:
        """A new host. `name` is short and unique in this lab."""
        return self._add(Host, name)

    def router(self, name: str) -> Router:
        """A new host that forwards."""
        router = self._add(Router, name)
        router.enable_forwarding()
        return router

    def switch(self, name: str) -> Switch:
        """A new switch."""
        switch = self._add(Switch, name)
        switch.make_bridge()
        return switch

    def _add(self, kind: type[_H], name: str) -> _H:
        with self._lock:
            if self._closed:
                raise LabError(f"lab {self.id} has been taken down")
            if name in self._hosts:
                raise LabError(f"lab {self.id} has a host {name!r} already")
            netns = f"{state.PREFIX}{self.id}-{name}"
            host = kind(name, netns=netns, lab_id=self.id, directory=self.directory / name)
            self._hosts[name] = host
            started = start_time(host.pid)
            assert started is not None
            self._state.holders[name] = (host.pid, started)
            self._state.write()
        return host

    @property
    def hosts(self) -> list[Host]:
        """All hosts, in the order in which they were made."""
        return list(self._hosts.values())

    def link(
        self,
        a: Host,
        b: Host,
        a_addresses: Iterable[str] = (),
        b_addresses: Iterable[str] = (),
        *,
        mtu: int = 1500,
    ) -> Cable:
        """Join two hosts by a veth pair; addresses are written with their prefix length."""
        return _join(a, b, a_addresses, b_addresses, mtu)

    def wire(self, hosts: Sequence[Host], faults: Faults, *, seed: int = 0) -> list[str]:
        """Join hosts by a wire in user space (`tunnel.lab.wire`); their new interfaces, which are
        up. `faults.rebind` is for the first of them. A host "wire" has the ports of it: a veth
        cable from each host ends there, as a TAP device in a host could be taken for a tunnel.
        """
        middle = self.host("wire")
        middle.set_sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        middle.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")
        taps = [f"tap{number}" for number in range(len(hosts))]
        ends = [(middle.netns_path, tap) for tap in taps]
        middle.popen(command(seed, faults, ends)).wait_for_output(READY, 30)
        interfaces = []
        for number, (host, tap) in enumerate(zip(hosts, taps, strict=True)):
            cable = _join(host, middle, (), (), 1500)
            bridge = f"br{number}"
            middle.ip(
                f"link add {bridge} type bridge forward_delay 0 mcast_snooping 0",
                *(f"link set {port} master {bridge}" for port in (tap, cable.b_interface)),
                *(f"link set {each} up" for each in (tap, bridge)),
            )
            interfaces.append(cable.a_interface)
        return interfaces

    def routed(self, a: Host, router: Router, b: Host, *, mtu: int = 1500, index: int = 1) -> Cable:
        """Put `router` between `a` and `b`, with default routes; returns the cable to `b`.

        The near side is 198.51.100.0/24 and 2001:db8:a::/64, the far side 203.0.113.0/24 and
        2001:db8:b::/64; host numbers are `index` for the hosts and 254 for the router, `mtu`
        is that of the far link.
        """
        near = self.link(
            a,
            router,
            [f"198.51.100.{index}/24", f"2001:db8:a::{index}/64"],
            ["198.51.100.254/24", "2001:db8:a::254/64"],
        )
        far = self.link(
            router,
            b,
            ["203.0.113.254/24", "2001:db8:b::254/64"],
            [f"203.0.113.{index}/24", f"2001:db8:b::{index}/64"],
            mtu=mtu,
        )
        a.ip(
            f"route add default via 198.51.100.254 dev {near.a_interface}",
            f"route add default via 2001:db8:a::254 dev {near.a_interface}",
        )
        b.ip(
            f"route add default via 203.0.113.254 dev {far.b_interface}",
            f"route add default via 2001:db8:b::254 dev {far.b_interface}",
        )
        return far

    def remove_host(self, host: Host) -> None:
        """Remove one host before the end, with all that runs in it."""
        with self._lock:
            host.close()
            self._hosts.pop(host.name, None)
            self._state.holders.pop(host.name, None)
            self._state.write()

    # The end

    def keep(self) -> None:
        """Leave everything standing, also after our end, until `remove(id)`."""
        with self._lock:
            self._state.kept = True
            self._state.write()
            for host in self._hosts.values():
                host.keep()
            self._closed = True
            atexit.unregister(self.close)

    def close(self) -> None:
        """Take everything down. A second call does nothing; a failure does not stop the rest."""
        with self._lock, _uninterrupted():
            if self._closed:
                return
            self._closed = True
            failures = []
            for host in reversed(self._hosts.values()):
                try:
                    host.close()
                except Exception as error:
                    failures.append(f"{host.name}: {error}")
            shutil.rmtree(self.directory, ignore_errors=True)
            if failures:
                raise LabError(
                    f"lab {self.id} was not taken down completely: {'; '.join(failures)}"
                )
            (state.state_directory() / f"{self.id}.json").unlink(missing_ok=True)
            atexit.unregister(self.close)

    @staticmethod
    def sweep() -> list[str]:
        """Remove what dead labs left behind; returns their IDs."""
        return state.sweep()

    @staticmethod
    def remove(lab_id: str) -> None:
        """Take down a lab that was kept. Raises LabError if there is none of this ID."""
        for found in state.read_all():
            if found.id == lab_id:
                state.remove(found)
                return
        standing = ", ".join(found.id for found in state.read_all()) or "none"
        raise LabError(f"there is no lab {lab_id!r}; standing now: {standing}")

    def __enter__(self) -> Lab:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is signal.SIG_DFL:
                    self._handlers[number] = signal.signal(number, _exit_by_signal)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        finally:
            for number in self._handlers:
                signal.signal(number, signal.SIG_DFL)
            self._handlers.clear()


def _join(
    a: Host, b: Host, a_addresses: Iterable[str], b_addresses: Iterable[str], mtu: int
) -> Cable:
    link = Cable(a, b, a.next_interface(), b.next_interface())
    a.ip(
        f"link add {link.a_interface} mtu {mtu} type veth "
        f"peer name {link.b_interface} mtu {mtu} netns {b.pid}",
        f"link set {link.a_interface} up",
    )
    b.ip(f"link set {link.b_interface} up")
    a.add_addresses(link.a_interface, a_addresses)
    b.add_addresses(link.b_interface, b_addresses)
    return link


def _exit_by_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold back the signals that would tear a teardown apart; they arrive at its end."""
    signals = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
