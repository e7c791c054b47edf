"""Docker's firewall beside the tunnel: it drops forwarded packets, unless DOCKER-USER accepts them.

Docker sets the policy of the chain FORWARD to drop when it turns forwarding on, and rewrites its
chains whenever it starts. It leaves one chain to the user, DOCKER-USER, and asks it first: two
rules there, marked with the name of their owner, let its packets pass. A bridge may have two: a
tunnel, and a network of containers.
"""

from collections.abc import Iterable, Iterator

from tunnel.host.errors import HostError
from tunnel.host.programs import run_program

DOCKER_USER = "DOCKER-USER"
"""The chain that docker leaves to the user, and goes through first."""
_PROGRAMS = ("iptables", "ip6tables")


def lets_pass(interface: str, owner: str, *, between_ports: bool = False) -> bool:
    """Whether each DOCKER-USER that there is has the owner's rules; true where there is none.

    With `between_ports` they are for what a bridge passes from port to port, and for nothing else.
    """
    return not any(True for _ in _lacking(interface, owner, between_ports))


def let_pass(interface: str, owner: str, *, between_ports: bool = False) -> None:
    """Put the owner's rules at the head of each DOCKER-USER that lacks them, in the place of those
    for the other case. Raises HostError.
    """
    for program, rule in list(_lacking(interface, owner, between_ports)):
        _iptables(program, "-I", DOCKER_USER, "1", *rule)
    _remove(_rules(interface, owner, not between_ports))


def stop_passing(interface: str, owner: str) -> None:
    """Take the owner's rules away. Raises HostError."""
    _remove((*_rules(interface, owner, False), *_rules(interface, owner, True)))


def _remove(rules: Iterable[tuple[str, ...]]) -> None:
    rules = tuple(rules)
    for program, chain in _chains():
        for rule in rules:
            if _there(chain, rule):
                _iptables(program, "-D", DOCKER_USER, *rule)


def is_here() -> bool:
    """Whether docker has set up its firewall in this network namespace."""
    return any(True for _ in _chains())


def _rules(interface: str, owner: str, between_ports: bool) -> Iterator[tuple[str, ...]]:
    comment = ("-m", "comment", "--comment", f"tunnel-{owner}")
    sides = (("-i", interface), ("-o", interface))
    for match in ((*sides[0], *sides[1]),) if between_ports else sides:
        yield (*match, *comment, "-j", "ACCEPT")


def _lacking(
    interface: str, owner: str, between_ports: bool
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for program, chain in _chains():
        for rule in _rules(interface, owner, between_ports):
            if not _there(chain, rule):
                yield program, rule


def _there(chain: list[str], rule: tuple[str, ...]) -> bool:
    # A name with characters that a shell knows is printed in quotes.
    wanted = " ".join(("-A", DOCKER_USER, *rule))
    return wanted in (line.replace('"', "") for line in chain)


def _chains() -> Iterator[tuple[str, list[str]]]:
    """Each program that knows the chain, and the chain's lines; without docker none."""
    for program in _PROGRAMS:
        try:
            yield program, _iptables(program, "-S", DOCKER_USER).splitlines()
        except HostError:
            continue  # no such chain, or no such program: then there is no docker of this family


def _iptables(program: str, *arguments: str) -> str:
    return run_program(
        "docker's firewall",
        DOCKER_USER,
        [program, "-w", "5", *arguments],
        install="apt-get install iptables",
        remedy=f"{program} -S {DOCKER_USER} shows the chain",
    )
