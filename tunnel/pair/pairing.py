"""The order of the steps of `tunnel pair`, and what is said and undone when one of them fails."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final, Protocol

from tunnel.config import PresharedKey
from tunnel.config.fresh import choose_networks, is_host_name, nth_addresses
from tunnel.config.peers import endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.linux.networks import Network, read_network
from tunnel.log.redact import printable
from tunnel.pair.choosing import free_port
from tunnel.pair.ends import PairEnd, WrongProgramError
from tunnel.pair.installing import check
from tunnel.pair.installing import install as put_there
from tunnel.pair.messages import Hello, NewConf, PairError, Proof, Situation, message_untrusted
from tunnel.pair.ssh import Remote, Ssh
from tunnel.systemd.units import own_command

SPACE: Final = ("10.0.0.0/8", "fd00::/8")
"""Where prefixes are chosen."""

_HEARD_TIME: Final = 2.0
"""Seconds for a datagram to arrive."""

_UP_TIME: Final = 120.0
"""Seconds for `tunnel up`: names may have to be looked up."""

_NAMES: Final = tuple(f"pair{number}" for number in range(20))
"""Tried in turn for a host that is given by its address."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user has asked for; empty, and None, where we choose.

    `endpoint` is where the other host reaches this one, `far_endpoint` the reverse.
    """

    name: str = ""
    port: int = 0
    networks: tuple[Network, ...] = ()
    endpoint: str = ""
    far_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class PairSide:
    """One end of the tunnel to be: its agent, what is there, and where the other reaches it."""

    end: PairEnd
    hello: Hello
    situation: Situation
    program: str
    """What runs the program there."""
    endpoint: str = ""
    is_reached: bool = False
    """Whether a datagram to the endpoint has arrived that the other side sent."""

    @property
    def host(self) -> str:
        """Its name in the other's conf."""
        return self.hello.host if is_host_name(self.hello.host) else "peer"


@dataclass(frozen=True, slots=True)
class PairPlan:
    """What is going to be written."""

    name: str
    port: int
    networks: tuple[Network, ...]
    near: PairSide
    far: PairSide

    @property
    def keepalives(self) -> tuple[bool, bool]:
        """Whether the near and the far side have to keep the way open."""
        return not self.near.is_reached, not self.far.is_reached

    def address(self, number: int) -> str:
        """The first address of the near side (1) or of the far one (2)."""
        return str(nth_addresses(self.networks, number)[0].ip)

    def confs(self, keys: Sequence[str], preshared_key: str) -> tuple[NewConf, NewConf]:
        """What is in the conf of each side, by the public keys of both."""
        sides = (self.near, self.far)
        addresses = [nth_addresses(self.networks, number) for number in (1, 2)]

        def conf(own: int, other: int) -> NewConf:
            return NewConf(
                name=self.name,
                addresses=tuple(map(str, addresses[own])),
                port=self.port,
                endpoint=sides[own].endpoint,
                peer_name=sides[other].host,
                peer_key=keys[other],
                preshared_key=preshared_key,
                peer_addresses=tuple(str(each.ip) for each in addresses[other]),
                peer_endpoint=sides[other].endpoint,
                keepalive=self.keepalives[own],
            )

        return conf(0, 1), conf(1, 0)


@dataclass(frozen=True, slots=True)
class Paired:
    """What was done, and the paths of the confs, ours first."""

    plan: PairPlan
    paths: tuple[str, str]


class Teller(Protocol):
    """Tells the user of the steps."""

    def step(
        self, what: str, *, asks: bool = False
    ) -> contextlib.AbstractContextManager[Callable[[str], None]]:
        """A step begins, and ends with the block; its result goes to what this gives. With `asks`,
        others write to the terminal meanwhile.
        """

    def note(self, text: str) -> None:
        """Something besides."""


def derived_name(destination: str) -> str:
    """The name of a tunnel to a host, from what ssh calls that; empty for an address."""
    host = destination.removeprefix("ssh://").rpartition("@")[2].partition("/")[0]
    with contextlib.suppress(ValueError):
        ip_address(host.partition("%")[0].strip("[]"))
        return ""
    label = host.partition(":")[0].partition(".")[0]
    try:
        check_name(label[:15])
    except Mistake:
        return ""
    return label[:15].rstrip("-.")


def set_up_pair(
    destination: str,
    wishes: Wishes,
    tell: Teller,
    *,
    agree: Callable[[PairPlan], bool],
    install: bool,
    dry_run: bool,
    version: str,
    patience: float,
) -> Paired | None:
    """Pair this host with `destination`, if the user does `agree` to the plan; else None.

    With `install`, this program, of `version`, is put there where it is missing; with `dry_run`, it
    is only said whether that is possible, as nothing more is known without it. Each host has
    `patience` seconds to reach the other. Raises PairError, Mistake and KeyboardInterrupt: both
    hosts were put back then, but for the program, or what could not be was said to `tell`.
    """
    with contextlib.ExitStack() as stack:
        ssh = stack.enter_context(Ssh(destination))
        with tell.step(f"log in to {destination}", asks=True) as done:
            remote = ssh.connect()
            done("as root" if remote.is_root else "with sudo there")
        program = remote.program
        if not program:
            if not install:
                raise PairError(f"{destination}: tunnel is not installed there; add --install")
            if dry_run:
                with tell.step(f"see whether tunnel {version} can be installed there") as done:
                    check(ssh, remote)
                    done("yes, in /opt/tunnel; the rest of the plan is known once it is there")
                return None
            with tell.step(f"install tunnel {version} on {destination}") as done:
                check(ssh, remote)
                program = put_there(ssh, remote)
                done(program)
        near = stack.enter_context(contextlib.closing(_our_end()))
        command = ssh.command(remote.as_root([program, *AGENT]))
        far = stack.enter_context(contextlib.closing(PairEnd(destination, command)))
        try:
            hellos = (near.hello(), far.hello())
        except WrongProgramError:
            found = ssh.output([program, "--version"]).partition("\n")[0]
            raise PairError(
                f"{destination}: {program} there ({printable(found)}) cannot pair, and tunnel "
                f"{version} is here; install the same version on both"
            ) from None
        programs = (own_command()[0], program)
        near.partner, far.partner = far, near
        plan = _find_out((near, far), hellos, programs, remote, destination, wishes, tell)
        return _carry_out(plan, tell, patience) if agree(plan) else None


AGENT: Final = ("pair", "--remote")


def _our_end() -> PairEnd:
    command = [*own_command(), *AGENT]
    if os.geteuid() == 0:
        return PairEnd("this host", command)
    # It may ask for a password on the terminal, as what follows may not.
    if subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL, check=False).returncode:
        subprocess.run(["sudo", "-v"], check=False)
    return PairEnd("this host", ["sudo", "-n", *command])


def _find_out(
    ends: tuple[PairEnd, PairEnd],
    hellos: tuple[Hello, Hello],
    programs: tuple[str, str],
    remote: Remote,
    destination: str,
    wishes: Wishes,
    tell: Teller,
) -> PairPlan:
    """Look at both hosts, and choose. Raises PairError and Mistake; nothing was changed then."""
    if hellos[0].identity == hellos[1].identity:
        raise PairError(f"{destination} is this host; name another one")
    if hellos[0].tunnel != hellos[1].tunnel:
        tell.note(f"tunnel {printable(hellos[1].tunnel)} is there, and {hellos[0].tunnel} here")
    derived = derived_name(destination)
    names = (wishes.name or derived,) if wishes.name or derived else _NAMES
    space = [str(each) for each in wishes.networks] or list(SPACE)
    outside = ("" if remote.has_jump else remote.outside, remote.inside)
    with tell.step("look at both hosts") as done:
        for name in names:
            found = [
                message_untrusted(
                    Situation, end.ask("look", name=name, space=space, outside=address)
                )
                for end, address in zip(ends, outside, strict=True)
            ]
            taken = [
                f"{end.name}: {printable(there.name_taken)}"
                for end, there in zip(ends, found, strict=True)
                if there.name_taken
            ]
            if not taken:
                break
        else:
            raise PairError(f"{'; '.join(taken)}; give another name with --name")
        networks = _networks(wishes, ends, found)
        port = wishes.port or free_port({*found[0].ports, *found[1].ports})
        for end, there in zip(ends, found, strict=True):
            if port in there.ports:
                raise PairError(f"{end.name}: UDP port {port} is taken; give another with --port")
        done(f"name {name}, port {port}, {', '.join(map(str, networks))}")
    near, far = (
        PairSide(end, hello, there, _short(program), _endpoint(endpoint, port))
        for end, hello, there, program, endpoint in zip(
            ends, hellos, found, programs, (wishes.endpoint, wishes.far_endpoint), strict=True
        )
    )
    return _reached(PairPlan(name, port, networks, near, far), remote, tell)


def _short(program: str) -> str:
    """As it is typed: by its name if it is where every shell looks."""
    folder, _, name = program.rpartition("/")
    return printable(name if folder in ("/usr/bin", "/usr/local/bin") else program)


def _networks(
    wishes: Wishes, ends: Sequence[PairEnd], found: Sequence[Situation]
) -> tuple[Network, ...]:
    taken: list[Network] = []
    for end, there in zip(ends, found, strict=True):
        if wishes.networks and there.networks:
            raise PairError(
                f"{end.name}: {printable(there.networks[0])} is in use, which overlaps that; give "
                "another --network"
            )
        try:
            taken += map(read_network, there.networks)
        except ValueError:
            raise PairError(f"{end.name}: unexpected list of networks") from None
    if wishes.networks:
        return wishes.networks
    v4, v6 = choose_networks(taken, os.urandom)
    return (v4, v6) if all(there.has_ipv6 for there in found) else (v4,)


def _endpoint(text: str, port: int) -> str:
    return str(endpoint_at(text, port)) if text else ""


def _reached(plan: PairPlan, remote: Remote, tell: Teller) -> PairPlan:
    """The plan with the endpoints at which the sides can be reached, as datagrams show it."""
    near, far = plan.near, plan.far
    with tell.step(f"reach {far.end.name} by UDP from here") as done:
        # Behind a jump, what ssh connected to may mean something else, or nothing, here.
        candidates = [far.endpoint] if far.endpoint else _places(remote, plan.port)
        far, words = _try(near, far, candidates, plan.port)
        done(words)
    with tell.step("reach this host by UDP from there") as done:
        is_seen = near.situation.is_outside
        candidates = [near.endpoint] if near.endpoint else []
        if not candidates and is_seen:
            candidates = [_endpoint(remote.outside, plan.port)]
        near, words = _try(far, near, candidates, plan.port)
        if not candidates:
            words = "no, it is behind a NAT" if not remote.has_jump else "not known, behind a jump"
        done(words)
    if not near.endpoint and not far.endpoint:
        raise PairError(
            "neither host can be reached by the other: give the address of one with --endpoint "
            "(this host) or --far-endpoint"
        )
    # A closed firewall may open for what both ends send at the same time; a NAT does not.
    if far.is_reached and not near.is_reached and not plan.near.endpoint:
        near = replace(near, endpoint="", is_reached=False)
    if near.is_reached and not far.is_reached and not plan.far.endpoint:
        far = replace(far, endpoint="", is_reached=False)
    return PairPlan(plan.name, plan.port, plan.networks, near, far)


def _places(remote: Remote, port: int) -> list[str]:
    found = []
    for text in (remote.hostname, *((remote.inside,) if remote.has_jump else ())):
        with contextlib.suppress(Mistake):
            found.append(_endpoint(text, port))
    return list(dict.fromkeys(found))


def _try(of: PairSide, side: PairSide, endpoints: Sequence[str], port: int) -> tuple[PairSide, str]:
    """The side with the endpoint at which `of` reaches it, and how that went, in words.

    Of several that do not work the first is taken that could be sent to.
    """
    token = secrets.token_hex(16)
    possible, words = [], "no"
    for endpoint in endpoints:
        side.end.ask("listen", port=port)
        fault = str(of.end.ask("knock", endpoint=endpoint, port=port, token=token))
        if side.end.ask("heard", token=token, seconds=0.0 if fault else _HEARD_TIME):
            return replace(side, endpoint=endpoint, is_reached=True), f"yes, {endpoint}"
        words = f"no, {endpoint}: {fault or 'nothing arrives'}"
        if not fault:
            possible.append(endpoint)
    return replace(side, endpoint=possible[0] if possible else side.endpoint), words


def _carry_out(plan: PairPlan, tell: Teller, patience: float) -> Paired:
    """Write both confs, bring both up, and have each reach the other within `patience` seconds.

    Raises PairError, and KeyboardInterrupt; then both hosts were put back, or what could not be was
    said to `tell`.
    """
    try:
        return _set_up(plan, tell, patience)
    except BaseException as error:
        _undo(plan, tell, is_committing=isinstance(error, _CommitError))
        raise


class _CommitError(PairError):
    """It is not known whether the far side keeps what it has."""


def _set_up(plan: PairPlan, tell: Teller, patience: float) -> Paired:
    near, far = plan.near.end, plan.far.end
    with tell.step("make a key on each host") as done:
        keys = [str(end.ask("make_key")) for end in (near, far)]
        done("only public keys cross")
    secret = PresharedKey.from_bytes(os.urandom(32)).to_base64()
    paths = []
    for end, conf in zip((near, far), plan.confs(keys, secret), strict=True):
        with tell.step(f"write the conf on {end.name}") as done:
            paths.append(printable(str(end.ask("write", conf=conf.to_json()))))
            done(paths[-1])
    for end in (near, far):
        with tell.step(f"bring it up on {end.name}"):
            end.ask("up", name=plan.name, patience=_UP_TIME)
    for side, other, number in ((plan.near, plan.far, 2), (plan.far, plan.near, 1)):
        with tell.step(f"ping {other.end.name} from {side.end.name}") as done:
            found = side.end.ask(
                "prove",
                name=plan.name,
                address=plan.address(number),
                seconds=patience,
                patience=patience + 30,
            )
            proof = message_untrusted(Proof, found)
            if not proof.ping:
                done("no answer")
                raise PairError(_why_silent(plan, proof, tell))
            done(f"{proof.ping * 1000:.1f} ms")
    # The far one first: while it is not sure, ours can still be undone.
    with _uninterrupted():
        try:
            far.ask("commit")
            near.ask("commit")
        except PairError as error:
            raise _CommitError(str(error)) from None
    return Paired(plan, (paths[0], paths[1]))


def _why_silent(plan: PairPlan, proof: Proof, tell: Teller) -> str:
    """What is known of the reason, from the sides and their doctors."""
    for side in (plan.near, plan.far):
        with tell.step(f"ask the doctor on {side.end.name}") as done:
            found = _texts(side.end.ask("examine", name=plan.name))
            done(f"{len(found)} found" if found else "nothing wrong")
        for each in found:
            tell.note(f"  {each}")
    if proof.handshake:
        return (
            "there was a handshake, but no answer to a ping: a firewall on one of the hosts drops "
            "packets that come out of the tunnel"
        )
    ways = [
        f"{of.end.name} should have reached {to.end.name} at {to.endpoint}"
        for of, to in ((plan.near, plan.far), (plan.far, plan.near))
        if to.endpoint
    ]
    return (
        f"no handshake: {', and '.join(ways)}; allow UDP port {plan.port} there, in its firewall "
        "and in any router in front of it"
    )


def _texts(found: object) -> list[str]:
    """An answer that is a list of lines to show. Raises PairError."""
    if not isinstance(found, list):
        raise PairError("an unexpected answer")
    return [printable(str(each)) for each in found]


def _undo(plan: PairPlan, tell: Teller, *, is_committing: bool) -> None:
    """Put both hosts back, whatever the user presses meanwhile, and say what could not be."""
    # Each on its own: the one may still have to answer what ^C came between.
    plan.near.end.partner = plan.far.end.partner = None
    with _uninterrupted():
        for side in (plan.far, plan.near):
            left: list[str] = []
            with tell.step(f"undo it on {side.end.name}") as done:
                try:
                    left = _texts(side.end.ask("undo"))
                    words = "not everything" if left else "as it was before"
                except PairError as error:
                    words = str(error)
                done(words)
            for each in left:
                tell.note(f"  on {side.end.name}, run: {each}")
            if side.end.is_lost:
                tell.note(_what_remains(plan, side, is_committing=is_committing))


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no signal end what is short and must be done whole."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _what_remains(plan: PairPlan, side: PairSide, *, is_committing: bool) -> str:
    path = f"{side.situation.folder}/{plan.name}.conf"
    by_itself = (
        "it may have kept the tunnel"
        if is_committing
        else "it restores itself as soon as it notices, within two minutes"
    )
    return (
        f"  {side.end.name} can no longer be reached; {by_itself}. If {path} is still there "
        f"after that, run there:\n  tunnel down {plan.name}; rm {path}"
    )
