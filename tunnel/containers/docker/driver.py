"""The network driver: what Docker's requests do to the networks and the machine.

Requests come one at a time. What was asked for twice is done once, and what is asked of something
that is gone succeeds where it is to be gone: Docker asks again after a restart of either side.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import replace
from typing import Protocol

from tunnel.containers.docker import checks, ipam, parts
from tunnel.containers.docker.protocol import (
    CreateEndpoint,
    CreateNetwork,
    OfAddress,
    OfEndpoint,
    OfNetwork,
    PortRequest,
    RequestPool,
)
from tunnel.containers.docker.store import (
    EndpointRecord,
    NetworkRecord,
    PluginState,
    PoolRecord,
    Store,
)
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.errors import ContainerError
from tunnel.errors import TunnelError
from tunnel.host.container_gates import PublishedPort
from tunnel.host.gateway import IpAddress, Network

log = logging.getLogger("tunnel")

Answer = dict[str, object]

_VIA, _CONNECTED = 0, 1
"""Types of a static route: with a next hop, or without."""


class Wiring(Protocol):
    """What a driver has done to the machine; all of it may be done twice. Raises TunnelError."""

    def check(self, network: str, record: NetworkRecord) -> None:
        """Raise if a new network cannot be set up here."""

    def set_up(self, network: str, record: NetworkRecord) -> NetworkRecord:
        """Make what stands equal to the record; which is returned with what was chosen for it."""

    def take_down(self, network: str, record: NetworkRecord | None) -> None:
        """Remove all of a network; without a record, what was set up for it."""

    def plug(self, network: str, endpoint: str, record: NetworkRecord) -> str:
        """Make a veth pair, one end in the bridge; the name of the other, to be moved."""

    def unplug(self, endpoint: str) -> None:
        """Remove the veth pair of a container."""

    def is_plugged(self, network: str, endpoint: str, record: NetworkRecord) -> bool:
        """Whether a container has its veth pair; one out of the bridge is put back into it."""

    def holder(self, protocol: str, address: IpAddress | None, port: int) -> str | None:
        """Why a port of this host cannot be used, in words; None if it is free."""

    def free_port(self, protocol: str, address: IpAddress | None) -> int:
        """A port that is free."""


class Driver:
    """Networks and addresses, as Docker asks for them. All methods block, and raise TunnelError."""

    def __init__(self, store: Store, wiring: Wiring, look_up: Callable[[str], TunnelFacts]) -> None:
        self._store = store
        self._wiring = wiring
        self._look_up = look_up
        self.state: PluginState = store.load()

    # Networks

    def create_network(self, request: CreateNetwork) -> Answer:
        """Make a network's bridge and firewall."""
        conf = checks.conf_of(request.options)
        tunnel = self._look_up(conf)
        others = {name: e for name, e in self.state.networks.items() if name != request.network}
        checks.check_mode(request.options, tunnel, others)
        for subnet in request.subnets:
            checks.check_pool(subnet, tunnel, others, self._part(conf, subnet.pool))
        if not request.subnets:
            raise ContainerError(
                "the network has no addresses: --subnet 10.90.0.0/24, the same on all hosts"
            )
        gateways = tuple(subnet.gateway for subnet in request.subnets if subnet.gateway)
        record = NetworkRecord(
            conf,
            tuple(subnet.pool for subnet in request.subnets),
            gateways,
            request.internal,
            checks.mtu_of(request, tunnel),
            tunnel.allowed,
            tunnel.bridge,
        )
        before = self.state.networks.get(request.network)
        if before is None:
            self._wiring.check(request.network, record)
        else:
            record = replace(record, ports=before.ports, endpoints=before.endpoints)
        with self._changing(request.network, record):
            self._apply(request.network, record)
        log.info("network %.12s: %s through %s", request.network, _pools(record), conf)
        return {}

    def delete_network(self, request: OfNetwork) -> Answer:
        """Remove all of a network; what is left of one that is not in the state, too."""
        if request.network in self.state.networks:
            self.forget_network(request.network)
        else:
            self._wiring.take_down(request.network, None)
        return {}

    def forget_network(self, network: str) -> None:
        """Remove all of a network, which Docker no longer has."""
        if network in self.state.networks:
            for endpoint in self.state.networks[network].endpoints:
                self._wiring.unplug(endpoint)
            gone = self.state.networks[network]
            self._wiring.take_down(network, gone)
            left = {name: each for name, each in self.state.networks.items() if name != network}
            # Docker takes its addresses back before or after, as its version has it.
            pools = {
                name: each
                for name, each in self.state.pools.items()
                if each.conf != gone.conf or each.pool not in gone.pools
            }
            self._save_less(PluginState(left, pools))
            log.info("network %.12s was removed", network)

    # The ends of containers

    def create_endpoint(self, request: CreateEndpoint) -> Answer:
        """Take the addresses that a container is to have."""
        record = self._network(request.network)
        record = self._refreshed(request.network, record)
        if not request.addresses:
            raise ContainerError("a container needs an address, and the request has none")
        for address in request.addresses:
            checks.check_address(request, address, record)
        endpoint = EndpointRecord(request.addresses)
        record = _with(self._network(request.network), request.endpoint, endpoint)
        self._save_network(request.network, record)
        if request.mac:
            return {"Interface": {}}
        return {"Interface": {"MacAddress": _mac(request.addresses[0].ip)}}

    def delete_endpoint(self, request: OfEndpoint) -> Answer:
        """Remove a container's end."""
        self.forget_endpoint(request.network, request.endpoint)
        return {}

    def forget_endpoint(self, network: str, endpoint: str) -> None:
        """Remove the end of a container, which Docker no longer has."""
        self._wiring.unplug(endpoint)
        record = self.state.networks.get(network)
        if record is None or endpoint not in record.endpoints:
            return
        published = record.endpoints[endpoint].published
        left = {name: each for name, each in record.endpoints.items() if name != endpoint}
        record = replace(record, endpoints=left)
        if published:
            self._wiring.set_up(network, record)
        self._save_less(self._with_network(network, record))

    def info(self, request: OfEndpoint) -> Answer:
        """What there is to know of a container's end."""
        endpoint = self._endpoint(request)
        return {"Value": {"published": ", ".join(map(str, endpoint.published))}}

    def join(self, request: OfEndpoint) -> Answer:
        """Make the interface that Docker moves into the container."""
        record = self._refreshed(request.network, self._network(request.network))
        endpoint = self._endpoint(request)
        joined = replace(endpoint, joined=True)
        with self._changing(request.network, _with(record, request.endpoint, joined)) as changed:
            # Others may have taken something away since.
            self._apply(request.network, changed)
            try:
                inner = self._wiring.plug(request.network, request.endpoint, record)
            except BaseException:
                self._wiring.unplug(request.endpoint)
                raise
        answer: Answer = {"InterfaceName": {"SrcName": inner, "DstPrefix": "eth"}}
        for gateway in record.gateways:
            answer["Gateway" if gateway.version == 4 else "GatewayIPv6"] = str(gateway.ip)
        answer["StaticRoutes"] = list(_static_routes(record))
        return answer

    def leave(self, request: OfEndpoint) -> Answer:
        """The container is gone, or was disconnected."""
        self._wiring.unplug(request.endpoint)
        record = self.state.networks.get(request.network)
        if record is not None and request.endpoint in record.endpoints:
            endpoint = replace(record.endpoints[request.endpoint], joined=False)
            record = _with(record, request.endpoint, endpoint)
            self._save_less(self._with_network(request.network, record))
        return {}

    # Published ports

    def publish(self, request: OfEndpoint) -> Answer:
        """Lead ports of this host to the container."""
        record = self._network(request.network)
        endpoint = self._endpoint(request)
        ports: list[PublishedPort] = []
        for port in () if record.internal else request.published:
            ports += self._choose(request, port, endpoint, ports)
        if ports or endpoint.published:
            new = replace(endpoint, published=tuple(dict.fromkeys(ports)))
            with self._changing(request.network, _with(record, request.endpoint, new)) as changed:
                self._apply(request.network, changed)
            log.info("endpoint %.12s: published %s", request.endpoint, ", ".join(map(str, ports)))
        return {}

    def withdraw(self, request: OfEndpoint) -> Answer:
        """Close the ports that led to the container."""
        record = self.state.networks.get(request.network)
        endpoint = record.endpoints.get(request.endpoint) if record else None
        if record is not None and endpoint is not None and endpoint.published:
            record = _with(record, request.endpoint, replace(endpoint, published=()))
            self._wiring.set_up(request.network, record)
            self._save_less(self._with_network(request.network, record))
        return {}

    # Addresses

    def request_pool(self, request: RequestPool) -> Answer:
        """Take charge of a pool of addresses."""
        conf = request.options.get(ipam.OPTION, "")
        if not conf:
            raise ContainerError(
                "the address pool needs the name of a tunnel: --ipam-opt conf=NAME"
            )
        name, pool = ipam.new_pool(request, self._look_up(conf))
        if name not in self.state.pools:
            self._save(replace(self.state, pools={**self.state.pools, name: pool}))
        return {"PoolID": name, "Pool": str(pool.pool), "Data": {}}

    def release_pool(self, request: OfAddress) -> Answer:
        """Forget a pool, unless a network has it: Docker takes back what it asked for in vain."""
        pool = self.state.pools.get(request.pool)
        if pool is not None and not self._has_network(pool):
            left = {name: each for name, each in self.state.pools.items() if name != request.pool}
            self._save_less(replace(self.state, pools=left))
        return {}

    def request_address(self, request: OfAddress) -> Answer:
        """Give an address of a pool."""
        pool = self.state.pools.get(request.pool)
        if pool is None:
            raise ContainerError(
                f"the pool {request.pool} is not known here: the plugin has lost its state "
                f"({self._store.path}); make the network again: docker network rm, docker network "
                "create"
            )
        address, record = ipam.choose(pool, request, self._tunnel_of(pool))
        if record != pool:
            self._save(replace(self.state, pools={**self.state.pools, request.pool: record}))
        return {"Address": f"{address}/{pool.pool.prefixlen}", "Data": {}}

    def release_address(self, request: OfAddress) -> Answer:
        """Take an address back, unless a container has it: Docker asked for it in vain."""
        pool = self.state.pools.get(request.pool)
        address = request.address
        if pool is not None and address in pool.given and not self._is_in_use(pool, address):
            record = replace(pool, given=pool.given - {address})
            self._save_less(replace(self.state, pools={**self.state.pools, request.pool: record}))
        return {}

    # After a start

    def restore(self) -> None:
        """Set up again what is not there any more; what is there is not touched.

        A network that cannot be set up is logged; the others are.
        """
        for network, record in list(self.state.networks.items()):
            try:
                self._apply(network, record)
                for endpoint, each in record.endpoints.items():
                    if each.joined and not self._wiring.is_plugged(network, endpoint, record):
                        log.info(
                            "endpoint %.12s has lost its interface; restart the container", endpoint
                        )
            except TunnelError as error:
                log.error("network %.12s cannot be set up: %s", network, error)

    def forget_others(self, known: Mapping[str, Set[str]], asked: PluginState) -> None:
        """Remove what Docker says it no longer has.

        `known` are its networks and the ends in them, all that it has of what was here in `asked`.
        """
        for network, record in asked.networks.items():
            if network not in known:
                self.forget_network(network)
                continue
            for endpoint in record.endpoints.keys() - known[network]:
                if not self._wiring.is_plugged(network, endpoint, record):
                    self.forget_endpoint(network, endpoint)
                    self._take_back(record, record.endpoints[endpoint])

    # What they share

    def _choose(
        self,
        request: OfEndpoint,
        port: PortRequest,
        endpoint: EndpointRecord,
        so_far: list[PublishedPort],
    ) -> Iterator[PublishedPort]:
        if port.protocol not in ("tcp", "udp"):
            raise ContainerError(
                f"-p: protocol {port.protocol} cannot be published; use tcp or udp"
            )
        targets = [
            address.ip
            for address in endpoint.addresses
            if port.address is None or port.address.version == address.version
        ]
        if not targets:
            raise ContainerError(
                f"-p {port.address}: the container has no address of that IP version; publish the "
                "port at another address of this host"
            )
        outer = self._outer(request, port, so_far)
        for target in targets:
            yield PublishedPort(port.protocol, port.address, outer, target, port.inner)

    def _outer(self, request: OfEndpoint, port: PortRequest, so_far: list[PublishedPort]) -> int:
        if not port.first:
            return self._wiring.free_port(port.protocol, port.address)
        taken = {
            (each.protocol, each.outer): name
            for record in self.state.networks.values()
            for name, endpoint in record.endpoints.items()
            if name != request.endpoint
            for each in endpoint.published
            if None in (each.address, port.address) or each.address == port.address
        }
        taken |= {(each.protocol, each.outer): request.endpoint for each in so_far}
        why = ""
        for outer in range(port.first, port.last + 1):
            name = taken.get((port.protocol, outer))
            if name is not None:
                why = (
                    f"port {outer} is already published by another container (endpoint {name:.12})"
                )
                continue
            holder = self._wiring.holder(port.protocol, port.address, outer)
            if holder is None:
                return outer
            why = holder
        ports = str(port.first) if port.first == port.last else f"{port.first}-{port.last}"
        raise ContainerError(
            f"-p {ports}:{port.inner}/{port.protocol}: {why}; stop what uses it, or choose another "
            "port or address of this host"
        )

    def _network(self, network: str) -> NetworkRecord:
        record = self.state.networks.get(network)
        if record is None:
            raise ContainerError(
                f"the network {network:.12} is not known here: the plugin has lost its state "
                f"({self._store.path}); make the network again: docker network rm, docker network "
                "create"
            )
        return record

    def _endpoint(self, request: OfEndpoint) -> EndpointRecord:
        endpoint = self._network(request.network).endpoints.get(request.endpoint)
        if endpoint is None:
            raise ContainerError(
                f"endpoint {request.endpoint:.12} is not known here; restart the container: docker "
                "restart NAME"
            )
        return endpoint

    def _refreshed(self, network: str, record: NetworkRecord) -> NetworkRecord:
        """The record with the tunnel's AllowedIPs as they are now, or as they were last seen."""
        try:
            tunnel = self._look_up(record.conf)
        except TunnelError as error:
            log.warning("AllowedIPs of %s are taken as they were: %s", record.conf, error)
            return record
        checks.check_bridge(tunnel, record)
        found = replace(record, allowed=tunnel.allowed)
        if record.bridge:
            found = replace(found, mtu=min(record.mtu, tunnel.mtu))
        if found != record:
            self._save_network(network, found)
        return found

    def _tunnel_of(self, pool: PoolRecord) -> TunnelFacts:
        try:
            return self._look_up(pool.conf)
        except TunnelError:
            for record in self.state.networks.values():
                if record.conf == pool.conf and pool.pool in record.pools:
                    return TunnelFacts(pool.conf, (record.allowed,), record.mtu, record.bridge)
            raise

    def _part(self, conf: str, pool: Network) -> Network | None:
        """What this host may give of a pool, where the user has named it to our own IPAM."""
        found = (e.part for e in self.state.pools.values() if (e.conf, e.pool) == (conf, pool))
        return next(found, None)

    def _has_network(self, pool: PoolRecord) -> bool:
        return any(pool.pool in record.pools for record in self.state.networks.values())

    def _is_in_use(self, pool: PoolRecord, address: IpAddress) -> bool:
        return any(
            each.ip == address
            for record in self.state.networks.values()
            if pool.pool in record.pools
            for endpoint in record.endpoints.values()
            for each in endpoint.addresses
        )

    def _apply(self, network: str, record: NetworkRecord) -> None:
        done = self._wiring.set_up(network, record)
        if done != record:
            self._save_network(network, done)

    @contextlib.contextmanager
    def _changing(self, network: str, record: NetworkRecord) -> Iterator[NetworkRecord]:
        """Have the new record on disk while the machine is changed, and the old one if it fails."""
        before = self.state
        self._save_network(network, record)
        try:
            yield record
        except BaseException:
            with contextlib.suppress(TunnelError):
                if network in before.networks:
                    self._wiring.set_up(network, before.networks[network])
                else:
                    self._wiring.take_down(network, record)
                self._save_less(before)
            raise

    def _take_back(self, record: NetworkRecord, gone: EndpointRecord) -> None:
        """Docker has asked for that in vain, if the end went while the plugin was away."""
        addresses = {address.ip for address in gone.addresses}
        pools = {
            name: replace(pool, given=pool.given - addresses) if pool.pool in record.pools else pool
            for name, pool in self.state.pools.items()
        }
        self._save_less(replace(self.state, pools=pools))

    def _with_network(self, network: str, record: NetworkRecord) -> PluginState:
        return replace(self.state, networks={**self.state.networks, network: record})

    def _save_network(self, network: str, record: NetworkRecord) -> None:
        self._save(self._with_network(network, record))

    def _save(self, state: PluginState) -> None:
        self._store.save(state)
        self.state = state

    def _save_less(self, state: PluginState) -> None:
        """The same where something went: Docker has forgotten it, whatever the disk says.

        The file then names more than there is, and the next start asks Docker.
        """
        self.state = state
        try:
            self._store.save(state)
        except ContainerError as error:
            log.warning("%s names still what was removed: %s", self._store.path, error.__cause__)


def _with(record: NetworkRecord, name: str, endpoint: EndpointRecord) -> NetworkRecord:
    return replace(record, endpoints={**record.endpoints, name: endpoint})


def _static_routes(record: NetworkRecord) -> Iterator[dict[str, object]]:
    """IPv6 of other hosts leads by the gateway; for IPv4 the bridge answers ARP in their place.

    In one Ethernet they answer themselves.
    """
    for pool, gateway in zip(record.pools, record.gateways, strict=True):
        if pool.version == 6 and not record.bridge:
            # In the part of another host, the gateway itself would be looked for behind itself.
            yield {"Destination": f"{gateway.ip}/128", "RouteType": _CONNECTED}
            for part in parts.others(pool, record.allowed):
                yield {"Destination": str(part), "RouteType": _VIA, "NextHop": str(gateway.ip)}


def _mac(address: IpAddress) -> str:
    """As Docker's own: locally administered, from the address."""
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x42, *address.packed[-4:]))


def _pools(record: NetworkRecord) -> str:
    return parts.listing(record.pools)
