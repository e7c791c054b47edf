"""What a tunnel can be attached to, where that is now, and the record of what was asked for."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.daemon.host_state import Location
from tunnel.errors import DaemonError
from tunnel.host import container_engine
from tunnel.host.container_engine import Container
from tunnel.host.resolv_conf import is_same
from tunnel.linux.files import RUN_FOLDER, read_plain, replace_file
from tunnel.linux.json_text import check_fields, read_json
from tunnel.linux.netns import namespace_id
from tunnel.linux.processes import netns_inode, start_time
from tunnel.linux.rights import Capability, raised

_KINDS = {"container": "container", "pid": "process", "netns": "network namespace"}


@dataclass(frozen=True, slots=True)
class Target:
    """A container, a process or a named network namespace: `kind` as in the options of `attach`.

    A container is asked for by its `id`, and when that is gone by its `name`, at the socket
    `engine`. `started` tells a process from a later one of the same number.
    """

    kind: str
    name: str
    id: str = ""
    engine: str = ""
    started: int = 0

    def __str__(self) -> str:
        return f"{_KINDS.get(self.kind, self.kind)} {self.name}"


@dataclass(frozen=True, slots=True)
class Found:
    """Where the target is: in the namespace of process `pid`, 0 if that is kept by its name."""

    place: Location
    pid: int = 0


def record_path(name: str) -> Path:
    """Where it is recorded to what the tunnel of that name is attached."""
    return RUN_FOLDER / f"{name}.attach"


def load(name: str) -> Target | None:
    """What was recorded for the tunnel, also when its daemon was killed. Raises DaemonError."""
    return read_target(record_path(name))


def read_target(path: Path) -> Target | None:
    """What was recorded in that file, None if there is none. Raises DaemonError."""
    try:
        target = check_fields(Target(**read_json(read_plain(path))))
        if target.kind not in _KINDS:
            raise ValueError(target.kind)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DaemonError(f"cannot read {path}: {error.strerror}; run it as root") from error
    except (ValueError, TypeError) as error:
        raise DaemonError(
            f"{path} does not say to what the tunnel is attached: delete it, then attach again"
        ) from error
    return target


def save(name: str, target: Target | None) -> None:
    """Record it, or that there is none. Raises DaemonError."""
    path = record_path(name)
    try:
        if target is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            replace_file(path, json.dumps(asdict(target)) + "\n")
    except OSError as error:
        raise DaemonError(f"cannot write {path}: {error.strerror}; run it as root") from error


def check_conf(config: TunnelConfig, target: Target) -> None:
    """Raise DaemonError if the conf has a place of its own, or guards the one it would leave."""
    options = config.interface.options
    if options.netns:
        key, why = "NetNS", "puts the interface into another network namespace"
    elif options.kill_switch:
        key, why = (
            "KillSwitch",
            "guards this host, and nothing leaves past the tunnel from a container that was "
            "started with --network none",
        )
    elif not options.attach:
        key, why = "Attach", "has the daemon give up the rights for it"
    else:
        return
    raise DaemonError(
        f"{config.name} cannot be attached to {target}: {key} in its conf {why}; remove that line, "
        f"then: tunnel restart {config.name}; or leave the tunnel on this host: tunnel detach "
        f"{config.name}"
    )


async def choose(kind: str, name: str, docker_host: str) -> tuple[Target, Found, tuple[str, ...]]:
    """The target that a user means, where it is now, and what is to be known of it.

    Raises DaemonError if there is none, or it is no place for a tunnel, and HostError.
    """
    if not name.isprintable() or not name.strip(".") or "/" in name:
        raise DaemonError("give the name of a container or namespace, or the number of a process")
    notes: tuple[str, ...] = ()
    match kind:
        case "container":
            engine = container_engine.socket_of(docker_host)
            container = await container_engine.find_container(engine, name)
            if container is None:
                raise DaemonError(
                    f"there is no container {name} at {engine}; list them: {_list_command(engine)}"
                )
            target = Target(kind, container.name, container.id, engine)
            _check_container(container)
            notes = _notes_on(container)
            found = _in_container(container)
        case "pid":
            target = Target(kind, name, started=start_time(name))
            if not target.started:
                raise DaemonError(f"there is no process {name}; list them: ps -e")
            found = await find(target)
        case "netns":
            target = Target(kind, name)
            found = await find(target)
            if found is None:
                raise DaemonError(f"there is no network namespace {name}; list them: ip netns list")
        case _:
            raise DaemonError(f"a tunnel is attached to a container, pid or netns, not to {kind!r}")
    if found is None or found.place.netns is None:
        raise DaemonError(f"{target} has just ended; try again")
    if netns_inode(found.place.netns) == namespace_id():
        raise DaemonError(
            f"{target} is in the network namespace of this host, where the tunnel is already: "
            "there is nothing to attach"
        )
    return target, found, notes


async def find(target: Target) -> Found | None:
    """Where the target is now; None if it does not run. Raises HostError."""
    match target.kind:
        case "container":
            for name in (target.id, target.name):
                container = await container_engine.find_container(target.engine, name)
                if container is not None:
                    return _in_container(container)
            return None
        case "pid":
            pid = int(target.name)
            netns = f"/proc/{pid}/ns/net"
            if start_time(target.name) != target.started or not _is_there(netns):
                return None
            return Found(Location(netns, host.resolv_conf_of(netns)), pid)
        case _:
            netns = f"/run/netns/{target.name}"
            return Found(Location(netns, host.resolv_conf_of(netns))) if _is_there(netns) else None


def _list_command(engine: str) -> str:
    return f"{'podman' if 'podman' in engine else 'docker'} ps -a"


def _check_container(container: Container) -> None:
    name = container.name
    if container.network == "host":
        raise DaemonError(
            f"container {name} uses the network of this host (--network host), where the tunnel is "
            "already: there is nothing to attach"
        )
    if not container.pid:
        raise DaemonError(
            f"container {name} is not running: start it (docker start {name}), then attach again"
        )


def _notes_on(container: Container) -> tuple[str, ...]:
    kind, _, other = container.network.partition(":")
    if kind != "container":
        return ()
    return (f"it shares the network of container {other[:12]}, which has the tunnel, too",)


def _in_container(container: Container) -> Found | None:
    netns = f"/proc/{container.pid}/ns/net"
    if not container.pid or not _is_there(netns):
        return None
    inside = f"/proc/{container.pid}/root/etc/resolv.conf"
    own = container.resolv_conf
    # The file of the host can be put back when the container is gone.
    file = own if own and is_same(own, inside) else host.resolv_conf_of(netns)
    return Found(Location(netns, file), container.pid)


def _is_there(netns: str) -> bool:
    """Whether it is a namespace, and not just the file that `ip netns` mounts one on."""
    with contextlib.suppress(OSError), raised(Capability.SYS_PTRACE):
        return os.stat(netns).st_dev == os.stat("/proc/self/ns/net").st_dev
    return False
