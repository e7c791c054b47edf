"""The process that stays inside: it makes the namespaces, sets them up, and ends what is in them.

It is forked before there is an event loop or a thread, and never becomes another program, so that
it keeps the rights over its namespaces: an ordinary user's command has none. It answers requests of
the process outside, which has the tunnel's engine and its UDP sockets:

    namespaces                made; answered without a request
    set_up {mtu}              TUN device, addresses, routes, files: answers with the descriptor of
                              the device and a socket to ask after it
    socket {family, kind}     a socket made in here

When the channel ends, however that came about, it ends all processes of its network namespace.
There is no PID namespace, which would do that by itself: a command in one has no job control on the
terminal of its caller, and cannot see the processes that it was given to look at.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.containers import messages, mounts
from tunnel.containers.errors import ContainerError
from tunnel.containers.messages import ChannelMessage
from tunnel.device import features
from tunnel.device.link_monitor import fitting_segments
from tunnel.errors import TunnelError
from tunnel.host.links import limit_segments, set_up_loopback
from tunnel.io.tun import Tun
from tunnel.linux import kernel, namespaces
from tunnel.linux.processes import end_processes, netns_inode, pids_in

GRACE = 2.0
"""Seconds that processes which are left over have between SIGTERM and SIGKILL."""

_OURS = "/proc/self/ns/net"


@dataclass(frozen=True, slots=True)
class Place:
    """Where the run is known: `lock` is the descriptor of its lock, `files` are those that go with
    its end.
    """

    lock: int
    files: tuple[Path, ...]


def run(config: TunnelConfig, channel: socket.socket, place: Place, *, as_user: bool) -> NoReturn:
    """Be the process inside. With `as_user`, in a user namespace of its own."""
    status = 1
    try:
        _leave_the_caller({channel.fileno(), place.lock})
        outside = netns_inode(_OURS)
        try:
            make_namespaces(as_user=as_user)
            messages.send(channel, {})
            _serve(config, channel, as_user=as_user)
        except TunnelError as error:
            messages.send(channel, {"error": str(error)})
        finally:
            ours = netns_inode(_OURS)
            if ours is not None and ours != outside:
                end_all(ours)
            # Where the process outside was killed, no one else does. The lock is held here, too.
            for path in place.files:
                path.unlink(missing_ok=True)
        status = 0
    except OSError:
        pass  # the process outside is gone
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _leave_the_caller(kept: set[int]) -> None:
    """Keep none of the caller's files open, and hear none of its terminal's signals.

    Of descriptors, `kept` and that of standard error stay.
    """
    os.setsid()
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        # It ends with its channel, when all is done.
        signal.signal(number, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    start = 3
    for descriptor in sorted(kept):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def make_namespaces(*, as_user: bool) -> None:
    """Move this process into network and mount namespaces of its own. Raises ContainerError."""
    uid, gid = os.geteuid(), os.getegid()
    kinds = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS
    try:
        namespaces.unshare(kinds | (kernel.CLONE_NEWUSER if as_user else 0))
        if as_user:
            namespaces.map_own_user(uid, gid)
    except OSError as error:
        raise ContainerError(_why_not_made(error, as_user=as_user)) from error


def _why_not_made(error: OSError, *, as_user: bool) -> str:
    what = f"a network namespace cannot be made: {error.strerror}"
    if not as_user:
        return f"{what}; give the container CAP_SYS_ADMIN and CAP_NET_ADMIN"
    settings = namespaces.forbidding_settings()
    if settings:
        return (
            f"{what}; this machine forbids user namespaces to ordinary users: "
            f"{' and '.join(settings)} allows them; or run it as root"
        )
    if error.errno == errno.ENOSPC:
        return (
            f"{what}; there are as many namespaces as user.max_user_namespaces, "
            "user.max_net_namespaces and user.max_mnt_namespaces allow: end some, or raise the "
            "limit (sysctl)"
        )
    return (
        f"{what}; run it as root. If this is a container, its seccomp profile or its rights may "
        "forbid user namespaces"
    )


def wanted_state(config: TunnelConfig, mtu: int) -> host.DesiredState:
    """What should be around the tunnel inside: all networks of its peers in table main.

    There is no other way out, so a default route needs no rules, and no mark.
    """
    interface = config.interface
    networks = config.networks
    state = host.desired_state(
        config.name,
        interface.addresses,
        [network for network in networks if network.prefixlen],
        mtu=mtu,
    )
    defaults = dict.fromkeys(
        host.Route(network)
        for network in networks
        if not network.prefixlen and (network.version == 4 or mtu >= kernel.IPV6_MIN_MTU)
    )
    return replace(state, routes=(*state.routes, *defaults))


def _serve(config: TunnelConfig, channel: socket.socket, *, as_user: bool) -> None:
    while (request := messages.receive(channel)) is not None:
        try:
            answer = _answer(config, request)
        except (TunnelError, OSError) as error:
            # AppArmor lets a user namespace be made, and then refuses all rights in it.
            settings = namespaces.forbidding_settings() if as_user else []
            why = [str(error), *(f"it may be allowed by: {line}" for line in settings)]
            messages.send(channel, {"error": "; ".join(why)})
        else:
            messages.send(channel, answer.body, answer.descriptors)
            for descriptor in answer.descriptors:
                os.close(descriptor)


def _answer(config: TunnelConfig, request: ChannelMessage) -> ChannelMessage:
    match request.body:
        case {"request": "set_up", "mtu": int(mtu)}:
            return ChannelMessage({}, _set_up(config, mtu))
        case {"request": "socket", "family": int(family), "kind": int(kind)}:
            return ChannelMessage({}, (socket.socket(family, kind).detach(),))
        case other:
            raise ContainerError(f"unknown request {other}")


def _set_up(config: TunnelConfig, mtu: int) -> tuple[int, int]:
    """The descriptor of the TUN device, and that of a socket in its namespace."""
    options = config.interface.options
    with Tun.open(config.name, mtu=mtu, offloads=features.choose(options).tun) as tun:
        set_up_loopback()
        names = config.interface
        dns = host.Dns(names.dns, names.dns_search) if names.dns else None
        with mounts.staging() as folder:
            host.apply(wanted_state(config, mtu), state_dir=folder / "state")
            mounts.set_up(dns, folder)
        limit_segments(tun.ifindex, fitting_segments(mtu))
        _let_users_ping()
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        return os.dup(tun.fileno()), control.detach()


def _let_users_ping() -> None:
    """Allow sockets for ICMP echo to our group, the only one there is in a user namespace."""
    group = os.getegid()
    # Where /proc/sys cannot be written, as in some containers, ping may have its own rights.
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"{group} {group}")


def end_all(netns: int) -> None:
    """End all other processes in the network namespace of that inode, also those forked meanwhile.

    Raises TimeoutError where one survives.
    """
    while pids := pids_in(netns):
        end_processes(pids, grace=GRACE)


def fork(config: TunnelConfig, place: Place, *, as_user: bool) -> tuple[int, socket.socket]:
    """Start the process inside; its PID and our end of the channel. There must be no threads."""
    ours, theirs = messages.pair()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        run(config, theirs, place, as_user=as_user)
    theirs.close()
    return pid, ours
