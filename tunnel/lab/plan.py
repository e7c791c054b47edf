"""What a lab is made of, as values: hosts, the networks between them, tunnels, and what to try.

A plan is read by `tunnel.lab.building`, which makes it; by `tunnel.lab.drawing`, which draws it;
and by what writes and runs `examples/`.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tunnel.lab.peers import Side, generate_key, render_conf
from tunnel.lab.weather import Faults


@dataclass(frozen=True)
class Box:
    """A host. `what` says in a few words what it stands for.

    `gateway` is the next hop of its default route. `nat` names the network whose side of a router
    gets NAT. `serves` is a TCP port with a web server that says its name. `publish` is for
    containers of Docker: a port of the host, and the port of the container that it leads to.
    """

    name: str
    what: str = ""
    gateway: str = ""
    nat: str = ""
    serves: int = 0
    publish: str = ""


@dataclass(frozen=True)
class Network:
    """What joins hosts: `members` maps their names to addresses with prefix lengths.

    Two are joined by a veth cable, more by a switch. With `bridge` it is a bridge, named as the
    network, in the host of that name, and all others hang on it by veth. With `docker` it is
    the part on that host of a Docker network with our driver, and the others are its containers.
    """

    name: str
    members: Mapping[str, tuple[str, ...]]
    bridge: str = ""
    docker: bool = False


@dataclass(frozen=True)
class Trial:
    """A command to type on a host, and the regular expression that its output has to match.

    `shows` says what is to be seen. `fails` is set where the command has to end with an error.
    """

    host: str
    command: str
    shows: str
    expect: str
    fails: bool = False


INTERNET = "internet"
"""The network that each plan has, between the hosts with tunnels."""


@dataclass(frozen=True)
class BadWire:
    """What is wrong with the network "internet". `seed` decides about chance."""

    faults: Faults
    seed: int


@dataclass(frozen=True)
class Blueprint:
    """A whole lab. `lesson` says what it is there for, `wire` makes its internet a bad one."""

    name: str
    title: str
    lesson: str
    places: tuple[Box, ...]
    networks: tuple[Network, ...]
    sides: tuple[Side, ...]
    trials: tuple[Trial, ...]
    wire: BadWire | None = None

    @property
    def uses_docker(self) -> bool:
        """Whether it needs a Docker engine."""
        return any(network.docker for network in self.networks)

    def place(self, name: str) -> Box:
        """The host of that name."""
        return next(place for place in self.places if place.name == name)

    def side(self, name: str) -> Side | None:
        """The end of tunnels on that host, if there is one."""
        return next((side for side in self.sides if side.name == name), None)

    def on_wire(self, wire: BadWire | None) -> Blueprint:
        """The same on a bad wire. Where source ports change, those behind them send keepalives
        each second, or their peers would lose sight of them.
        """
        if wire is None or not wire.faults.rebind:
            return replace(self, wire=wire)
        first = self.rebound()
        sides = tuple(
            replace(side, keepalive=1) if side.endpoint is None or side.name == first else side
            for side in self.sides
        )
        return replace(self, wire=wire, sides=sides)

    def rebound(self) -> str:
        """The host on the internet whose source port a bad wire changes: the first that others do
        not know, as their packets to a port of before are lost; else the first of all.
        """
        members = list(next(net for net in self.networks if net.name == INTERNET).members)
        sides = {side.name: side for side in self.sides}
        unknown = [name for name in members if name not in sides or sides[name].endpoint is None]
        return (unknown or members)[0]

    def wire_words(self) -> str:
        """What is wrong with the wire, in the words of the command line; empty if nothing is."""
        if self.wire is None:
            return ""
        faults = self.wire.faults
        shares = {
            name: getattr(faults, name) for name in ("loss", "reorder", "duplicate", "corrupt")
        }
        words = [f"{name} {value * 100:g}%" for name, value in shares.items() if value]
        if faults.delay:
            words.append(f"delay {_time_words(faults.delay)}")
        if faults.jitter:
            words.append(f"jitter {_time_words(faults.jitter)}")
        if faults.rebind:
            words.append(f"rebind {_time_words(faults.rebind)} (of {self.rebound()})")
        return f"{', '.join(words) or 'nothing'}; seed {self.wire.seed}"

    def containers(self) -> set[str]:
        """Names of the places that are containers of a Docker engine."""
        return {
            name
            for network in self.networks
            if network.docker
            for name in network.members
            if name != network.bridge
        }

    def with_keys(self, make: Callable[[str], str] | None = None) -> Blueprint:
        """The same with private keys: new ones, or what `make` gives for "PLAN/HOST"."""
        sides = tuple(
            replace(side, private_key=make(f"{self.name}/{side.name}") if make else generate_key())
            for side in self.sides
        )
        return replace(self, sides=sides)

    def conf(self, name: str, *, preshared_key: str | None = None, quick: bool = True) -> str:
        """The conf of the end on that host; without `quick`, only what `wg setconf` takes."""
        side = self.side(name)
        assert side is not None
        peers = [peer for peer in self.sides if peer.name in side.peers]
        return render_conf(
            side, peers, preshared_key, quick=quick, settings=side.settings, named=True
        )


def _time_words(seconds: float) -> str:
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1e3:g}ms"


EXAMPLE_KEYS = "The key is made for this example and known to all: use another one."
"""What is said beside a private key of an example."""


def example_key(name: str) -> str:
    """The private key, in base64, that the published examples have for `name`: known to all."""
    scalar = bytearray(hashlib.sha256(f"a key of the examples: {name}".encode()).digest())
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    return base64.b64encode(scalar).decode()
