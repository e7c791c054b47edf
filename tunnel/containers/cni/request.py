"""What a container runtime asks for: the variables CNI_* and the network configuration."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.containers.cni.errors import CniCode, CniError
from tunnel.linux.json_text import read_json

VERSIONS = ("0.4.0", "1.0.0", "1.1.0")
"""Those of the specification that we speak, the newest last."""

_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": (),
    "VERSION": (),
}
_SINCE_1_1 = ("GC", "STATUS")
"""What a network of an older version may not be asked."""
_VALID = "cni.dev/valid-attachments"
_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_MAX_NAME = 15
_MTU = range(576, 65536)


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """A network: `conf` names the tunnel, `raw` is the configuration as it came.

    `masquerade` has containers leave this host under its own address, as ipMasq of CNI's own
    plugins. `mtu` 0 is that of the tunnel.
    """

    version: str
    name: str
    conf: str
    bridge: str
    masquerade: bool
    mtu: int
    ipam: str
    raw: Mapping[str, Any]

    @property
    def previous(self) -> Mapping[str, Any] | None:
        """The result of ADD, which CHECK is given."""
        found = self.raw.get("prevResult")
        return found if isinstance(found, dict) else None

    def valid_outers(self) -> set[str]:
        """The veth ends on the host of all containers that there are, which GC is given.

        Raises CniError without a list, which is not one of no containers.
        """
        found = self.raw.get(_VALID)
        try:
            if not isinstance(found, list):
                raise TypeError
            return {outer_name(str(each["containerID"]), str(each["ifname"])) for each in found}
        except (TypeError, KeyError, ValueError):
            raise _invalid(f"GC needs {_VALID}, a list of containerID and ifname") from None


@dataclass(frozen=True, slots=True)
class CniRequest:
    """One call: `command` about the interface of one container in one network."""

    command: str
    container: str
    netns: str
    interface: str
    path: tuple[Path, ...]
    config: NetworkConfig

    @property
    def outer(self) -> str:
        """The name of the veth's end on the host: for one container, the same each time."""
        return outer_name(self.container, self.interface)

    @property
    def inner(self) -> str:
        """The name of the other end until it is in the container."""
        return f"tc-{self.outer.removeprefix('tv-')}"


def outer_name(container: str, interface: str) -> str:
    """What the veth's end on the host of a container's interface is called."""
    return f"tv-{_digest(f'{container}/{interface}')}"


def version_of(text: str) -> str:
    """The version that an answer to this input is written in: ours, if it is none of them."""
    try:
        asked = read_json(text).get("cniVersion")
    except (ValueError, AttributeError):
        asked = None
    return asked if asked in VERSIONS else VERSIONS[-1]


def parse_request(environment: Mapping[str, str], text: str) -> CniRequest:
    """Read a call. `text` is standard input. Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    if command not in _NEEDED:
        raise CniError(
            CniCode.INVALID_ENVIRONMENT,
            "CNI_COMMAND has to be one of " + ", ".join(_NEEDED),
            f"found: {command or 'none'}; a container runtime calls this program, not a person",
        )
    missing = [name for name in _NEEDED[command] if not environment.get(name)]
    if missing:
        raise CniError(
            CniCode.INVALID_ENVIRONMENT, f"{command} needs {', '.join(missing)}", "not set"
        )
    container = environment.get("CNI_CONTAINERID", "")
    interface = environment.get("CNI_IFNAME", "")
    if container and not _ID.fullmatch(container):
        raise CniError(
            CniCode.INVALID_ENVIRONMENT, "CNI_CONTAINERID is not a container ID", container
        )
    if interface and not _is_interface(interface):
        raise CniError(
            CniCode.INVALID_ENVIRONMENT, "CNI_IFNAME is not an interface name", interface
        )
    network = parse_network(text)
    if command in _SINCE_1_1 and network.version != VERSIONS[-1]:
        raise CniError(
            CniCode.INCOMPATIBLE_VERSION, f"cniVersion {network.version} has no {command}"
        )
    folders = environment.get("CNI_PATH", "").split(":")
    return CniRequest(
        command,
        container,
        environment.get("CNI_NETNS", ""),
        interface,
        tuple(Path(folder) for folder in folders if folder),
        network,
    )


def parse_network(text: str) -> NetworkConfig:
    """Read a network configuration. Raises CniError."""
    try:
        raw = read_json(text)
    except ValueError as error:
        raise CniError(
            CniCode.UNDECODABLE, "the network configuration is not JSON", str(error)
        ) from None
    if not isinstance(raw, dict):
        raise _invalid("it has to be an object")
    version = raw.get("cniVersion", "0.1.0")
    if version not in VERSIONS:
        raise CniError(
            CniCode.INCOMPATIBLE_VERSION,
            f"cniVersion {version} is not supported",
            f"supported: {', '.join(VERSIONS)}",
        )
    name = raw.get("name")
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise _invalid("name has to be the name of the network")
    conf = raw.get("conf")
    try:
        check_name(conf if isinstance(conf, str) else "")
    except Mistake as mistake:
        raise _invalid(
            f'conf has to name a tunnel, as in "conf": "wg0"; the name {mistake.fault}'
        ) from None
    bridge = raw.get("bridge", f"tn-{_digest(name)}")
    if not isinstance(bridge, str) or not _is_interface(bridge):
        raise _invalid(f"bridge has to be an interface name, up to {_MAX_NAME} characters")
    masquerade, mtu = raw.get("ipMasq", False), raw.get("mtu", 0)
    if not isinstance(masquerade, bool):
        raise _invalid("ipMasq has to be true or false")
    if isinstance(mtu, bool) or not isinstance(mtu, int) or (mtu and mtu not in _MTU):
        raise _invalid(f"mtu has to be a number from {_MTU[0]} to {_MTU[-1]}, or 0")
    ipam = raw.get("ipam")
    kind = ipam.get("type") if isinstance(ipam, dict) else None
    if not isinstance(kind, str) or not kind or "/" in kind:
        raise _invalid('ipam has to name a plugin: "ipam": {"type": "host-local", …}')
    return NetworkConfig(version, name, str(conf), bridge, masquerade, mtu, kind, raw)


def _invalid(message: str) -> CniError:
    return CniError(CniCode.INVALID_CONFIG, f"the network configuration: {message}")


def _is_interface(name: str) -> bool:
    unfit = any(sign in "/:" or sign.isspace() or not sign.isprintable() for sign in name)
    # What cannot be printed may not even be encoded.
    return not unfit and 0 < len(name.encode()) <= _MAX_NAME and name not in (".", "..")


def _digest(text: str) -> str:
    """Twelve hexadecimal digits, with which a name of an interface is as long as it may be."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
