"""Does the Debian package live and die well? As root, with a network: installs, upgrades, purges.

    python -m tests.packages.life --suites bookworm trixie

For each release a Debian is bootstrapped, and booted in a host of a lab. There the package is
installed, a tunnel is started by systemd and another by hand, the package is upgraded while pings
cross the first one, then removed and purged. Prints what it found, step by step, and ends with 1 at
the first thing that is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.machine.machine import Machine, boot_root
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, OurEnd, generate_key, render_conf

SETUP = Path(__file__).parents[1] / "setup"
NEEDED = "python3,systemd,systemd-sysv,iproute2,nftables,iputils-ping,procps"
CHANGING = ("var/cache", "var/log", "var/lib/dpkg", "var/lib/apt", "var/lib/systemd", "tmp", "run")
"""Where files come and go on every Debian."""

UNIT = "tunnel@wg0.service"


def main() -> None:
    """Run it for each release."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--suites", nargs="+", default=["bookworm", "trixie"])
    parser.add_argument("--deb", type=Path, required=True, help="made by `make deb`")
    parser.add_argument("--roots", type=Path, help="keep the Debians bootstrapped here, for later")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tunnel-life-") as temporary:
        folder = Path(temporary)
        debs = options.deb, next_version(options.deb, folder)
        for suite in options.suites:
            root = folder / suite
            bootstrap(suite, root, options.roots)
            for deb in debs:
                subprocess.run(["cp", deb, root / "root"], check=True)
            live(suite, root, debs)


def next_version(deb: Path, folder: Path) -> Path:
    """The same package as a newer version."""
    unpacked, made = folder / "unpacked", folder / "newer.deb"
    subprocess.run(["dpkg-deb", "-R", deb, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    control.write_text(re.sub(r"^(Version: \S+)$", r"\1+1", control.read_text(), flags=re.M))
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "-b", str(unpacked), str(made)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return made


def bootstrap(suite: str, root: Path, kept: Path | None) -> None:
    """Put a Debian into `root`: a copy of that in `kept`, if there is one."""
    made = kept / suite if kept else root
    if not made.exists():
        made.parent.mkdir(parents=True, exist_ok=True)
        command = [str(SETUP / "bootstrap.sh"), str(made), NEEDED]
        subprocess.run(command, check=True, env=os.environ | {"SUITE": suite})
    if made != root:
        subprocess.run(["cp", "-a", made, root], check=True)


def live(suite: str, root: Path, debs: tuple[Path, Path]) -> None:
    """One life: from the first installation to the purge."""
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
        near = Node(a, ("10.77.0.1/24",), "192.0.2.1")
        far = Node(b, ("10.77.0.2/24",), "192.0.2.2")
        OurEnd(far, render_conf(far, [near])).up()
        with boot_root(a, root) as machine:
            life = Life(suite, root, machine, a, b)
            before = life.files()
            life.install(debs[0])
            life.start(render_conf(near, [far]))
            life.upgrade(debs[1])
            life.remove()
            life.purge(before)


class Life:
    """The steps; each prints what it found, and raises AssertionError."""

    def __init__(self, suite: str, root: Path, machine: Machine, a: Host, b: Host) -> None:
        self.suite = suite
        self.root = root
        self.machine = machine
        self.a = a
        self.b = b

    def say(self, text: str) -> None:
        print(f"{self.suite}: {text}", flush=True)

    def run(self, *command: str) -> str:
        done = self.machine.run(command, timeout=300)
        return done.stdout + done.stderr

    def files(self) -> set[str]:
        """All files but those that come and go on every Debian."""
        found = set()
        for folder, folders, names in os.walk(self.root):
            here = Path(folder).relative_to(self.root).as_posix()
            folders[:] = [n for n in folders if f"{here}/{n}".removeprefix("./") not in CHANGING]
            found |= {f"{here}/{name}" for name in [*folders, *names]}
        return found

    def install(self, deb: Path) -> None:
        self.run("dpkg", "-i", f"/root/{deb.name}")
        said = self.run("tunnel", "--version")
        self.say("installed: " + ", ".join(said.split("\n")[:1] + said.split("\n")[2:4]))
        assert "datapath: native" in said
        for program in ("tunnel-wg", "tunnel-wg-quick"):
            self.run(program, "--version")
        assert self.run("stat", "-c", "%a %U", "/etc/tunnel").split() == ["700", "root"]
        self.run("dpkg", "--verify", "tunnel-vpn")
        # All is compiled: a daemon may not write below /usr.
        compiled = self.run("find", "/usr/lib/tunnel", "-name", "startup.*.pyc").split()
        assert len(compiled) == 1, compiled
        # A drop-in needs no unit in /etc.
        written = self.run("tunnel", "service", "install", "--with", "save-config")
        assert "wrote /etc/systemd/system/tunnel@.service.d/save-config.conf" in written
        assert "tunnel@.service\n" not in written
        self.run("systemctl", "daemon-reload")

    def start(self, conf: str) -> None:
        path = self.root / "etc/tunnel/wg0.conf"
        path.touch(mode=0o600)
        path.write_text(conf)
        by_hand = self.root / "etc/tunnel/wg1.conf"
        by_hand.touch(mode=0o600)
        by_hand.write_text(f"[Interface]\nPrivateKey = {generate_key()}\nAddress = 10.78.0.1/24\n")
        self.run("systemctl", "enable", "--now", UNIT)
        self.b.ping("10.77.0.1", timeout=20)
        self.run("tunnel", "up", "wg1")
        assert {"wg0", "wg1"} <= set(self.a.interfaces())
        self.say("tunnels wg0 (systemd) and wg1 (by hand) are up")

    def upgrade(self, deb: Path) -> None:
        before = self.machine.property(UNIT, "MainPID")
        with self._pings() as lost:
            said = self.run("dpkg", "-i", f"/root/{deb.name}")
        after = self.machine.property(UNIT, "MainPID")
        assert before != after, "the tunnel was not restarted"
        assert self.machine.property(UNIT, "ActiveState") == "active"
        assert "wg1 still runs the old version; to change that: tunnel restart wg1" in said, said
        assert "wg0 runs on" not in said
        self.b.ping("10.77.0.1", timeout=20)
        self.run("tunnel", "restart", "wg1")
        self.run("tunnel", "show", "wg1")
        self.say(f"upgraded: wg0 was restarted ({lost[0]}), wg1 was left and named")

    @contextlib.contextmanager
    def _pings(self) -> Iterator[list[str]]:
        """Pings through the tunnel, ten a second; the list gets how many were lost."""
        ping = self.b.popen(["ping", "-n", "-q", "-i", "0.1", "10.77.0.1"])
        summary: list[str] = []
        try:
            yield summary
            self.b.ping("10.77.0.1", timeout=30)
        finally:
            ping.signal(signal.SIGINT)
            ping.wait(10)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", ping.log())
        assert found is not None, ping.log()
        summary.append(f"{int(found[1]) - int(found[2])} of {found[1]} pings were lost")

    def remove(self) -> None:
        self.run("dpkg", "--remove", "tunnel-vpn")
        assert not {"wg0", "wg1"} & set(self.a.interfaces())
        assert (self.root / "etc/tunnel/wg0.conf").exists()
        assert not (self.root / "usr/lib/tunnel").exists()
        self.say("removed: both tunnels are down, the confs are there")

    def purge(self, before: set[str]) -> None:
        said = self.run("dpkg", "--purge", "tunnel-vpn")
        left = self.files() - before
        confs = {"etc/tunnel", "etc/tunnel/wg0.conf", "etc/tunnel/wg1.conf"}
        assert left == confs, sorted(left)
        assert "your confs and keys stay in /etc/tunnel" in said
        assert not (self.root / "run/tunnel").exists()
        assert "tunnel" not in self.run("systemctl", "list-unit-files", "--no-legend")
        assert self.run("nft", "list", "ruleset").strip() == ""
        self.say("purged: nothing is left but the confs")


if __name__ == "__main__":
    main()
