"""Networks of containers on this host: bridge, firewall, veth pairs, and sockets for names."""

from __future__ import annotations

import errno
import logging
import socket
from dataclasses import replace
from pathlib import Path

from tunnel import host
from tunnel.containers.docker import parts
from tunnel.containers.docker.store import NetworkRecord
from tunnel.containers.errors import ContainerError
from tunnel.containers.network_state import network_state
from tunnel.device.link_monitor import fitting_segments
from tunnel.host import container_links
from tunnel.host.container_gates import NameServer, network_gates, publish_gates
from tunnel.host.errors import HostError
from tunnel.host.gateway import IpAddress
from tunnel.linux.files import RUN_FOLDER
from tunnel.linux.ports import port_holder
from tunnel.packet.ethernet import station_address

log = logging.getLogger("tunnel")

OWNER = "tunnel docker-plugin"
ASKED_PORT = 5354
"""The UDP port by which hosts ask each other for names of a network: of any address of its part."""

_ID_LENGTH = 12
_FREEBIND = 15  # linux/in.h: IP_FREEBIND
_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


def bridge_name(network: str) -> str:
    """What the bridge of a network is called; as long as a name may be."""
    return f"tn-{network[:_ID_LENGTH]}"


class NameSockets:
    """The two UDP sockets of a network at its gateway: for containers, and for other hosts."""

    def __init__(self, queries: socket.socket, peers: socket.socket) -> None:
        self.queries = queries
        self.peers = peers

    @property
    def ports(self) -> tuple[int, int]:
        """Their ports."""
        return self.queries.getsockname()[1], self.peers.getsockname()[1]

    def close(self) -> None:
        """Close both."""
        self.queries.close()
        self.peers.close()


class HostWiring:
    """See `driver.Wiring`. `names` are the sockets by network, for the server of names, which also
    closes those that are `retired`: it may be waiting for them.
    """

    def __init__(self, state_dir: Path = RUN_FOLDER) -> None:
        self.names: dict[str, NameSockets] = {}
        self.retired: list[NameSockets] = []
        self._state_dir = state_dir

    def check(self, network: str, record: NetworkRecord) -> None:
        """Raise if a new network cannot be set up here."""
        if record.bridge:
            self._check_shared(record)
        else:
            container_links.require_free(bridge_name(network))
        for pool in record.pools:
            routes = container_links.overlapping_routes(pool, but=[record.conf, record.bridge])
            if routes:
                raise ContainerError(
                    f"{pool} overlaps a route of this host ({routes[0]}); choose another --subnet "
                    "for the network, on all hosts"
                )

    def set_up(self, network: str, record: NetworkRecord) -> NetworkRecord:
        """Make what stands equal to the record; which is returned with the ports for names."""
        name = record.bridge or bridge_name(network)
        record = self._with_sockets(network, record)
        versions = {pool.version for pool in record.pools}
        address = station_address(network.encode()).hex(":")
        if record.bridge:
            container_links.share_bridge(name, address)
        else:
            container_links.make_bridge(name, address, ipv6=6 in versions)
        server = self._name_server(record)
        # Published ports are there at 127.0.0.1 too.
        has_ports = any(each.published for each in record.endpoints.values())
        container_links.let_loopback_out(name, allowed=has_ports)
        published = [port for each in record.endpoints.values() for port in each.published]
        tunnel = "" if record.bridge else record.conf
        around = network_gates(name, tunnel, record.pools, internal=record.internal, names=server)
        state = network_state(
            name,
            record.pools,
            record.gateways,
            record.mtu,
            (*around, *publish_gates(name, record.pools, published)),
            state_dir=self._state_dir,
            shared=bool(record.bridge),
        )
        if host.load_record(name, self._state_dir) is None:
            host.apply(state, state_dir=self._state_dir, owner=_owner(network))
        else:
            host.reconcile(state, state_dir=self._state_dir)
        return record

    def take_down(self, network: str, record: NetworkRecord | None) -> None:
        """Remove all of a network; without a record, what the host's records say of it."""
        sockets = self.names.pop(network, None)
        if sockets is not None:
            self.retired.append(sockets)
        own = bridge_name(network)
        name = (record.bridge if record else self._set_up_for(network)) or own
        try:
            host.load_record(name, self._state_dir)
        except HostError as error:
            # Docker forgets the network, whatever it is answered: no one would ask again.
            log.warning("%s: what has the name of %s is removed without it", error, name)
            host.delete_record(name, self._state_dir)
        host.remove(name, state_dir=self._state_dir)
        if name == own:
            host.delete_link(name)
        elif container_links.has_link(name):
            container_links.let_loopback_out(name, allowed=False)
            container_links.leave_bridge(name)

    def plug(self, network: str, endpoint: str, record: NetworkRecord) -> str:
        """Make a veth pair, one end in the bridge; the name of the other, to be moved."""
        inner, bridge = f"tc-{endpoint[:_ID_LENGTH]}", record.bridge or bridge_name(network)
        segments = fitting_segments(record.mtu, ethernet=bool(record.bridge))
        container_links.make_pair(inner, _outer(endpoint), bridge, record.mtu, segments)
        return inner

    def unplug(self, endpoint: str) -> None:
        """Remove the veth pair of a container."""
        host.delete_link(_outer(endpoint))

    def is_plugged(self, network: str, endpoint: str, record: NetworkRecord) -> bool:
        """Whether a container has its veth pair; one out of the bridge is put back into it."""
        return container_links.plug_in(_outer(endpoint), record.bridge or bridge_name(network))

    def holder(self, protocol: str, address: IpAddress | None, port: int) -> str | None:
        """Why a port of this host cannot be used, in words; None if it is free."""
        try:
            self._bind(protocol, address, port).close()
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                who = port_holder(port, "tcp" if protocol == "tcp" else "udp")
                return f"port {port} is in use" + (f" by {who}" if who else "")
            if error.errno == errno.EADDRNOTAVAIL:
                return f"no interface of this host has the address {address}"
            return f"port {port} cannot be opened: {error.strerror}"
        return None

    def free_port(self, protocol: str, address: IpAddress | None) -> int:
        """A port that is free."""
        with self._bind(protocol, address, 0) as sock:
            return int(sock.getsockname()[1])

    def _bind(self, protocol: str, address: IpAddress | None, port: int) -> socket.socket:
        is_six = address is not None and address.version == 6
        sock = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, _KINDS[protocol])
        try:
            if protocol == "tcp":
                # Connections of before that wait for their end do not count.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((str(address) if address else "0.0.0.0", port))
            if protocol == "tcp":
                # With SO_REUSEADDR, only this finds one that listens at another address.
                sock.listen(1)
        except OSError:
            sock.close()
            raise
        return sock

    def _set_up_for(self, network: str) -> str:
        """The bridge that was set up for a network; empty if there is none."""
        every = host.other_records("", self._state_dir)
        return next((each.interface for each in every if each.owner == _owner(network)), "")

    def _check_shared(self, record: NetworkRecord) -> None:
        gateways = {gateway.ip for gateway in record.gateways}
        for address in container_links.bridge_addresses(record.bridge):
            if address.ip not in gateways and parts.holds(record.pools, address.ip):
                raise ContainerError(
                    f"the bridge {record.bridge} has the address {address}, which is in the "
                    "network's and is not its gateway on this host; choose another --subnet for "
                    "the network, on all hosts"
                )

    def _with_sockets(self, network: str, record: NetworkRecord) -> NetworkRecord:
        server = self._name_server(record)
        if server is None:
            return record
        if network not in self.names:
            queries = _name_socket(server.address, record.ports[0])
            try:
                peers = _name_socket(server.address, record.ports[1])
            except BaseException:
                queries.close()
                raise
            self.names[network] = NameSockets(queries, peers)
        return replace(record, ports=self.names[network].ports)

    def _name_server(self, record: NetworkRecord) -> NameServer | None:
        for gateway in record.gateways:
            if gateway.version == 4:
                return NameServer(gateway.ip, *record.ports, ASKED_PORT)
        return None


def _name_socket(address: IpAddress, port: int) -> socket.socket:
    """A UDP socket at an address which need not be there yet; at `port`, if that is free."""
    for choice in dict.fromkeys((port, 0)):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.setsockopt(socket.IPPROTO_IP, _FREEBIND, 1)
            sock.bind((str(address), choice))
            return sock
        except OSError as error:
            sock.close()
            if error.errno != errno.EADDRINUSE or choice == 0:
                raise ContainerError(
                    f"no socket for names at {address}: {error.strerror}"
                ) from error
    raise AssertionError("a port of 0 is always tried")


def _owner(network: str) -> str:
    """Who has set up what a network has, in the record of the host."""
    return f"{OWNER} for network {network[:_ID_LENGTH]}"


def _outer(endpoint: str) -> str:
    return f"tv-{endpoint[:_ID_LENGTH]}"
