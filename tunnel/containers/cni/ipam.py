"""Addresses, by the plugin that a network configuration names: delegation, as the specification
has it. The plugin gets the same environment and the same configuration.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from tunnel.containers.cni.errors import CniCode, CniError
from tunnel.containers.cni.request import CniRequest
from tunnel.host.gateway import IpAddress, Network
from tunnel.linux.json_text import as_text, read_json

_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Lease:
    """What a container was given: addresses, the gateway of each, and routes."""

    addresses: tuple[IPv4Interface | IPv6Interface, ...]
    gateways: tuple[IpAddress, ...]
    routes: tuple[tuple[Network, IpAddress | None], ...] = ()
    dns: Mapping[str, Any] = field(default_factory=dict)

    def gateway(self, version: int) -> IpAddress | None:
        """The gateway of that IP version."""
        return next((each for each in self.gateways if each.version == version), None)


def lease(request: CniRequest) -> Lease:
    """ADD of the IPAM plugin. Raises CniError."""
    return read_lease(_call(request))


def check(request: CniRequest) -> None:
    """CHECK of the IPAM plugin. Raises CniError if the address is not the container's."""
    _call(request)


def release(request: CniRequest) -> None:
    """DEL of the IPAM plugin; no error if there is nothing to release. Raises CniError."""
    _call(request, "DEL")


def pass_on(request: CniRequest) -> None:
    """The same command of the IPAM plugin, as it is: GC or STATUS. Raises CniError."""
    _call(request)


def read_lease(answer: Mapping[str, Any]) -> Lease:
    """The part of a result that is about addresses. Raises CniError."""
    try:
        entries = answer["ips"]
        addresses = tuple(ip_interface(as_text(entry["address"])) for entry in entries)
        gateways = tuple(ip_address(as_text(entry["gateway"])) for entry in entries)
        routes = tuple(
            (
                ip_network(as_text(entry["dst"])),
                ip_address(as_text(entry["gw"])) if entry.get("gw") else None,
            )
            for entry in answer.get("routes") or ()
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CniError(
            CniCode.IPAM,
            "the addresses, gateways or routes of the IPAM plugin cannot be read",
            f"{error!r}; each address needs a gateway",
        ) from None
    if not addresses:
        raise CniError(CniCode.IPAM, "the IPAM plugin gave no address")
    return Lease(addresses, gateways, routes, answer.get("dns") or {})


def _call(request: CniRequest, command: str = "") -> Mapping[str, Any]:
    program = _find(request)
    environment = dict(os.environ)
    if command:
        environment["CNI_COMMAND"] = command
    try:
        done = subprocess.run(
            [program],
            input=json.dumps(request.config.raw),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            env=environment,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CniError(CniCode.IPAM, f"{program} cannot be run", str(error)) from None
    answer: object = None
    with contextlib.suppress(ValueError):
        answer = read_json(done.stdout) if done.stdout.strip() else {}
    if not isinstance(answer, dict):
        raise CniError(CniCode.IPAM, f"{program} printed no JSON object", done.stdout[:200])
    if done.returncode != 0:
        # The runtime gets the plugin's own code and message.
        number = answer.get("code")
        raise CniError(
            number if isinstance(number, int) else CniCode.IPAM,
            str(answer.get("msg") or f"{program}: status {done.returncode}"),
            str(answer.get("details") or done.stderr.strip()),
        )
    return answer


def _find(request: CniRequest) -> Path:
    for folder in request.path:
        program = folder / request.config.ipam
        if os.access(program, os.X_OK) and program.is_file():
            return program
    raise CniError(
        CniCode.IPAM,
        f"the IPAM plugin {request.config.ipam} is not in CNI_PATH",
        f"looked in: {', '.join(map(str, request.path)) or 'nowhere'}; Debian's plugins are in "
        "the package containernetworking-plugins, in /usr/lib/cni",
    )
