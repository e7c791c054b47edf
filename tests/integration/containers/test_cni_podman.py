"""Podman with its CNI backend: `tunnel-cni` in a chain with CNI's own portmap."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cni import bring_up
from tests.support.hosts import TwoHosts
from tunnel.lab import Host
from tunnel.lab.docker import IMAGE, make_image

PROGRAMS = ("podman", "conmon", "runc", "busybox", "iptables", "ip6tables")

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.foreign("host-local", "portmap", "curl", *PROGRAMS),
]

CONF = """\
[network]
network_backend = "cni"
cni_plugin_dirs = ["{ours}", "{theirs}"]
network_config_dir = "{folder}"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
runtime = "runc"
"""

CONTAINER = ["/bin/sh", "-c", "echo hello >/index.html; exec httpd -f -p 80 -h /"]
# A machine may grant no larger limits, and no controllers of cgroups.
LIMITS = ["--pids-limit=0", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096"]


@dataclass(frozen=True)
class Podman:
    """Podman on `host`, with all its files in `folder`."""

    host: Host
    folder: Path

    @property
    def words(self) -> list[str]:
        """What its commands begin with."""
        place = [f"--root={self.folder}/data", f"--runroot={self.folder}/run"]
        conf = f"CONTAINERS_CONF={self.folder}/containers.conf"
        folder = f"--tmpdir={self.folder}/tmp"
        return ["env", conf, "podman", *place, "--storage-driver=vfs", folder]

    def __call__(self, *arguments: str) -> str:
        return self.host.run([*self.words, *arguments], timeout=60).stdout


@pytest.fixture(name="podman")
def podman_fixture(two_hosts: TwoHosts) -> Iterator[Podman]:
    runtime, _ = bring_up([two_hosts.a, two_hosts.b])
    host, folder = two_hosts.a, two_hosts.a.directory / "podman"
    folder.mkdir()
    local = shutil.which("host-local")
    assert local is not None
    (folder / "containers.conf").write_text(
        CONF.format(ours=runtime.program.parent, theirs=Path(local).parent, folder=folder)
    )
    # The way back for who calls by a published port.
    runtime.config["ipam"]["routes"] = [{"dst": "0.0.0.0/0"}]
    ours = {key: value for key, value in runtime.config.items() if key != "cniVersion"}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    chain = {"cniVersion": "1.0.0", "name": "net", "plugins": [ours, ports]}
    (folder / "net.conflist").write_text(json.dumps(chain))
    # What libcni and podman keep elsewhere.
    for place in ("/var/lib", "/dev/shm"):
        host.run(["mount", "-t", "tmpfs", "tmpfs", place])
    host.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])
    podman = Podman(host, folder)
    podman("import", str(make_image(host, folder)), IMAGE)
    yield podman
    podman("rm", "--force", "--time=0", "--all")
    with contextlib.suppress(OSError):
        Path("/sys/fs/cgroup/libpod_parent").rmdir()


@pytest.mark.slow
def test_a_container_of_podman_is_in_the_tunnels_network(
    podman: Podman, two_hosts: TwoHosts
) -> None:
    before = podman.host.interfaces()
    podman("run", "-d", *LIMITS, "--name=one", "--network=net", "-p=8080:80", IMAGE, *CONTAINER)
    assert "10.90.1.2/24" in podman("exec", "one", "ip", "address")
    podman("exec", "one", "ping", "-c", "1", "-w", "5", "10.77.0.2")
    for address in ("10.90.1.2", "192.0.2.1:8080", "10.77.0.1:8080"):
        url = f"http://{address}/"
        assert two_hosts.b.run(["curl", "-s", "-m", "5", url]).stdout == "hello\n"
    podman("rm", "--force", "--time=0", "one")
    assert podman.host.interfaces() == before


@pytest.mark.slow
def test_a_container_is_found_by_podmans_api(podman: Podman, two_hosts: TwoHosts) -> None:
    host, path = podman.host, f"{podman.folder}/podman.sock"
    service = host.popen([*podman.words, "system", "service", "--time=0", f"unix://{path}"])
    host.wait_for(lambda: Path(path).is_socket(), 20, "podman's socket")
    run = ("run", "-d", *LIMITS, "--name=one", "--network=none", IMAGE, "/bin/sleep", "600")
    podman(*run)
    attach = ["attach", "office", "--container", "one", "--docker-host", f"unix://{path}"]
    host.run([sys.executable, "-m", "tunnel", *attach])
    podman("exec", "one", "ping", "-c", "1", "-w", "10", "10.77.0.2")
    assert "office" not in host.interfaces()
    # Another one of its name, which podman reports.
    podman("rm", "--force", "--time=0", "one")
    podman(*run)
    inside = "ip address show office || true"
    host.wait_for(lambda: "10.77.0.1" in podman("exec", "one", "sh", "-c", inside), 20, "office")
    host.run([sys.executable, "-m", "tunnel", "detach", "office"])
    two_hosts.b.ping("10.77.0.1")
    service.stop()
