"""A daemon that only carries packets, as wireguard-go does: `wg` and `ip` do the rest.

`open_device` makes what a caller waits for: TUN device, UDP sockets and listening UAPI socket. It
needs no event loop, so that it may be done before the process goes into the background. `run` is
all the rest of its life: until the device or the socket is gone, SIGINT or SIGTERM.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import trio

from tunnel.device import features, signals
from tunnel.device.device import Device
from tunnel.device.uapi import UapiSocket, socket_path
from tunnel.errors import DaemonError

log = logging.getLogger("tunnel")

DEFAULT_MTU = 1420
"""What a new interface gets, as in the kernel: 1500 less the 80 bytes a tunnel costs at most."""


def open_device(name: str, environment: Mapping[str, str]) -> tuple[Device, UapiSocket]:
    """Make the interface `name` and its UAPI socket, or take them over where
    WG_TUN_FD and WG_UAPI_FD name their descriptors.

    Raises TunnelError, and then nothing is left.
    """
    with ExitStack() as undo:
        device = undo.enter_context(
            Device.open(
                name,
                mtu=DEFAULT_MTU,
                path=features.load_datapath(),
                offloads=features.choose(environment=environment),
                tun_fd=_descriptor(environment, "WG_TUN_FD"),
            )
        )
        _refuse_automatic_addresses(device.name)
        served = _listen(device.name, _descriptor(environment, "WG_UAPI_FD"))
        undo.pop_all()
    return device, served


def _refuse_automatic_addresses(name: str) -> None:
    """As in the kernel's WireGuard: the interface has the addresses it is given and no others."""
    # Without IPv6 there is no such file, and nothing to refuse.
    with contextlib.suppress(OSError):
        Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode").write_text("1")


def _descriptor(environment: Mapping[str, str], variable: str) -> int | None:
    text = environment.get(variable, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise DaemonError(f"{variable} is the number of an open descriptor, not {text!r}")
    return int(text)


def _listen(name: str, descriptor: int | None) -> UapiSocket:
    if descriptor is not None:
        try:
            return UapiSocket.adopt(descriptor)
        except DaemonError as error:
            raise DaemonError(f"WG_UAPI_FD: {error}") from None
    try:
        return UapiSocket.bind(name)
    except OSError as error:
        raise DaemonError(
            f"cannot listen on {socket_path(name)}: {error.strerror or error}; "
            "stop the daemon that does, or be root"
        ) from error


async def run(device: Device, served: UapiSocket, ready: Callable[[], None] = lambda: None) -> None:
    """Carry packets until asked to stop, or until device or socket are gone; close both."""
    try:
        async with trio.open_nursery() as nursery:
            stop = nursery.cancel_scope.cancel
            await nursery.start(signals.follow, stop, _nothing_to_reload)
            # Unknown yet; the link monitor finds out before anything is read.
            device.engine.set_link_up(False)
            await nursery.start(_carry, device, stop)
            nursery.start_soon(served.serve, device, stop)
            log.info("%s: ready, UDP port %d", device.name, device.engine.udp.port)
            ready()
    finally:
        served.close()
        device.close()
    log.info("%s: ended", device.name)


async def _carry(
    device: Device,
    stop: Callable[[], None],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    await device.run(task_status=task_status)
    log.info("%s was deleted: leaving", device.name)
    stop()


async def _nothing_to_reload() -> None:
    log.info("SIGHUP: there is no conf to read again; use wg setconf or wg syncconf")
