"""What the Docker engine of this host says of its networks and containers, asked at its API.

Never asked while Docker waits for an answer of ours: it may hold a lock that it needs for its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from tunnel.containers.errors import ContainerError
from tunnel.host import container_engine
from tunnel.host.container_engine import Answer
from tunnel.host.gateway import IpAddress
from tunnel.linux.json_text import as_text, read_json


@dataclass(frozen=True, slots=True)
class NetworkView:
    """A network as Docker has it: its name, the ends in it, and the addresses by name."""

    name: str
    endpoints: frozenset[str]
    addresses: dict[str, tuple[IpAddress, ...]] = field(default_factory=dict)


class DockerApi:
    """The API of an engine, at a unix socket."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._aliases: dict[str, tuple[str, ...]] = {}

    async def network(self, network: str, *, names: bool = False) -> NetworkView | None:
        """What Docker has of a network; None if it has none of that identifier.

        With `names`, those of its containers, in lower case. Raises ContainerError, HostError.
        """
        try:
            return await self._network_untrusted(network, names=names)
        except (AttributeError, TypeError, ValueError) as error:
            raise ContainerError(
                f"Docker's answer for network {network:.12} cannot be read: {error}"
            ) from error

    async def _network_untrusted(self, network: str, *, names: bool) -> NetworkView | None:
        status, data = await self._get(f"/networks/{network}")
        if status == 404:
            return None
        if status != 200 or not isinstance(data, dict):
            raise ContainerError(f"Docker answers {status} to a question for network {network:.12}")
        containers: dict[str, Any] = data.get("Containers") or {}
        ends = frozenset(str(each.get("EndpointID")) for each in containers.values())
        name = str(data.get("Name", ""))
        found: dict[str, tuple[IpAddress, ...]] = {}
        if names:
            for container, each in containers.items():
                texts = (each.get("IPv4Address"), each.get("IPv6Address"))
                addresses = tuple(ip_interface(as_text(text)).ip for text in texts if text)
                endpoint = str(each.get("EndpointID"))
                known = (str(each.get("Name")), *await self._others(container, network, endpoint))
                for one in dict.fromkeys(known):
                    key = one.lower()
                    found[key] = (*found.get(key, ()), *addresses)
        return NetworkView(name, ends, found)

    async def _others(self, container: str, network: str, endpoint: str) -> tuple[str, ...]:
        """Names of a container beside its own; they stay the same as long as the end does."""
        if endpoint not in self._aliases:
            status, data = await self._get(f"/containers/{container}/json")
            if status != 200 or not isinstance(data, dict):
                return ()  # it has gone meanwhile
            if len(self._aliases) > 4096:
                self._aliases.clear()
            every: dict[str, Any] = (data.get("NetworkSettings") or {}).get("Networks") or {}
            aliases: list[str] = []
            for each in every.values():
                if each.get("NetworkID") == network:
                    aliases = each.get("DNSNames") or each.get("Aliases") or []
            self._aliases[endpoint] = (container[:12], *map(str, aliases))
        return self._aliases[endpoint]

    async def _get(self, target: str) -> tuple[int, object]:
        return _read_untrusted(target, await container_engine.ask(self._path, target))


def _read_untrusted(target: str, answer: Answer) -> tuple[int, object]:
    try:
        return answer.status, read_json(answer.body)
    except ValueError:
        raise ContainerError(f"Docker's answer to {target} cannot be read") from None
