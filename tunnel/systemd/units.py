"""The systemd units: rendered for this machine, installed and uninstalled.

The unit `tunnel@.service` is strict. Each drop-in allows one thing that some tunnels need, for all
tunnels or for one: drop-ins in `tunnel@wg0.service.d` are for wg0 only.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunnel.errors import TunnelError
from tunnel.linux.files import replace_file

UNIT = "tunnel@.service"
TARGET = "tunnel.target"
DOCKER = ("tunnel-docker-plugin.service", "tunnel-docker-plugin.socket")
WEB = "tunnel-web@.service"
UNIT_FOLDER = Path("etc/systemd/system")
"""Where an administrator's units are, below the root folder."""

PACKAGED_FOLDER = Path("usr/lib/systemd/system")
"""Where those of a distribution's package are."""

MARK = "# Installed by `tunnel service install"
"""The beginning of the first line of each file; one without it is not ours and stays."""

PLACEHOLDER = "@TUNNEL@"

_SOURCES = Path(__file__).parent

_HOMES = ("/home", "/root", "/run/user")
_TEMPORARY = ("/tmp", "/var/tmp")


class ServiceError(TunnelError):
    """The units cannot be installed or removed; the text says why and what to do."""

    code = "service"


@dataclass(frozen=True, slots=True)
class DropIn:
    """One permission: its name, what it is for (one paragraph), the text of the file."""

    name: str
    purpose: str
    text: str


def drop_ins() -> dict[str, DropIn]:
    """All drop-ins that come with the program, by name."""
    found = {}
    for path in sorted((_SOURCES / "drop-ins").glob("*.conf")):
        text = path.read_text(encoding="utf-8")
        lines = text.splitlines()[1:]
        comment = [line[1:].strip() for line in lines if line.startswith("#")]
        found[path.stem] = DropIn(path.stem, " ".join(comment), text)
    return found


def render(file: str, command: Sequence[str]) -> str:
    """The text of a unit. `command` runs `tunnel`; its first word is an absolute path."""
    text = (_SOURCES / file).read_text(encoding="utf-8")
    return text.replace(PLACEHOLDER, " ".join(map(_quoted, command)))


def packaged(file: str, command: Sequence[str]) -> str:
    """The text of a unit as a package of a distribution has it."""
    first, rest = render(file, command).split("\n", 1)
    _, _, advice = first.partition("`.")
    return f"# Installed by a package.{advice}\n{rest}"


def own_command() -> tuple[str, ...]:
    """What runs this very program: the console script beside its interpreter, or the module."""
    script = Path(sys.executable).with_name("tunnel")
    return (str(script),) if script.exists() else (sys.executable, "-m", "tunnel")


def install(
    root: Path,
    command: Sequence[str],
    *,
    names: tuple[str, ...] = (),
    interface: str | None = None,
    docker: bool = False,
    web: bool = False,
) -> list[Path]:
    """Write the units and the drop-ins `names` below `root`; the files that were changed.

    The drop-ins are for all tunnels, or for `interface` alone. With `docker`, the units of the
    plugin for Docker are among them, with `web` that of pages. A unit that a package has brought
    for the same command is not written again. Raises ServiceError, and then nothing was written
    but what is a whole file.
    """
    known = drop_ins()
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ServiceError(
            f"no drop-in is named {unknown[0]!r}; there are {', '.join(known)}; "
            "tunnel service show describes them"
        )
    in_home = check_program(command[0], root)
    folder = root / UNIT_FOLDER
    files = {
        folder / file: render(file, command)
        for file in (UNIT, TARGET, *(DOCKER if docker else ()), *((WEB,) if web else ()))
        if not _is_packaged(root, file, command)
    }
    for name in names:
        files[_drop_in_folder(folder, interface) / f"{name}.conf"] = known[name].text
    if in_home:
        files[_drop_in_folder(folder, None) / "home.conf"] = _HOME_DROP_IN
        for file in (*(DOCKER[:1] if docker else ()), *((WEB,) if web else ())):
            files[folder / f"{file}.d" / "home.conf"] = _HOME_DROP_IN
    for path in files:
        _check_ours(path)
    return [path for path, text in files.items() if _write(path, text)]


def uninstall(root: Path) -> list[Path]:
    """Remove all that `install` wrote, and only that; what was removed. Raises ServiceError."""
    folder = root / UNIT_FOLDER
    removed = []
    drop_in_files = (
        path
        for name in ("tunnel@*", "tunnel-web@*", "tunnel-docker-plugin")
        for path in folder.glob(f"{name}.service.d/*.conf")
    )
    for path in [*drop_in_files, *(folder / name for name in (UNIT, TARGET, *DOCKER, WEB))]:
        if not path.is_file() or not _is_ours(path):
            continue
        try:
            path.unlink()
            if path.parent != folder:
                with contextlib.suppress(OSError):  # it holds drop-ins that are not ours
                    path.parent.rmdir()
        except OSError as error:
            raise _refused("remove", path, error) from error
        removed.append(path)
    return removed


def enabled(root: Path) -> list[str]:
    """The units that are started at boot, sorted, without `.service`."""
    names = ("tunnel@*.service", "tunnel-web@*.service", *DOCKER)
    links = (link for name in names for link in (root / UNIT_FOLDER).glob(f"*.wants/{name}"))
    return sorted({link.name.removesuffix(".service") for link in links})


def check_program(program: str, root: Path = Path("/")) -> bool:
    """Whether the service needs to see home folders to run `program`.

    Raises ServiceError if a service cannot run it, or if others than root could change what root
    would run: the program, its interpreter, this package, and the folders they are in.
    """
    path = _below(root, program)
    if not os.path.isabs(program) or not os.access(path, os.X_OK):
        raise ServiceError(f"{program} is not the path of an executable program")
    pieces = [program, *_interpreter(path)]
    if root == Path("/"):
        pieces.append(str(Path(__file__).parents[1]))
    in_home = False
    owners = (0, root.stat().st_uid)
    # Links too lead to something that is run, and each of their folders can be exchanged.
    for piece in dict.fromkeys(pieces):
        for place in (_below(root, piece), _below(root, piece).resolve()):
            if place.is_relative_to(root):
                _check_way(place, root, owners)
            inside = Path("/", place.relative_to(root)) if place.is_relative_to(root) else place
            if _is_below(inside, _TEMPORARY):
                raise ServiceError(f"{inside} is in a folder for temporary files; {_ELSEWHERE}")
            in_home = in_home or _is_below(inside, _HOMES)
    return in_home


def _is_packaged(root: Path, file: str, command: Sequence[str]) -> bool:
    try:
        return (root / PACKAGED_FOLDER / file).read_text(encoding="utf-8") == packaged(
            file, command
        )
    except OSError:
        return False


def _check_way(place: Path, root: Path, owners: tuple[int, ...]) -> None:
    while True:
        status = place.stat()
        shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid not in owners or (shared and not status.st_mode & stat.S_ISVTX):
            raise ServiceError(
                f"{place} can be changed by users other than root, who would run it; {_ELSEWHERE}"
            )
        if place == root:
            return
        place = place.parent


def _interpreter(path: Path) -> list[str]:
    """The program that a script's first line names."""
    with path.open("rb") as file:
        line = file.readline(4096)
    words = line[2:].decode(errors="replace").split()
    return words[:1] if line.startswith(b"#!") and words else []


def _below(root: Path, program: str) -> Path:
    return root / program.lstrip("/")


_ELSEWHERE = (
    "install the program where only root can write; in the folder of its sources: "
    "python3 -m venv /opt/tunnel && /opt/tunnel/bin/pip install . && "
    "/opt/tunnel/bin/tunnel service install"
)

_HOME_DROP_IN = f"""{MARK}`.
# The program itself is installed below a home folder, which the unit would hide.
[Service]
ProtectHome=read-only
"""


def _is_below(path: Path, folders: tuple[str, ...]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _drop_in_folder(folder: Path, interface: str | None) -> Path:
    return folder / f"tunnel@{interface or ''}.service.d"


def _quoted(program: str) -> str:
    """As ExecStart= wants it: `%` is a specifier, `$` a variable, blanks end a word."""
    text = program.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"' if any(c in text for c in " \t'\"\\;") else text


def _is_ours(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8").startswith(MARK)
    except UnicodeDecodeError:
        return False
    except OSError as error:
        raise _refused("read", path, error) from error


def _check_ours(path: Path) -> None:
    if path.exists() and not _is_ours(path):
        raise ServiceError(f"{path} already exists and is not ours; move it away, or keep it")


def _write(path: Path, text: str) -> bool:
    """Replace the file by `text`, whole or not at all; whether it had to change."""
    try:
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return False
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        replace_file(path, text, mode=0o644)
    except OSError as error:
        raise _refused("write", path, error) from error
    return True


def _refused(what: str, path: Path, error: OSError) -> ServiceError:
    remedy = "; run it as root (sudo)" if isinstance(error, PermissionError) else ""
    return ServiceError(f"cannot {what} {path}: {error.strerror}{remedy}")
