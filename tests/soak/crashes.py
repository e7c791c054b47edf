"""Does a kill -9 at any moment leave a machine that the next command puts right? As root.

    python -m tests.soak.crashes --trials 500

A host whose tunnel has all that has to be undone: routes of a full tunnel, rules, a table of
nftables, kernel settings, hooks. Each trial begins one operation there, and kills at a random
moment of it every process of this program, or only the daemons, or only the command. Then `tunnel
up` or `tunnel down` has to succeed, packets have to flow again after `up`, and after the last
`tunnel down` nothing may be there that was not there before: links, addresses, routes, rules,
tables, kernel settings, name servers, sockets, processes, files. The conf has to be whole: what it
was, or what the operation makes of it.

The random moments come from `--seed`, which is printed. One line for each kind of operation.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemons import remains
from tests.support.docker_driver import NETWORK, creation
from tunnel import config
from tunnel.errors import TunnelError
from tunnel.lab import Host, Lab, LabError
from tunnel.lab.peers import Node, OurEnd, generate_key, public_key_of, render_conf
from tunnel.lab.process import HostProcess

FULL = ("0.0.0.0/0", "::/0")
PLUGIN_SOCKET = "/run/docker/plugins/tunnel.sock"
SETTINGS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv4.conf.all.src_valid_mark",
    "net.ipv4.conf.all.send_redirects",
)
TUNNEL = (sys.executable, "-m", "tunnel")
EXTRA = """[Interface]
PostUp = ip link add hooked type bridge
PostDown = ip link delete hooked
#! tunnel: Masquerade = auto
#! tunnel: Publish = 8080:10.77.0.2:80
#! tunnel: Isolate = on
"""
CALL = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(20)
    sock.connect(sys.argv[1])
    body = sys.argv[3].encode()
    head = f"POST /NetworkDriver.{sys.argv[2]} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\\r\\n\\r\\n".encode() + body)
    answer = b"".join(iter(lambda: sock.recv(65536), b""))
    print(answer.decode())
sys.exit(b" 200 " not in answer.split(b"\\r\\n")[0])
"""


class FaultError(Exception):
    """A trial that shows a fault."""


@dataclass(frozen=True)
class Scene:
    """Host a with its conf, host b at the other end of the tunnel, and what a had before."""

    a: Host
    end: OurEnd
    text: str
    before: list[str]

    def tunnel(self, *arguments: str) -> list[str]:
        return [*TUNNEL, *arguments]

    def must(self, *arguments: str, but: str = "") -> None:
        """A command of ours that has to succeed, or to fail with the words `but`."""
        done = self.a.run(self.tunnel(*arguments), check=False)
        if done.returncode and not (but and but in done.stderr):
            raise FaultError(
                f"tunnel {arguments[0]}: status {done.returncode}: {done.stderr.strip()}"
            )


Operation = Callable[[Scene], contextlib.AbstractContextManager[list[str]]]
"""What has to be there before, the command that is killed, and what is to be tidied up."""


@contextlib.contextmanager
def coming_up(scene: Scene) -> Iterator[list[str]]:
    yield scene.tunnel("up", str(scene.end.conf))


@contextlib.contextmanager
def going_down(scene: Scene) -> Iterator[list[str]]:
    scene.end.up()
    yield scene.tunnel("down", str(scene.end.conf))


@contextlib.contextmanager
def reloading(scene: Scene) -> Iterator[list[str]]:
    scene.end.up()
    changed = scene.text.replace("10.77.0.1/24", "10.77.0.1/24, 10.78.0.1/24, fd78::1/64")
    changed = changed.replace("8080:", "8081:")
    scene.end.conf.write_text(changed)
    yield scene.tunnel("reload", scene.end.node.interface)


@contextlib.contextmanager
def saving(scene: Scene) -> Iterator[list[str]]:
    scene.end.up()
    key = public_key_of(generate_key())
    scene.a.run(["wg", "set", "wg0", "peer", key, "allowed-ips", "10.99.0.0/16"])
    yield scene.tunnel("save", scene.end.node.interface)


@contextlib.contextmanager
def attaching(scene: Scene) -> Iterator[list[str]]:
    scene.end.up()
    name = f"{scene.a.netns}-in"
    scene.a.run(["ip", "netns", "add", name])
    try:
        yield scene.tunnel("attach", "wg0", "--netns", name)
        # What is attached comes up there again, until it is detached.
        scene.a.run(scene.tunnel("detach", "wg0"), check=False)
    finally:
        scene.a.run(["ip", "netns", "delete", name])


@contextlib.contextmanager
def making_a_network(scene: Scene) -> Iterator[list[str]]:
    scene.end.up()
    conf = scene.end.conf.with_name("office.conf")
    lines = ("[", "PrivateKey", "PublicKey", "Endpoint", "Address")
    kept = [line for line in scene.text.splitlines() if line.startswith(lines)]
    text = "\n".join([*kept, "AllowedIPs = 10.77.0.2/32, 10.90.0.0/24"]).replace(":51820", ":51821")
    conf.write_text(text + "\n")
    conf.chmod(0o600)
    scene.must("up", str(conf))
    with plugin(scene):
        yield [*call("CreateNetwork", creation(conf="office"))]
    # Docker asks again, or takes the network away; either way it is taken away in the end.
    with plugin(scene):
        done = scene.a.run(call("DeleteNetwork", {"NetworkID": NETWORK}), check=False)
        if done.returncode and "404" not in done.stdout:
            raise FaultError(f"DeleteNetwork: {done.stdout}{done.stderr}")
    scene.must("down", str(conf))
    conf.unlink()


def call(method: str, body: dict[str, object]) -> list[str]:
    """A request of Docker."""
    return [sys.executable, "-c", CALL, PLUGIN_SOCKET, method, json.dumps(body)]


@contextlib.contextmanager
def plugin(scene: Scene) -> Iterator[HostProcess]:
    state = f"{scene.end.conf.parent}/docker"
    found = scene.a.popen([*TUNNEL, "docker-plugin", "--state", state])
    try:
        found.wait_for_output("ready", 20)
        yield found
    finally:
        found.stop()


OPERATIONS: dict[str, Operation] = {
    "up": coming_up,
    "down": going_down,
    "reload": reloading,
    "save": saving,
    "attach": attaching,
    "network": making_a_network,
}


def make_scene(lab: Lab) -> Scene:
    """Host b is up."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ["192.0.2.1/24"], ["192.0.2.2/24"])
    near = Node(a, ("10.77.0.1/24", "fd77::1/64"))
    far = Node(b, ("10.77.0.2/24", "fd77::2/64"), "192.0.2.2", routes=FULL)
    OurEnd(far, render_conf(far, [near])).up()
    text = render_conf(near, [far]).replace("[Interface]\n", EXTRA, 1)
    end = OurEnd(near, text)
    end.conf.chmod(0o600)
    return Scene(a, end, text, surroundings(a, end.conf.parent))


def surroundings(host: Host, folder: Path) -> list[str]:
    """All that a tunnel changes, as it is now."""
    commands = (
        "ip route show table all",
        "ip -6 route show table all",
        "ip rule",
        "ip -6 rule",
        "ip -br link",
        "nft --stateless list ruleset",
        f"sysctl {' '.join(SETTINGS)}",
        "ip netns",
    )
    found = host.run(["sh", "-ec", "\n".join(commands)]).stdout.splitlines()
    # The kernel adds routes of multicast when it likes to.
    lines = {line for line in found if "ff00::/8" not in line}
    files = {f"file {path.name}" for path in folder.iterdir() if path.suffix != ".log"}
    return sorted(lines | files)


def trial(
    scene: Scene, operation: Operation, chance: random.Random, seconds: float | None
) -> float:
    """One operation, killed within so many seconds; without, how long it takes."""
    conf = str(scene.end.conf)
    # A daemon whose command was killed may have saved it after the last trial had written it.
    scene.end.conf.write_text(scene.text)
    with operation(scene) as command:
        begin = time.monotonic()
        killed = scene.a.popen(command)
        if seconds is None:
            if killed.wait(60):
                raise FaultError(f"{command}: {killed.log()}")
        else:
            # Not a wait for something: the moment of the kill.
            time.sleep(chance.uniform(0, seconds))
            kill(scene.a, chance.choice(("all", "all", "daemons", "command")), killed.pid)
        taken = time.monotonic() - begin
        with contextlib.suppress(LabError):
            killed.wait(60)
        text = scene.end.conf.read_text()
        config.load(scene.end.conf)
        if operation is saving and text != scene.text and text.count("[Peer]") != 2:
            raise FaultError(f"the conf is neither what it was nor what was saved:\n{text}")
        scene.end.conf.write_text(scene.text)
        if chance.random() < 0.5:
            scene.must("up", conf, but="is already running")
            if operation is not attaching:
                scene.a.ping("10.77.0.2")
        scene.must("down", conf, but="nothing is left of one")
    left = remains(scene.a)
    after = surroundings(scene.a, scene.end.conf.parent)
    if left or after != scene.before:
        gone = sorted(set(scene.before) - set(after))
        new = sorted(set(after) - set(scene.before))
        raise FaultError(f"left behind: {left + new}; gone: {gone}")
    return taken


def kill(host: Host, who: str, command: int) -> None:
    """SIGKILL to the command, the others, or all, until none of them is there."""
    for _ in range(1000):
        found = [
            pid for pid in host.pids() if who == "all" or (pid == command) == (who == "command")
        ]
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not found or who == "daemons":
            return


def run_kind(name: str, trials: int, seed: int, report: Callable[[str], None] = print) -> list[str]:
    """The faults that were found; a kind ends with its first."""
    chance = random.Random(f"{seed} {name}")
    operation = OPERATIONS[name]
    begin = time.monotonic()
    with Lab() as lab:
        scene = make_scene(lab)
        number = -1
        try:
            longest = trial(scene, operation, chance, None)
            for number in range(trials):
                trial(scene, operation, chance, longest)
                if number % 20 == 19:
                    report(
                        f"{name:8} {number + 1:4} of {trials}, {time.monotonic() - begin:4.0f} s"
                    )
        except (FaultError, LabError, TunnelError) as error:
            return [f"{name}, trial {number}: {error}"]
    return []


def main() -> int:
    """The exit status: 1 when a fault was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=500, help="in total")
    parser.add_argument("--kinds", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    each = -(-options.trials // len(options.kinds))
    print(f"seed {options.seed}; {each} trials of each of {', '.join(options.kinds)}", flush=True)
    with ThreadPoolExecutor(2) as pool:
        say = functools.partial(print, flush=True)
        work = [pool.submit(run_kind, kind, each, options.seed, say) for kind in options.kinds]
        faults = [fault for one in work for fault in one.result()]
    print("\n".join(faults) or "after every kill the next command put the machine right")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
