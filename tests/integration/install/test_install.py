"""An sdist and wheels, installed into empty environments, carry packets between two hosts."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.hosts import TwoHosts
from tunnel import datapath
from tunnel.lab import Host
from tunnel.lab.peers import Node, render_conf

pytestmark = [
    # pip asks the registry of packages, which is not reached from a namespace without network.
    pytest.mark.real_root,
    pytest.mark.foreign("git"),
    pytest.mark.timeout(600),
]

ROOT = Path(__file__).parents[3]
LEFT_OVER = "tunnel/datapath/_native.cpython-399-x86_64-linux-gnu.so"
NOT_INHERITED = {
    *("PYTHONPATH", "VIRTUAL_ENV", "CARGO", "RUSTC"),
    *("TUNNEL_DATAPATH", "TUNNEL_CIPHER", "TUNNEL_OFFLOADS_OFF"),
}
VERSION = re.compile(
    r"tunnel (?P<version>\S+)\ncommit: (?P<commit>.*)\ndatapath: (?P<datapath>.*)\n"
    r"cipher: .*\nPython: .*\n"
)

EXAMPLES = ROOT / "examples"

OTHER_TEST = """
import sys

def test_a_run_without_our_fixtures_loads_none_of_it(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("tunnel.testing.plugin")
    assert not {"trio", "tunnel.lab", "tunnel.config"} & set(sys.modules)
"""

PING = """
import subprocess, sys, trio, tunnel

async def main(conf, address):
    async with tunnel.open(conf) as opened:
        await trio.run_process(["ping", "-n", "-c", "1", "-w", "10", address], stdout=sys.stderr)
        print((await opened.status()).datapath)

trio.run(main, *sys.argv[1:])
"""


def run(
    arguments: Sequence[str | Path], folder: Path, path: Path | str | None = None, **more: str
) -> str:
    """Run a command in `folder`, with `path` for PATH if given; all that it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in NOT_INHERITED} | more
    if path is not None:
        environment["PATH"] = str(path)
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of these sources with a commit of its own, and with what earlier builds left there."""
    folder = tmp_path_factory.mktemp("install") / "checkout"
    ignored = (".git", ".venv*", ".*_cache", ".hypothesis", "target", "build", "dist")
    others = ("__pycache__", "*.so", "*.egg-info")
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*ignored, *others), symlinks=True)
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.net"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "as it is"]):
        run(["git", *identity, *words], folder)
    (folder / LEFT_OVER).write_bytes(b"of another Python")
    stale = next((folder / "tunnel").glob("*.py"))
    for kind in ("lib", "lib.linux-x86_64-cpython-311"):
        (folder / "build" / kind / "tunnel").mkdir(parents=True)
        shutil.copy(stale, folder / "build" / kind / "tunnel" / "left_over.py")
    return folder


@pytest.fixture(scope="module")
def commit(checkout: Path) -> str:
    return run(["git", "rev-parse", "--short=12", "HEAD"], checkout).strip()


@pytest.fixture(scope="module")
def sdist(checkout: Path) -> Path:
    """The archive."""
    run([sys.executable, "-m", "build", "--sdist", "--outdir", "made", "."], checkout)
    (archive,) = (checkout / "made").iterdir()
    return archive


@pytest.fixture(scope="module")
def sources(sdist: Path) -> Path:
    """The archive, unpacked: pip would remember what it built from one with a version."""
    folder = sdist.parent.parent.parent / "sources"
    with tarfile.open(sdist) as archive:
        # Python 3.11.2, as Debian has it, knows no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(folder)
    (unpacked,) = folder.iterdir()
    return unpacked.rename(folder / "unpacked")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with nothing in it, for PATH or to work in."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def build_wheel(sources: Path, to: Path, path: Path | str, **more: str) -> tuple[Path, str]:
    """The wheel that is made of `sources`, and what was printed meanwhile."""
    build: list[str | Path] = [sys.executable, "-m", "build", "--wheel", "--outdir", to, "."]
    printed = run(build, sources, path, **more)
    (wheel,) = to.iterdir()
    return wheel, printed


def files_of(wheel: Path) -> dict[str, bytes]:
    """Every file that the wheel installs beside the one folder of its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        return {name: archive.read(name) for name in names}


NEWER = "0.1.1"
OLD_WORDS, NEW_WORDS = b"the tunnel goes on after", b"the next version goes on after"


def next_version(wheel: Path, folder: Path) -> Path:
    """The same wheel as that of a later version, whose daemons can be told by a sentence."""
    _, version, rest = wheel.name.split("-", 2)
    assert version != NEWER
    made = folder / f"tunnel_vpn-{NEWER}-{rest}"
    was_changed = False
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith((".dist-info/METADATA", ".dist-info/RECORD")):
                data = data.replace(version.encode(), NEWER.encode())
            elif name == "tunnel/control/messages/sentences.py":
                was_changed = OLD_WORDS in data
                data = data.replace(OLD_WORDS, NEW_WORDS)
            new.writestr(name.replace(f"-{version}.dist-info", f"-{NEWER}.dist-info"), data)
    assert was_changed
    return made


def product(checkout: Path) -> set[str]:
    """The files of the product, from what git tracks: all but the sources of the extension."""
    tracked = run(["git", "ls-files", "crypto", "tunnel"], checkout).splitlines()
    return {name for name in tracked if not name.startswith("tunnel/datapath/native/")}


def test_sdist_holds_every_file_and_its_commit(checkout: Path, sdist: Path, commit: str) -> None:
    with tarfile.open(sdist) as archive:
        top = sdist.name.removesuffix(".tar.gz")
        names = {m.name.removeprefix(f"{top}/") for m in archive.getmembers() if m.isfile()}
        baked = archive.extractfile(f"{top}/tunnel/cli/commit.txt")
        assert baked is not None
        assert baked.read().decode().strip() == commit
    tracked = set(run(["git", "ls-files"], checkout).splitlines())
    assert tracked - names == set()
    metadata = {"PKG-INFO", "setup.cfg", "tunnel/cli/commit.txt"}
    assert {n for n in names - tracked if not n.startswith("tunnel_vpn.egg-info/")} == metadata


def test_wheel_without_cargo_is_for_every_machine(
    checkout: Path, tmp_path: Path, empty: Path, commit: str
) -> None:
    # From the checkout itself: nothing that lies about there gets in.
    made = tmp_path / "made"
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(made), "."]
    git = shutil.which("git")
    assert git is not None
    (empty / "git").symlink_to(git)
    run(pip, checkout, empty)
    (wheel,) = made.iterdir()
    assert wheel.name.endswith("-py3-none-any.whl")
    files = files_of(wheel)
    stand_in = "tunnel/datapath/_native.py"
    assert set(files) == product(checkout) | {stand_in, "tunnel/cli/commit.txt"}
    assert b"there was no Rust compiler" in files[stand_in]
    assert files["tunnel/cli/commit.txt"].decode().strip() == commit


def test_wheel_after_a_failed_compile_says_so(sources: Path, tmp_path: Path, empty: Path) -> None:
    for program, text in (("rustc", "echo rustc 1.85.0"), ("cargo", "exit 101")):
        (empty / program).write_text(f"#!/bin/sh\n{text}\n")
        (empty / program).chmod(0o755)
    wheel, printed = build_wheel(sources, tmp_path / "made", empty)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert "WARNING: this wheel has only the slower datapath" in printed
    assert b"compiling it failed" in files_of(wheel)["tunnel/datapath/_native.py"]


@pytest.mark.root
@pytest.mark.skipif("native" not in datapath.available(), reason="the compiled datapath is not")
def test_wheel_with_the_compiled_datapath_carries_packets(
    checkout: Path,
    sources: Path,
    commit: str,
    tmp_path: Path,
    empty: Path,
    two_hosts: TwoHosts,
    machine_path: str,
) -> None:
    target = ROOT / "tunnel/datapath/native/target"
    wheel, printed = build_wheel(
        sources, tmp_path / "made", machine_path, CARGO_TARGET_DIR=str(target)
    )
    assert re.search(r"-cp311-abi3-linux_\w+\.whl$", wheel.name), printed
    extension = "tunnel/datapath/_native.abi3.so"
    assert set(files_of(wheel)) == product(checkout) | {extension, "tunnel/cli/commit.txt"}
    installed = Installed(tmp_path / "venv", wheel, empty)
    assert installed.version() == (commit, "native")
    installed.carries_packets(two_hosts, tmp_path, "native")
    installed.is_replaced_under_a_tunnel(next_version(wheel, tmp_path), two_hosts, tmp_path)


@pytest.mark.root
def test_sdist_without_cargo_carries_packets(
    sources: Path, commit: str, tmp_path: Path, empty: Path, two_hosts: TwoHosts
) -> None:
    installed = Installed(tmp_path / "venv", sources, empty)
    why = "the native datapath is not installed (there was no Rust compiler when this was built)"
    assert installed.version() == (commit, f"python; {why}")
    installed.carries_packets(two_hosts, tmp_path, "python")
    installed.is_for_programs(tmp_path / "programs")


class Installed:
    """An environment with `what` in it and nothing else, installed while PATH was `empty`."""

    def __init__(self, folder: Path, what: Path, empty: Path) -> None:
        self.folder = folder / "bin"
        self.empty = empty
        run([sys.executable, "-m", "venv", folder], empty)
        run([self.folder / "pip", "install", "--no-compile", what], empty, empty)

    def version(self) -> tuple[str, str]:
        """The commit and the datapath that `tunnel --version` names."""
        said = VERSION.fullmatch(run([self.folder / "tunnel", "--version"], self.empty))
        assert said is not None
        return said["commit"], said["datapath"]

    def in_host(self, host: Host, program: str, *arguments: str | Path) -> str:
        """What an installed program printed on standard output, run in a host."""
        unset = [word for name in sorted(NOT_INHERITED) for word in ("-u", name)]
        command = ["env", *unset, str(self.folder / program), *map(str, arguments)]
        return host.run(command, directory=self.empty, timeout=60).stdout

    def carries_packets(self, two: TwoHosts, folder: Path, name: str) -> None:
        """Use every installed program on two hosts, and the lab, with the datapath `name`."""
        a = Node(two.a, ("10.77.0.1/24",), "192.0.2.1")
        b = Node(two.b, ("10.77.0.2/24",), "192.0.2.2")
        confs: Mapping[str, Path] = {"a": folder / "a" / "wg0.conf", "b": folder / "b" / "wg0.conf"}
        for conf, node, peer in ((confs["a"], a, b), (confs["b"], b, a)):
            conf.parent.mkdir()
            conf.touch(mode=0o600)
            conf.write_text(render_conf(node, [peer]))

        self.in_host(two.a, "tunnel", "up", confs["a"])
        self.in_host(two.b, "tunnel-wg-quick", "up", confs["b"])
        two.a.ping("10.77.0.2")
        shown = self.in_host(two.a, "tunnel", "show")
        assert re.search(rf"datapath: +{name}\b", shown), shown
        assert b.public_key in shown
        self.in_host(two.a, "tunnel", "down", confs["a"])
        assert "wg0" not in two.a.interfaces()

        said = self.in_host(two.a, "python", "-c", PING, confs["a"], "10.77.0.2")
        assert said == f"{name}\n"
        self.in_host(two.b, "tunnel-wg-quick", "down", confs["b"])
        assert "wg0" not in two.b.interfaces()

        lab = run([self.folder / "tunnel", "lab", "--no-trace"], self.empty)
        assert "There and back it took" in lab

    def is_replaced_under_a_tunnel(self, newer: Path, two: TwoHosts, folder: Path) -> None:
        """Install the wheel `newer` while tunnels run by the confs of before, and restart one."""
        confs = [folder / name / "wg0.conf" for name in ("a", "b")]
        for host, conf in zip((two.a, two.b), confs, strict=True):
            self.in_host(host, "tunnel", "up", conf)
        two.a.ping("10.77.0.2")
        before = self.status(two.a)
        options = ("--no-compile", "--no-deps", "--no-index")
        run([self.folder / "pip", "install", *options, newer], self.empty, self.empty)
        assert f"tunnel {NEWER}\n" in run([self.folder / "tunnel", "--version"], self.empty)
        # What runs goes on, and loads what it has not loaded so far.
        assert self.status(two.a)["pid"] == before["pid"]
        self.in_host(two.a, "tunnel", "reload", "wg0")
        two.a.ping("10.77.0.2")
        self.in_host(two.a, "tunnel", "restart", "wg0")
        two.a.ping("10.77.0.2")
        after = self.status(two.a)
        assert after["restarts"] == 1
        assert after["holder"] == before["holder"]
        handshakes = [peer["latest_handshake"] for peer in before["peers"]]
        assert [peer["latest_handshake"] for peer in after["peers"]] == handshakes
        assert NEW_WORDS.decode() in two.a.run(["cat", "/run/tunnel/wg0.log"]).stdout
        # After a kill, too: the holder is still that of the version before.
        os.kill(after["pid"], signal.SIGKILL)
        two.a.wait_for(lambda: self.restarts(two.a) == 2, 20, "another daemon")
        two.a.ping("10.77.0.2")
        assert [peer["latest_handshake"] for peer in self.status(two.a)["peers"]] == handshakes
        for host in (two.a, two.b):
            self.in_host(host, "tunnel", "down", "wg0")
            assert "wg0" not in host.interfaces()

    def status(self, host: Host) -> dict[str, Any]:
        (found,) = json.loads(self.in_host(host, "tunnel", "show", "--json"))
        assert isinstance(found, dict)
        return found

    def restarts(self, host: Host) -> int:
        """-1 while there is no daemon."""
        found = json.loads(self.in_host(host, "tunnel", "show", "--json") or "[]")
        return int(found[0]["restarts"]) if found else -1

    def is_for_programs(self, folder: Path) -> None:
        """Types for mypy, and fixtures for pytest, which finds them by itself."""
        folder.mkdir()
        programs = [Path(shutil.copy(each, folder)) for each in EXAMPLES.glob("*.py")]
        python = self.folder / "python"
        mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--python-executable"]
        checked = run([*mypy, python, "--cache-dir", folder / "cache", *programs], self.empty)
        assert checked == f"Success: no issues found in {len(programs)} source files\n"
        run([self.folder / "pip", "install", "--no-compile", "pytest"], self.empty, self.empty)
        said = run([python, "-m", "pytest", "-W", "error", folder], self.empty)
        assert "3 passed" in said
        (folder / "test_other.py").write_text(OTHER_TEST)
        said = run([python, "-m", "pytest", "-W", "error", folder / "test_other.py"], self.empty)
        assert "1 passed" in said
