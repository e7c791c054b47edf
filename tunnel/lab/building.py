"""Makes the lab that a plan describes, and types into it what the plan has to try."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface

from tunnel.lab import docker
from tunnel.lab.docker import IMAGE, DockerEngine
from tunnel.lab.faults import masquerade
from tunnel.lab.host import Host
from tunnel.lab.peers import End, OurEnd, WireGuardGoEnd
from tunnel.lab.plan import INTERNET, Blueprint, Box, Network, Trial
from tunnel.lab.topology import Lab, Router

TRIAL_SECONDS = 30.0

_SERVER = """\
import http.server, sys
class Named(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello from %s\\n" % sys.argv[1].encode())
server = http.server.ThreadingHTTPServer(("", int(sys.argv[2])), Named)
print("listening", flush=True)
server.serve_forever()
"""
_CONTAINERS_SERVER = 'echo "hello from $0" >/index.html; exec httpd -f -p "$1" -h /'


@dataclass(frozen=True)
class Outcome:
    """What a trial gave: `passed` is None where a program is missing, `output` says which."""

    trial: Trial
    passed: bool | None
    output: str


@dataclass(frozen=True)
class Built:
    """A plan that stands. `hosts` are those of its places that are no containers of Docker."""

    lab: Lab
    plan: Blueprint
    hosts: dict[str, Host] = field(default_factory=dict)
    ends: dict[str, End] = field(default_factory=dict)
    engines: dict[str, DockerEngine] = field(default_factory=dict)

    def up(self) -> None:
        """Set all tunnels up, and then Docker's networks; each end knows where the others are."""
        # Else the first handshake of one that knows the other is for no one, and is repeated late.
        for side in sorted(self.plan.sides, key=lambda side: side.endpoint is None):
            self.ends[side.name].up()
        for side in self.plan.sides:
            is_tap = "Mode = tap" in side.settings
            if side.endpoint is None or is_tap:
                # A rule may forbid the answer; the handshake is what counts. A tap sends frames by
                # itself, so its first handshake may have been for no one, and ARP does not wait.
                seconds = "10" if is_tap else "5"
                for peer in side.peers:
                    self.hosts[side.name].run(
                        ["ping", "-n", "-c", "1", "-w", seconds, self.address(peer)], check=False
                    )
        for network in self.plan.networks:
            if network.docker:
                _make_docker_network(self.plan, network, self.engines[network.bridge])

    def address(self, name: str) -> str:
        """The first address of that end in the tunnel."""
        side = self.plan.side(name)
        assert side is not None
        return str(ip_interface(side.addresses[0]).ip)

    def attempt(self, trial: Trial, *, columns: int | None = None) -> Outcome:
        """Type a trial's command on its host; `columns` is the width of the terminal.

        On a bad wire, which may take the only packet of a ping, up to three times.
        """
        outcome = self._attempt(trial, columns)
        for _ in range(0 if self.plan.wire is None else 2):
            if outcome.passed is not False:
                break
            outcome = self._attempt(trial, columns)
        return outcome

    def _attempt(self, trial: Trial, columns: int | None) -> Outcome:
        words = shlex.split(trial.command)
        if words[0] != "tunnel" and shutil.which(words[0]) is None:
            return Outcome(trial, None, f"not tried: the program {words[0]} is missing")
        typed = ["sh", "-c", 'exec "$@" 2>&1', "sh"]
        for before, word in zip(["--", *words], words, strict=False):
            ours = word == "tunnel" and before == "--"
            typed += [sys.executable, "-m", "tunnel"] if ours else [word]
        width = {} if columns is None else {"COLUMNS": str(columns)}
        result = self.hosts[trial.host].run(
            typed, timeout=TRIAL_SECONDS, check=False, environment=width
        )
        output = result.stdout
        passed = (result.returncode != 0) == trial.fails and bool(re.search(trial.expect, output))
        return Outcome(trial, passed, output)


def build(
    lab: Lab,
    plan: Blueprint,
    *,
    confs: Mapping[str, str] | None = None,
    preshared_key: str | None = None,
    foreign: Mapping[str, str] | None = None,
) -> Built:
    """Make the hosts and networks of a plan that has keys; its tunnels are not up yet.

    `confs` are the confs by host, those of the plan if None. `foreign` maps hosts to the
    WireGuard program that runs there instead of ours. Raises LabUnavailableError, LabError.
    """
    if plan.uses_docker:
        docker.check()
    built = Built(lab, plan)
    containers = plan.containers()
    for place in plan.places:
        if place.name not in containers:
            built.hosts[place.name] = (lab.router if place.nat else lab.host)(place.name)
    for network in plan.networks:
        if network.docker:
            built.engines[network.bridge] = docker.start(built.hosts[network.bridge])[0]
    outside: dict[str, str] = {}
    for network in plan.networks:
        if not network.docker:
            _join(built, network, outside)
    for place in plan.places:
        if place.name not in containers:
            _furnish(built.hosts[place.name], place, outside)
    for side in plan.sides:
        node = side.on(built.hosts[side.name])
        program = (foreign or {}).get(side.name)
        if program is not None:
            conf = plan.conf(side.name, preshared_key=preshared_key, quick=False)
            built.ends[side.name] = WireGuardGoEnd(node, conf, program)
        else:
            text = confs[side.name] if confs else plan.conf(side.name, preshared_key=preshared_key)
            built.ends[side.name] = OurEnd(node, text)
    return built


def _join(built: Built, network: Network, outside: dict[str, str]) -> None:
    """A wire, a cable, a switch or a bridge; notes each router's interface that is outside."""
    hosts, members = built.hosts, network.members
    if built.plan.wire is not None and network.name == INTERNET:
        first = built.plan.rebound()
        names = [first, *(name for name in members if name != first)]
        wire = built.plan.wire
        interfaces = built.lab.wire([hosts[name] for name in names], wire.faults, seed=wire.seed)
        for name, interface in zip(names, interfaces, strict=True):
            hosts[name].add_addresses(interface, members[name])
            if built.plan.place(name).nat == network.name:
                outside[name] = interface
    elif network.bridge:
        owner = hosts[network.bridge]
        # Without forward_delay 0 a new port forwards nothing for 15 seconds.
        owner.ip(
            f"link add {network.name} type bridge forward_delay 0", f"link set {network.name} up"
        )
        owner.add_addresses(network.name, members[network.bridge])
        for name in members:
            if name != network.bridge:
                cable = built.lab.link(hosts[name], owner, members[name])
                owner.ip(f"link set {cable.b_interface} master {network.name}")
    elif len(members) == 2:
        (a, b) = members
        cable = built.lab.link(hosts[a], hosts[b], members[a], members[b])
        for name, interface in ((a, cable.a_interface), (b, cable.b_interface)):
            if built.plan.place(name).nat == network.name:
                outside[name] = interface
    else:
        switch = built.lab.switch(network.name)
        for name, addresses in members.items():
            switch.attach(hosts[name], addresses)


def _furnish(host: Host, place: Box, outside: dict[str, str]) -> None:
    """What a host has besides its networks."""
    if place.gateway:
        host.ip(f"route add default via {place.gateway}")
    if isinstance(host, Router):
        masquerade(host, outside[place.name])
    if place.serves:
        server = host.popen([sys.executable, "-c", _SERVER, place.name, str(place.serves)])
        server.wait_for_output("listening")


def _make_docker_network(plan: Blueprint, network: Network, engine: DockerEngine) -> None:
    """A network of our Docker driver, with its containers, as an administrator would make it."""
    command = [sys.executable, "-m", "tunnel", "docker-plugin"]
    plugin = engine.host.popen([*command, "--state", str(engine.folder / "plugin")])
    plugin.wait_for_output("ready")
    engine.wait()
    pool = ip_interface(network.members[network.bridge][0]).network
    ours = ["--ipam-driver", "tunnel", "--ipam-opt", "conf=wg0", "--opt", "conf=wg0"]
    engine.docker(
        *("network", "create", "--driver", "tunnel", "--subnet", str(pool), *ours, network.name)
    )
    for name, addresses in network.members.items():
        if name != network.bridge:
            place = plan.place(name)
            where = [f"--network={network.name}", f"--ip={ip_interface(addresses[0]).ip}"]
            where += [f"--publish={place.publish}"] if place.publish else []
            command = ["/bin/sleep", "infinity"]
            if place.serves:
                command = ["/bin/sh", "-c", _CONTAINERS_SERVER, name, str(place.serves)]
            engine.docker("run", "--detach", "--init", f"--name={name}", *where, IMAGE, *command)


def outside_v6(plan: Blueprint) -> Blueprint:
    """The plan with all endpoints by the IPv6 address that the network "internet" has for them."""
    members = next(network for network in plan.networks if network.name == INTERNET).members
    return replace(
        plan,
        sides=tuple(
            replace(side, endpoint=str(ip_interface(members[side.name][1]).ip))
            for side in plan.sides
        ),
    )
