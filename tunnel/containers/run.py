"""`tunnel run`: a command whose only network is a tunnel.

Three processes: this one, outside, carries the packets; one inside holds the namespaces
(`inside.py`); the command is our child (`command.py`). The UDP sockets are outside, where the
caller's network is. The TUN device is inside, and ends with us: whatever ends us, the command has
no network any more, and no other.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

import trio

from tunnel import host
from tunnel.config import TunnelConfig, TunnelOptions
from tunnel.config.keys import keys_of
from tunnel.containers import control
from tunnel.containers.command import Command
from tunnel.containers.errors import ContainerError
from tunnel.containers.forward import Door, Forwarder, open_doors
from tunnel.containers.inside import Place
from tunnel.containers.outside import Inside
from tunnel.containers.ports import Published
from tunnel.control.broadcast import Events
from tunnel.control.run_folder import make_own_folder, remove_own_folder, socket_path
from tunnel.daemon import redaction
from tunnel.daemon.descriptors import check_descriptors
from tunnel.daemon.host_state import line_of_port
from tunnel.daemon.lock import hold, lock_path
from tunnel.device import features, sync
from tunnel.device.device import Device
from tunnel.device.look_up import resolve_some
from tunnel.errors import unwrapped
from tunnel.host import iproute
from tunnel.host.dns import read_servers
from tunnel.linux.kernel import IPV6_MIN_MTU
from tunnel.linux.namespaces import has_admin_capabilities

log = logging.getLogger("tunnel")

_OF_A_HOST = frozenset(
    {"Forward", "Masquerade", "Publish", "Isolate", "Allow", "ClampMSS", "KillSwitch", "Netmap"}
    | {"PeerUp", "PeerDown", "Records"}
)
"""Keys of section [Tunnel] for the firewall of a host, and for who keeps an eye on peers there."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What to run. `environment` is the command's; `published` are ports that lead inside."""

    config: TunnelConfig
    words: Sequence[str]
    environment: Mapping[str, str]
    published: Sequence[Published] = ()


def run(request: RunRequest) -> int:
    """Run the command and return its exit code, or below 0 the signal that ended it, when nothing
    of it is left.

    The calling process must have one thread, and no event loop. Raises TunnelError.
    """
    check_descriptors()
    as_user = not has_admin_capabilities()
    config = _fitting(request.config, as_user=as_user)
    redaction.hide_secrets(config)
    # This process and the one inside need it: once before the fork is cheaper than twice after, and
    # the one inside may not reach its files.
    iproute.load()
    folder = make_own_folder()
    with contextlib.ExitStack() as stack:
        stack.callback(remove_own_folder)
        lock = stack.enter_context(hold(config.name, folder=folder))
        path = socket_path(config.name, folder)
        listener = stack.enter_context(control.listening(path))
        doors = open_doors(request.published, stack)
        place = Place(lock, (path, lock_path(config.name, folder)))
        command = Command(request.words, request.environment)
        try:
            inside = Inside(config, place, as_user=as_user)
            try:
                with unwrapped():
                    return trio.run(_run, config, command, inside, doors, listener)
            finally:
                inside.close()
        finally:
            command.kill()


def _fitting(config: TunnelConfig, *, as_user: bool) -> TunnelConfig:
    """The conf without what is for a whole host; what that is, the log says once."""
    interface = config.interface
    left_out = [
        name
        for name, is_set in (
            ("PreUp", interface.pre_up),
            ("PostUp", interface.post_up),
            ("PreDown", interface.pre_down),
            ("PostDown", interface.post_down),
            ("SaveConfig", interface.save_config),
            ("Table", interface.table != "auto"),
            ("FwMark (needs root)", interface.fwmark and as_user),
        )
        if is_set
    ]
    left_out += [
        each.name
        for each in keys_of(TunnelOptions).values()
        if each.name in _OF_A_HOST
        and getattr(interface.options, each.field) != getattr(TunnelOptions(), each.field)
    ]
    if left_out:
        log.warning("tunnel run leaves out of the conf: %s", ", ".join(left_out))
    unreached = _unreached_servers(config)
    if unreached:
        log.warning(
            "the conf has no DNS, and no peer leads to the name servers of this host (%s): names "
            "will not be looked up inside; add DNS = to the conf",
            ", ".join(unreached),
        )
    if interface.options.is_tap:
        raise ContainerError(
            "tunnel run is for IP packets, and the conf has Mode = tap: use tunnel up with NetNS, "
            "or remove Mode = tap here and at the peers"
        )
    if interface.private_key is None:
        raise ContainerError(
            "the conf has no PrivateKey, and hooks, which may set one, are not run by tunnel run: "
            "add PrivateKey or PrivateKeyFile"
        )
    return replace(config, interface=replace(interface, fwmark=0 if as_user else interface.fwmark))


async def _run(
    config: TunnelConfig,
    command: Command,
    inside: Inside,
    doors: Sequence[Door],
    listener: socket.socket,
) -> int:
    code = 1
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            nonlocal code
            code = await command.run()
            nursery.cancel_scope.cancel()

        async def carry() -> None:
            await inside.ready()
            feed = Events("event streams")
            async with _tunnel(config, inside, feed) as device:
                nursery.start_soon(control.serve, listener, config, device, inside, feed)
                addresses = [str(address.ip) for address in config.interface.addresses]
                nursery.start_soon(Forwarder(inside.socket, addresses).serve, doors)
                command.start(inside.pid, as_user=inside.as_user)
                await inside.wait_gone()
            raise ContainerError("the process that holds the command's network was killed")

        nursery.start_soon(follow)
        nursery.start_soon(carry)
    return code


@contextlib.asynccontextmanager
async def _tunnel(config: TunnelConfig, inside: Inside, feed: Events) -> AsyncIterator[Device]:
    """The tunnel of the conf, with its interface inside, for the time of an `async with`."""
    interface = config.interface
    found = await resolve_some(config.peers)
    endpoints = {key: addresses[0] for key, addresses in found.items() if addresses}
    mtu = interface.mtu
    if mtu is None:
        outer = [ip_address(endpoint.address) for endpoint in endpoints.values()]
        mtu = await trio.to_thread.run_sync(lambda: host.compute_mtu(outer, mark=interface.fwmark))
    if mtu < IPV6_MIN_MTU and any(address.version == 6 for address in interface.addresses):
        log.warning("an MTU of %d is too small for IPv6, which needs %d", mtu, IPV6_MIN_MTU)
    descriptor, asked_by = await inside.set_up(mtu)
    with (
        line_of_port(config),
        Device.open(
            config.name,
            mtu=mtu,
            path=features.load_datapath(interface.options.datapath),
            offloads=features.choose(interface.options),
            listen_port=interface.listen_port,
            fwmark=interface.fwmark,
            tun_fd=descriptor,
            tun_control=asked_by,
            publish=lambda kind, details: feed.publish(kind, **details),
        ) as device,
    ):
        await device.endpoints.update(config.peers, found)
        await sync.apply(device.engine, config, endpoints)
        async with trio.open_nursery() as nursery:
            await nursery.start(_carry_packets, device)
            yield device
            nursery.cancel_scope.cancel()


async def _carry_packets(
    device: Device, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    await device.run(task_status=task_status)
    log.warning("%s was deleted from inside: the command has no network any more", device.name)


def _unreached_servers(config: TunnelConfig) -> list[str]:
    """The name servers of this host, where the command would ask them, and reach none of them."""
    if config.interface.dns:
        return []
    networks = config.networks
    servers = list(read_servers())
    for server in servers:
        with contextlib.suppress(ValueError):
            if any(ip_address(server) in network for network in networks):
                return []
    return servers
