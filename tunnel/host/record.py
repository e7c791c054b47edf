"""What was done to the machine for one tunnel, on disk: so that `down` works after a kill -9.

One JSON file per tunnel, NAME.state. It is written before anything is changed (what may have been
done is recorded, and undoing what was not done is harmless), and always whole: a full disk leaves
the old one as it was.
"""

import contextlib
import errno
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

from tunnel.host.errors import HostError
from tunnel.host.gateway import Gate
from tunnel.host.state import (
    Address,
    Bridge,
    BridgePort,
    Dns,
    DockerPasses,
    Firewall,
    Item,
    Link,
    Route,
    Rule,
    Sysctl,
)
from tunnel.linux.files import RUN_FOLDER, read_plain, replace_file
from tunnel.linux.json_text import as_text, check_fields, read_json
from tunnel.linux.netns import namespace_id

STATE_DIR = RUN_FOLDER
_VERSION = 1
_MOVE_AWAY = "move away what has that name"
_KINDS: dict[str, type[Item]] = {
    "bridge": Bridge,
    "port": BridgePort,
    "address": Address,
    "link": Link,
    "route": Route,
    "rule": Rule,
    "sysctl": Sysctl,
    "firewall": Firewall,
    "docker": DockerPasses,
    "dns": Dns,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


@dataclass(frozen=True, slots=True)
class DownHooks:
    """What is to be run when a tunnel goes down, or was killed.

    `seconds` is the time limit of each, 0 for none. `save_config` is the key SaveConfig. `unsure`
    says that the hooks of `up` may not all have been run, `begun` that the first command here was
    begun: in both cases a command may find nothing to undo.
    """

    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()
    seconds: float = 0
    save_config: bool = False
    unsure: bool = False
    begun: bool = False

    def are_left(self) -> bool:
        """Whether there is any command."""
        return bool(self.pre_down or self.post_down)


@dataclass(frozen=True, slots=True)
class Record:
    """What may have been done for `interface`.

    `ifindex` (0 until something is done) and `netns` (inode of the namespace) distinguish our
    device from a later one of the same name; `sysctls` holds the values found before, `dns` how
    name servers were set, and `firewall` is the fingerprint of our table as it was when we set it.
    `hooks` are there from before the first hook of `up` until they have run; `servers` are those of
    resolv.conf once ours were set. `place` is the path of the namespace, where it is another than
    the daemon's.
    """

    interface: str
    ifindex: int
    netns: int
    items: tuple[Item, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    dns: str = ""
    owner: str = ""
    firewall: str = ""
    hooks: DownHooks = DownHooks()
    servers: str = ""
    place: str = ""

    def is_here(self) -> bool:
        """Whether it is of the calling thread's network namespace, or of one that it was put in."""
        return bool(self.place) or self.netns == namespace_id()


def record_path(interface: str, state_dir: Path = STATE_DIR) -> Path:
    """Where the record of that tunnel is kept."""
    return state_dir / f"{interface}.state"


def save_record(record: Record, state_dir: Path = STATE_DIR) -> None:
    """Write the record so that at any time either the old or the new one is there whole.

    Raises HostError, with the old one untouched, when the disk refuses.
    """
    path = record_path(record.interface, state_dir)
    with contextlib.suppress(HostError):
        if load_record(record.interface, state_dir) == record:
            return  # where nothing changes, a full disk is no reason to take a tunnel down
    try:
        state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, render(record))
    except OSError as error:
        remedy = _MOVE_AWAY if error.errno == errno.EISDIR else ""
        raise HostError.from_errno(
            "write state file", str(path), error.errno or 0, remedy
        ) from error


def load_record(interface: str, state_dir: Path = STATE_DIR) -> Record | None:
    """The record of that tunnel, None if there is none. Raises HostError if it is not valid."""
    path = record_path(interface, state_dir)
    try:
        text = read_plain(path)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        raise HostError("read state file", str(path), reason, _MOVE_AWAY) from error
    try:
        return parse(text)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise HostError(
            "read state file", str(path), f"not a record of ours: {error}", "delete the file"
        ) from error


def keep_hooks(interface: str, hooks: DownHooks, state_dir: Path = STATE_DIR) -> None:
    """Have `hooks`, and no others, in the record of that tunnel; if it has none, one is made.

    A record of nothing is deleted. Raises HostError.
    """
    record = load_record(interface, state_dir) or Record(interface, 0, namespace_id())
    if record.hooks != hooks:
        keep_rest(replace(record, hooks=hooks), state_dir)


def keep_rest(record: Record, state_dir: Path = STATE_DIR) -> None:
    """Write a record of which something is done; delete one of which nothing is left."""
    if record.items or record.hooks.are_left():
        save_record(record, state_dir)
    else:
        delete_record(record.interface, state_dir)


def delete_record(interface: str, state_dir: Path = STATE_DIR) -> None:
    """Forget that tunnel."""
    path = record_path(interface, state_dir)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise HostError.from_errno("delete state file", str(path), error.errno or 0) from error


def other_records(interface: str, state_dir: Path = STATE_DIR) -> Iterable[Record]:
    """The readable records of all other tunnels."""
    for path in sorted(state_dir.glob("*.state")):
        if path != record_path(interface, state_dir):
            with contextlib.suppress(HostError):
                record = load_record(path.name.removesuffix(".state"), state_dir)
                if record is not None:
                    yield record


def render(record: Record) -> str:
    """The record as JSON text."""
    document = {
        "version": _VERSION,
        "interface": record.interface,
        "ifindex": record.ifindex,
        "netns": record.netns,
        "items": [_item_to_json(item) for item in record.items],
        "sysctls": dict(record.sysctls),
        "dns": record.dns,
        "owner": record.owner,
        "firewall": record.firewall,
        "hooks": asdict(record.hooks),
        "servers": record.servers,
        "place": record.place,
    }
    return json.dumps(document, indent=1) + "\n"


def parse(text: str) -> Record:
    """The inverse of `render`. Raises what Python does on anything else."""
    document = read_json(text)
    if document["version"] != _VERSION:
        raise ValueError(f"version {document['version']}, expected {_VERSION}")
    record = Record(
        interface=str(document["interface"]),
        ifindex=int(document["ifindex"]),
        netns=int(document["netns"]),
        items=tuple(_item_from_json(item) for item in document["items"]),
        sysctls=tuple((str(name), str(old)) for name, old in document["sysctls"].items()),
        dns=str(document["dns"]),
        owner=str(document.get("owner", "")),
        firewall=str(document.get("firewall", "")),
        hooks=_hooks_from_json(document.get("hooks", {})),
        servers=str(document.get("servers", "")),
        place=str(document.get("place", "")),
    )
    return check_fields(record)


def _hooks_from_json(document: dict[str, Any]) -> DownHooks:
    return DownHooks(
        pre_down=tuple(map(str, document.get("pre_down", ()))),
        post_down=tuple(map(str, document.get("post_down", ()))),
        seconds=float(document.get("seconds", 0)),
        save_config=bool(document.get("save_config", False)),
        unsure=bool(document.get("unsure", False)),
        begun=bool(document.get("begun", False)),
    )


def _item_to_json(item: Item) -> dict[str, Any]:
    return {
        "kind": _NAMES[type(item)],
        **{field.name: _plain(getattr(item, field.name)) for field in fields(item)},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    if isinstance(value, Gate):
        return asdict(value)
    return value if isinstance(value, int | str) else str(value)


def _item_from_json(document: dict[str, Any]) -> Item:
    values = dict(document)
    kind = _KINDS[values.pop("kind")]
    if kind is Address:
        values["value"] = ip_interface(as_text(values["value"]))
    elif kind is Route:
        values["destination"] = ip_network(as_text(values["destination"]))
    elif kind is Firewall:
        values["versions"] = tuple(values["versions"])
        values["addresses"] = tuple(map(ip_address, map(as_text, values["addresses"])))
        values["gates"] = tuple(map(_gate_from_json, values.get("gates", ())))
    elif kind is Dns:
        values["servers"] = tuple(map(ip_address, map(as_text, values["servers"])))
        values["search"] = tuple(values["search"])
    return kind(**values)


def _gate_from_json(document: dict[str, Any]) -> Gate:
    rules = tuple((str(chain), str(rule)) for chain, rule in document["rules"])
    return Gate(str(document["entry"]), rules, bool(document["stays"]))
