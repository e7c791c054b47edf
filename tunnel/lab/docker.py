"""A real Docker engine in a host of the lab: dockerd with all it needs, and an image of busybox.

It runs in a PID namespace of its own, so that nothing of it outlives it: no shim, no container.
dockerd is started again when it ends, as a service manager does.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tunnel.lab.errors import LabUnavailableError
from tunnel.lab.host import Host
from tunnel.lab.namespace import outer_uid
from tunnel.lab.process import HostProcess

IMAGE = "busybox"
"""The image that an engine has."""

_PACKAGES = {
    "dockerd": "docker.io",
    "docker": "docker.io",
    "busybox": "busybox-static",
    "iptables": "iptables",
}

# The /run and /sys of a lab's host are its own, and the latter has no cgroups.
_INIT = """\
set -e
mkdir -p /run/docker/plugins /run/docker-plugins
mount --bind /run/docker/plugins /run/docker-plugins
mount -t tmpfs tmpfs /run/docker
mkdir /run/docker/plugins
mount --bind /run/docker-plugins /run/docker/plugins
mount -t cgroup2 cgroup2 /sys/fs/cgroup
while :; do
    rm -f "$1/docker.pid" "$1/exec/containerd/containerd.pid"
    dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/docker.pid" \\
        --host unix:///run/docker.sock --storage-driver vfs --log-level warn $2 || true
done
"""


@dataclass(frozen=True)
class DockerEngine:
    """The engine of `host`; its files are in `folder`."""

    host: Host
    folder: Path

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60) -> str:
        """What `docker ARGUMENTS` prints."""
        command = ["docker", "--host", "unix:///run/docker.sock", *arguments]
        result = self.host.run(command, check=check, timeout=timeout)
        return result.stdout if check else result.stdout + result.stderr

    def answers(self) -> bool:
        """Whether dockerd takes requests."""
        return "Server:" in self.docker("version", check=False)

    def wait(self) -> None:
        """Return when dockerd answers, and has IMAGE."""
        self.host.wait_for(self.answers, 30, "dockerd to answer")
        if not self.docker("images", "--quiet", IMAGE):
            self.docker("import", str(make_image(self.host, self.folder)), IMAGE)

    def pid(self) -> int:
        """The process of dockerd."""
        named = {pid: Path(f"/proc/{pid}/comm") for pid in self.host.pids()}
        (found,) = (pid for pid, name in named.items() if name.read_text().strip() == "dockerd")
        return found

    def start(self, name: str, *options: str) -> None:
        """A container that does nothing, until it is removed."""
        self.docker("run", "-d", "--name", name, *options, IMAGE, "/bin/sleep", "600")

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        """What a command in a container prints."""
        return self.docker("exec", name, *command, check=check)

    def address(self, name: str) -> str:
        """The IPv4 address of a container."""
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        return self.docker("inspect", "--format", form, name).strip()


def check() -> None:
    """Raise LabUnavailableError, with the remedy, if no engine can run on this machine."""
    missing = [program for program in _PACKAGES if shutil.which(program) is None]
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in missing))
        raise LabUnavailableError(
            f"a Docker engine needs {', '.join(missing)}",
            f"sudo apt-get install --no-install-recommends {packages}",
        )
    if outer_uid() != 0:
        raise LabUnavailableError(
            "a Docker engine needs root, not the root of a user namespace",
            "run the same command with sudo",
        )


def start(host: Host, *options: str) -> tuple[DockerEngine, HostProcess]:
    """An engine that will answer soon (`wait`), and the process that it is all gone with.

    `options` are dockerd's. It finds plugins where the host has them, in /run/docker/plugins.
    """
    folder = host.directory / "docker"
    folder.mkdir()
    space = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
    words = ["sh", "-c", _INIT, "sh", str(folder), " ".join(options)]
    return DockerEngine(host, folder), host.popen([*space, *words])


@contextlib.contextmanager
def engine(host: Host, *options: str) -> Iterator[DockerEngine]:
    """An engine that answers and has IMAGE, as of `start`; all of it is gone at the end."""
    found, process = start(host, *options)
    try:
        found.wait()
        yield found
    finally:
        process.kill()


def make_image(host: Host, folder: Path) -> Path:
    """An archive of a file system with busybox and a link for each of its programs."""
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "etc").mkdir()
    copy = 'cp "$(readlink -f "$(command -v busybox)")" "$0"'
    host.run(["sh", "-c", copy, str(root / "bin" / "busybox")])
    host.run(["busybox", "--install", "-s", str(root / "bin")])
    for link in (root / "bin").iterdir():
        if link.is_symlink():
            link.unlink()
            link.symlink_to("busybox")
    archive = folder / "image.tar"
    host.run(["busybox", "tar", "-C", str(root), "-cf", str(archive), "."])
    return archive
