"""The image for containers: built by a real engine, it carries packets with two rights."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from packages import image
from tests.support.docker import PROGRAMS, DockerEngine, engine
from tests.support.docker_hosts import compose
from tests.support.hosts import TwoHosts

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.slow,
    pytest.mark.foreign(*PROGRAMS, "ldd", "git"),
    pytest.mark.timeout(300),
]

EXAMPLE = Path(__file__).parents[3] / "examples" / "container"


@pytest.fixture
def docker(two_hosts: TwoHosts, tmp_path: Path) -> Iterator[DockerEngine]:
    """The engine of host a, which has the image."""
    folder = tmp_path / "image"
    image.make(folder)
    with engine(two_hosts.a) as found:
        found.docker("build", "-q", "-t", "tunnel-vpn", str(folder), timeout=120)
        # Of its several copies the engine's own is enough.
        shutil.rmtree(folder)
        yield found


def options_of(service: dict[str, object], folder: Path) -> list[str]:
    """A service of Compose as options of `docker run`, with files beside it in `folder`."""
    names = {"cap_add": "--cap-add", "devices": "--device", "volumes": "--volume"}
    found = []
    for key, option in names.items():
        values = service.pop(key, [])
        assert isinstance(values, list)
        found += [f"{option}={value.replace('./', f'{folder}/')}" for value in values]
    return found


def test_the_example_of_compose(two_hosts: TwoHosts, docker: DockerEngine, tmp_path: Path) -> None:
    services = compose(EXAMPLE)["services"]
    tunnel, web = services["tunnel"], services["web"]
    for name in ("office.conf", "peer.conf"):
        shutil.copy(EXAMPLE / name, tmp_path)
        (tmp_path / name).chmod(0o600)
    peer = tmp_path / "peer"
    peer.mkdir()
    (tmp_path / "peer.conf").rename(peer / "office.conf")
    program = [sys.executable, "-m", "tunnel"]
    two_hosts.b.run([*program, "up", str(peer / "office.conf")])
    try:
        options = options_of(tunnel, tmp_path)
        assert tunnel.pop("restart") == "unless-stopped"
        words = tunnel.pop("command").split()
        docker.docker("run", "-d", "--name=tunnel", *options, tunnel.pop("image"), *words)
        assert web.pop("network_mode") == "service:tunnel"
        words = web.pop("command").split()
        docker.docker("run", "-d", "--network=container:tunnel", web.pop("image"), *words)
        assert tunnel == web == {}, "the test knows every key"
        two_hosts.b.ping("10.77.0.1", timeout=30)
        docker.inside("tunnel", "ping", "-c", "1", "-W", "5", "10.77.0.2")
        two_hosts.b.run(["busybox", "wget", "-q", "-O", "-", "http://10.77.0.1/bin/true"])
        shown = docker.inside("tunnel", "tunnel", "show", "office")
        assert "latest handshake" in shown
        # It ends in order, and would also take down what needs more than a few seconds.
        docker.docker("stop", "--time", "20", "tunnel")
        code = docker.docker("inspect", "--format", "{{.State.ExitCode}}", "tunnel")
        assert code.strip() == "0", docker.docker("logs", "tunnel")
    finally:
        two_hosts.b.run([*program, "down", "office"])
