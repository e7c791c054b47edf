"""One host of a lab: network, mount and host-name namespaces, and the programs run in them."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from pathlib import Path
from typing import Any, TypeVar

from tunnel.lab.errors import LabError, LabTimeoutError
from tunnel.lab.namespace import (
    HOLDER_MARK,
    HOLDER_SCRIPT,
    check_run,
    end_host,
    enter_command,
    outer_uid,
    remove_name,
)
from tunnel.lab.process import HostProcess, wait_for
from tunnel.linux.netns import call_inside
from tunnel.linux.processes import netns_inode, pids_in

_T = TypeVar("_T")

HOST_VARIABLE = "TUNNEL_LAB_HOST"
"""The environment of each program in a host of a lab has its name here."""

UNSHARE = ["unshare", "--net", "--mount", "--uts", "--propagation", "private"]


@dataclass(frozen=True)
class HostAddress:
    """An address on an interface of a host."""

    interface: str
    address: IPv4Interface | IPv6Interface


class Host:
    """A host: `lab.host(name)` makes it, the lab's teardown removes it with all in it.

    Programs run in it see its own interfaces, its own sysfs, an empty /run of its own (so two
    hosts may both have a `wg0` and a /run/wireguard/wg0.sock), its own resolv.conf and hosts,
    which are files in `etc`, and its own host name. The rest of the file system is shared.
    """

    def __init__(self, name: str, *, netns: str, lab_id: str, directory: Path) -> None:
        self.name = name
        self.netns = netns
        self.directory = directory
        self.etc = directory / "etc"
        self._lab_id = lab_id
        self._lock = threading.Lock()
        self._processes: list[HostProcess] = []
        self._log_count = 0
        self._interface_count = 0
        self._named = False
        self.etc.mkdir(parents=True)
        (self.etc / "resolv.conf").write_text("")
        (self.etc / "hosts").write_text(f"127.0.0.1 localhost {name}\n::1 localhost {name}\n")
        self._holder = subprocess.Popen(
            [*UNSHARE, "sh", "-c", HOLDER_SCRIPT, "holder", name, str(self.etc)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment({HOLDER_MARK: "1"}),
            start_new_session=True,
        )
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if self._holder.stdout.readline() != b"ready\n":
            text = self._holder.stderr.read().decode(errors="replace").strip()
            raise LabError(f"host {self.name}: its namespaces could not be made: {text}")
        inode = netns_inode(self.netns_path)
        assert inode is not None
        self.netns_inode: int = inode
        check_run(["ip", "netns", "attach", self.netns, str(self.pid)])
        self._named = True
        self.set_sysctl("net.ipv6.conf.default.accept_dad", "0")
        self.set_sysctl("net.ipv6.conf.all.accept_dad", "0")
        self.run(["ip", "link", "set", "lo", "up"])

    # What it is

    @property
    def pid(self) -> int:
        """PID of the process that holds the namespaces; `ip link set … netns PID` takes it."""
        return self._holder.pid

    @property
    def netns_path(self) -> str:
        """Path that can be opened to enter the network namespace."""
        return f"/proc/{self.pid}/ns/net"

    def enter_command(self) -> list[str]:
        """The words to put before a command so that it runs in this host."""
        return enter_command(self.pid)

    def enter_command_for_user(self) -> list[str]:
        """The same for the user who made the lab, at a prompt outside of all its namespaces."""
        return enter_command(self.pid, joins_user=outer_uid() != 0)

    def addresses(self, interface: str | None = None) -> list[HostAddress]:
        """Addresses as the kernel has them now, link-local ones and loopback's left out."""
        found = []
        selection = [] if interface is None else ["dev", interface]
        for link in self.ip_json(["address", "show", *selection]):
            for info in link.get("addr_info", ()):
                if info["scope"] == "global":
                    text = f"{info['local']}/{info['prefixlen']}"
                    found.append(HostAddress(link["ifname"], ip_interface(text)))
        return found

    def interfaces(self) -> list[str]:
        """Names of the interfaces that exist now."""
        return [link["ifname"] for link in self.ip_json(["link", "show"])]

    def next_interface(self) -> str:
        """A name for a new interface: eth0, eth1, …"""
        with self._lock:
            name = f"eth{self._interface_count}"
            self._interface_count += 1
        return name

    # Programs

    def _environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        return {**os.environ, "TUNNEL_LAB": self._lab_id, HOST_VARIABLE: self.name, **extra}

    def _entered(self, directory: Path | str | None) -> list[str]:
        # nsenter leaves the program in "/"; its own option for this is newer than Debian 11's.
        return [*self.enter_command(), "env", f"--chdir={directory or Path.cwd()}"]

    def run(
        self,
        arguments: Sequence[str],
        *,
        timeout: float = 30.0,
        check: bool = True,
        stdin: str | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in this host to its end and return status and outputs as text.

        Raises LabTimeoutError after `timeout` seconds (the program is killed) and, unless
        `check` is False, LabError with its output when the status is not 0; that the program
        cannot be started is an error in any case. A program that leaves a daemon behind must not
        leave it the outputs, or this waits for the daemon.
        """
        title = f"{self.name}: {' '.join(arguments)}"
        try:
            result = subprocess.run(
                [*self._entered(directory), *arguments],
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                env=self._environment(environment or {}),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            printed = _text(error.stdout) + _text(error.stderr)
            raise LabTimeoutError(
                f"{title}: not finished within {timeout:g} s; {printed}"
            ) from None
        # So env(1), by which every program is started here, says that there is no such program.
        not_started = result.returncode in (126, 127) and result.stderr.startswith("env: ")
        if (check or not_started) and result.returncode != 0:
            printed = (result.stdout + result.stderr).strip()
            raise LabError(f"{title}: status {result.returncode}: {printed}")
        return result

    def popen(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        directory: Path | str | None = None,
    ) -> HostProcess:
        """Start a program in this host; the lab ends and reaps it at its teardown."""
        with self._lock:
            self._log_count += 1
            log_name = f"{self._log_count:02}-{Path(arguments[0]).name}.log"
            process = HostProcess(
                self._entered(directory),
                arguments,
                environment=self._environment(environment or {}),
                log_path=self.directory / log_name,
            )
            self._processes.append(process)
        return process

    def shell(self) -> int:
        """An interactive shell in this host, on our terminal; returns its exit status."""
        shell = os.environ.get("SHELL") or "/bin/sh"
        return subprocess.call(
            [*self._entered(None), shell],
            env=self._environment({"PS1": f"{self.name}# ", "debian_chroot": f"host {self.name}"}),
        )

    def pids(self) -> list[int]:
        """All processes in this host's network namespace but the holder, daemons included."""
        return [pid for pid in pids_in(self.netns_inode) if pid != self.pid]

    def wait_for(self, predicate: Callable[[], object], bound: float, what: str) -> None:
        """Return when `predicate()` is true; LabTimeoutError naming `what` after `bound` s."""
        wait_for(predicate, bound, f"{self.name}: {what}")

    def ping(self, address: str, *, count: int = 1, timeout: float = 10.0) -> None:
        """Ping until `count` replies came, 5 a second; LabError if they did not in `timeout`."""
        seconds = str(max(1, int(timeout)))
        command = ["ping", "-n", "-i", "0.2", "-c", str(count), "-w", seconds, address]
        self.run(command, timeout=timeout + 5)

    # The network, seen from inside

    def call(self, function: Callable[[], _T]) -> _T:
        """Run a Python function in this network namespace, in a thread of its own."""
        return call_inside(self.netns_path, function)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of this host, for use by any thread of ours."""
        return self.call(lambda: socket.socket(family, kind, protocol))

    def ip(self, *lines: str) -> None:
        """Run lines of `ip` commands (without the word `ip`) as one batch."""
        self.run(["ip", "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))

    def ip_json(self, arguments: Sequence[str]) -> list[dict[str, Any]]:
        """What `ip -json ARGUMENTS` says, decoded."""
        text = self.run(["ip", "-json", *arguments]).stdout
        found: list[dict[str, Any]] = json.loads(text or "[]")
        return [entry for entry in found if entry]

    def add_addresses(self, interface: str, addresses: Iterable[str]) -> None:
        """Add addresses, written with their prefix length; they can be used on return."""
        parsed = [ip_interface(text) for text in addresses]
        self.ip(
            *(
                f"address add {address} dev {interface}{' nodad' if address.version == 6 else ''}"
                for address in parsed
            )
        )
        if any(address.version == 6 for address in parsed):
            # Before that a neighbour gets no answer, and asks again only a second later.
            tentative = ["-6", "address", "show", "dev", interface, "tentative"]
            self.wait_for(lambda: not self.ip_json(tentative), 5.0, "IPv6 addresses ready")

    def nft(self, rules: str) -> None:
        """Load nftables rules as one transaction."""
        self.run(["nft", "-f", "-"], stdin=rules)

    def set_sysctl(self, name: str, value: str) -> None:
        """Set a sysctl of the network namespace, such as `net.ipv4.ip_forward`."""
        # A dot inside an interface name is written as a slash, as sysctl(8) has it.
        path = "/proc/sys/" + name.translate(str.maketrans("./", "/."))

        def write() -> None:
            Path(path).write_text(value)

        try:
            self.call(write)
        except OSError as error:
            raise LabError(f"{self.name}: sysctl {name} = {value}: {error}") from error

    # The end

    def keep(self) -> None:
        """Let the namespaces stay when our process ends."""
        assert self._holder.stdin is not None
        self._holder.stdin.write(b"keep\n")
        self._holder.stdin.close()

    def close(self) -> None:
        """End every process in this host and remove it. A second call does nothing."""
        with self._lock:
            processes, self._processes = self._processes, []
        for process in reversed(processes):
            process.stop(2.0)
        if self._holder.returncode is None:
            inode = netns_inode(self.netns_path)
            if inode is not None:
                end_host(inode, self.netns if self._named else None, holder=self.pid)
            elif self._named:
                remove_name(self.netns)
            self._holder.kill()
            self._holder.wait()
        for stream in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def __repr__(self) -> str:
        return f"<Host {self.name} in {self.netns}>"


def _text(output: str | bytes | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
