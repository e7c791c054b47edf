"""The doctor's matrix: each fault that the lab can make, in each shape of conf.

`python -m tests.support.doctor_matrix` runs all of it and writes the table into docs/doctor.md. For
each cell the fault is made, the doctors of both sides look, each command that they print is carried
out, and the fault is undone. A cell is right if

- the cause is named on at least one side, and is the first that is named there;
- where nothing flows any more, a, where one sits that notices, says at least so, and points to b;
- nothing is found that is not there;
- the commands heal, where the row says that they can, and else harm nothing: once the fault is
  undone, the tunnel is as it was.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from tests.support.daemons import kill
from tests.support.doctor_scenes import (
    NAT,
    OUTER_A,
    OUTER_B,
    SHAPES,
    TUNNEL,
    Make,
    Scene,
    scene,
)
from tests.support.doctoring import IGNORED, blocked, conf_is, in_foreground, lines, reloaded
from tunnel.lab import Host, faults
from tunnel.lab.faults import Hook
from tunnel.lab.peers import Node, OurEnd, generate_preshared_key

PAGE = Path(__file__).parents[2] / "docs" / "doctor.md"
BEGIN, END = "<!-- matrix: begin -->\n", "<!-- matrix: end -->\n"

POINTERS = {"nothing_comes", "endpoint_refuses", "address_silent", "peer_not_heard", "no_ping"}
"""What a side says that sees only the silence of the other."""

PROGRAMS = ("ip", "kill", "nft", "sysctl", "tunnel", "wg")
_PLACEHOLDER = re.compile(r"\b(?!DOCKER|USER|FORWARD|CONT|KILL)[A-Z]{4,}\b")


@dataclass(frozen=True)
class Fault:
    """A row. `causes` are the codes that name it, `also` what else may be found beside it.

    `senseless` gives for shapes in which it cannot be the reason; `heals` says that the commands
    printed must heal, `fades` that it may be over once b's doctor has sent something; `ask` that
    a's doctor is asked for the target, `healed` whether the commands have healed.
    """

    name: str
    make: Make
    causes: frozenset[str]
    also: frozenset[str] = frozenset()
    heals: bool = False
    senseless: Mapping[str, str] = field(default_factory=dict)
    ask: bool = False
    fades: bool = False
    healed: Callable[[Scene], bool] = Scene.flows


@dataclass(frozen=True)
class Cell:
    """What came out: which side named the cause, and what was wrong with that, if anything."""

    words: str
    mistakes: tuple[str, ...] = ()


# --- Faults --------------------------------------------------------------------------------------


def script(side: str, do: Callable[[Scene], str], undo: Callable[[Scene], str]) -> Make:
    return lambda s: lines(s.here if side == "a" else s.there, do(s), undo(s))


def fixed(side: str, do: str, undo: str = "true") -> Make:
    return script(side, lambda s: do, lambda s: undo)


@contextlib.contextmanager
def silent(s: Scene) -> Iterator[None]:
    with blocked(s.router, Hook.FORWARD, "udp dport 51820-51821"):
        yield


@contextlib.contextmanager
def closed(s: Scene) -> Iterator[None]:
    s.b.down()
    try:
        yield
    finally:
        s.b.tunnel("up", str(s.b.conf), check=False)


def firewall(side: str, hook: Hook, verdict: str = "") -> Make:
    def make(s: Scene) -> contextlib.AbstractContextManager[object]:
        host = s.here if side == "a" else s.there
        return blocked(host, hook, "udp dport 51820")

    return make


REJECT = """table inet wall {
    chain input {
        type filter hook input priority filter; policy accept;
        udp dport 51820 reject with icmpx type admin-prohibited
    }
}"""


INGRESS = """table netdev wall {
    chain early {
        type filter hook ingress device "eth0" priority filter; policy accept;
        udp dport 51820 drop
    }
}"""


def ruleset(text: str) -> Make:
    """Of b, for the time of the fault."""
    family, name = text.split()[1:3]

    @contextlib.contextmanager
    def make(s: Scene) -> Iterator[None]:
        s.there.nft(text)
        try:
            yield
        finally:
            s.there.run(["nft", "delete", "table", family, name])

    return make


def stranger(s: Scene) -> str:
    return Node(s.here, ()).private_key


def wrong_key_at_a(s: Scene) -> contextlib.AbstractContextManager[object]:
    return reloaded(s.a, s.text_a(private_key=stranger(s)), forget=True)


def wrong_key_at_b(s: Scene) -> contextlib.AbstractContextManager[object]:
    return reloaded(s.b, s.text_b(private_key=stranger(s)), forget=True)


@contextlib.contextmanager
def psk_at_a(s: Scene) -> Iterator[None]:
    text = s.text_a().replace(
        "AllowedIPs", f"PresharedKey = {generate_preshared_key()}\nAllowedIPs"
    )
    with reloaded(s.a, text, forget=True):
        yield


ELSEWHERE = {4: "10.200.0.9/32", 6: "fd99::9/128"}


def allowed_missing_at_b(s: Scene) -> contextlib.AbstractContextManager[object]:
    return reloaded(s.b, s.text_b(addresses=(ELSEWHERE[s.shape.outer],)))


def allowed_missing_at_a(s: Scene) -> contextlib.AbstractContextManager[object]:
    return reloaded(s.a, s.text_a(addresses=(ELSEWHERE[4],), routes=()))


@contextlib.contextmanager
def allowed_twice(s: Scene) -> Iterator[None]:
    text = s.text_a()
    (networks,) = re.findall(r"AllowedIPs = (.*)", text)
    other = Node(s.here, ()).public_key
    with reloaded(s.a, f"{text}\n[Peer]\nPublicKey = {other}\nAllowedIPs = {networks}\n"):
        yield


def own_route(s: Scene) -> str:
    """What follows `ip route`: a route of the tunnel itself."""
    if s.shape.full:
        return f"{s.shape.routes[0]} dev wg0 table 51820"
    if s.shape.name == "halves":
        return "0.0.0.0/1 dev wg0"
    return f"{'10.99.0.0/24' if s.shape.name == 'gateway' else '10.77.0.0/24'} dev wg0"


def astray(s: Scene) -> str:
    if s.shape.full == (6,):
        return "2000::/3 via 2001:db8:a::254"
    if s.shape.full:
        return "0.0.0.0/1 via 198.51.100.254"
    if s.shape.name == "halves":
        return "0.0.0.0/2 via 198.51.100.254"
    return f"{s.shape.target}/32 dev eth0"


def version(s: Scene) -> str:
    return "-6" if s.shape.full == (6,) else "-4"


def flush_rules(s: Scene) -> str:
    ip = f"ip {version(s)} rule"
    return f"{ip} flush; {ip} add pref 32766 lookup main"


def rp_filter(s: Scene) -> contextlib.AbstractContextManager[object]:
    if s.shape.full:
        strict = "net.ipv4.conf.{}.rp_filter={}"
        marks = "net.ipv4.conf.all.src_valid_mark={}"
        return lines(
            s.here,
            f"sysctl -qw {strict.format('eth0', 1)} {marks.format(0)}",
            f"sysctl -qw {strict.format('eth0', 0)} {marks.format(1)}",
        )
    return lines(
        s.here,
        f"sysctl -qw net.ipv4.conf.wg0.rp_filter=1; ip route add {s.shape.target}/32 dev eth0",
        f"sysctl -qw net.ipv4.conf.wg0.rp_filter=0; ip route del {s.shape.target}/32",
    )


@contextlib.contextmanager
def black_hole(s: Scene) -> Iterator[None]:
    faults.make_mtu_black_hole(s.router, s.cable.a_interface, 1400)
    try:
        yield
    finally:
        faults.set_mtu(s.router, s.cable.a_interface, 1500)
        faults.unblock(s.router, Hook.OUTPUT)


@contextlib.contextmanager
def moved_away(s: Scene) -> Iterator[None]:
    """Into a network namespace beside the host, where it has no addresses and is down."""
    name = f"{s.here.netns}-odd"
    s.here.run(["ip", "netns", "add", name])
    try:
        s.here.ip(f"link set wg0 netns {name}")
        try:
            yield
        finally:
            s.here.run(["ip", "-n", name, "link", "set", "wg0", "netns", str(s.here.pid)])
            s.here.ip("link set wg0 up")
            s.a.tunnel("reload", "wg0")
    finally:
        s.here.run(["ip", "netns", "delete", name])


def clock(side: str) -> Make:
    @contextlib.contextmanager
    def make(s: Scene) -> Iterator[None]:
        """That side was ahead once, and is right again."""
        end, other = (s.a, s.b) if side == "a" else (s.b, s.a)
        end.down()
        with in_foreground(end, "7200"):
            other_address = s.shape.target if side == "a" else s.a.node.address()
            end.node.host.ping(other_address)
        end.up()
        try:
            yield
        finally:
            other.down()
            other.up()

    return make


def endpoint_of_a(s: Scene) -> str:
    return "10.78.0.1" if s.shape.name == "nested" else OUTER_A[s.shape.outer]


def link_down(s: Scene) -> contextlib.AbstractContextManager[object]:
    # Else the daemon may still be putting back what went when sessions were ended.
    s.a.tunnel("diff", "wg0")
    return lines(s.here, "ip link set wg0 down", "true")


@contextlib.contextmanager
def name_gone(s: Scene) -> Iterator[None]:
    hosts = s.here.etc / "hosts"
    kept = hosts.read_text()
    hosts.write_text("127.0.0.1 localhost\n")
    try:
        yield
    finally:
        hosts.write_text(kept)


def pid_of(end: OurEnd) -> int:
    import json

    return int(json.loads(end.tunnel("show", "wg0", "--json"))[0]["pid"])


@contextlib.contextmanager
def killed(s: Scene) -> Iterator[None]:
    kill(s.a)
    try:
        yield
    finally:
        s.a.tunnel("down", "wg0", check=False)
        s.a.tunnel("up", str(s.a.conf), check=False)


@contextlib.contextmanager
def hung(s: Scene) -> Iterator[None]:
    pid = pid_of(s.a)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        s.a.tunnel("up", str(s.a.conf), check=False)


@contextlib.contextmanager
def conf_gone(s: Scene) -> Iterator[None]:
    kept = s.a.conf.rename(s.a.conf.with_suffix(".kept"))
    try:
        yield
    finally:
        kept.rename(s.a.conf)


@contextlib.contextmanager
def mixed_up(s: Scene) -> Iterator[None]:
    with conf_is(s.a, s.text_a() + "AllowedIPs = 10.0.0.0/33\n"):
        yield


DOCKER = """table ip filter {
    chain DOCKER-USER { }
    chain FORWARD {
        type filter hook forward priority filter; policy drop;
        jump DOCKER-USER
    }
}"""


@contextlib.contextmanager
def docker(s: Scene) -> Iterator[None]:
    s.there.nft(DOCKER)
    try:
        yield
    finally:
        s.there.run(["nft", "delete", "table", "ip", "filter"])


@contextlib.contextmanager
def name_server_replaced(s: Scene) -> Iterator[None]:
    """As a DHCP client does that knows nothing of resolvconf."""
    text = s.text_a().replace("Address", f"DNS = {s.shape.target}\nAddress")
    servers = s.here.etc / "resolv.conf"
    with reloaded(s.a, text):
        servers.write_text("nameserver 198.51.100.53\n")
        yield


def name_server_is_back(s: Scene) -> bool:
    return s.shape.target in (s.here.etc / "resolv.conf").read_text()


OTHER_B = {4: "203.0.113.77", 6: "2001:db8:b::77"}


@contextlib.contextmanager
def moved(s: Scene) -> Iterator[None]:
    """b's host gets another address, and its name follows."""
    version = s.shape.outer
    old, new = OUTER_B[version], OTHER_B[version]
    hosts = s.here.etc / "hosts"
    if s.shape.name == "halves":
        s.here.ip(f"route add {new} via 198.51.100.254")
    s.there.ip(*readdress(s, old, new))
    kept = hosts.read_text()
    hosts.write_text(kept.replace(f"{old} ", f"{new} "))
    try:
        yield
    finally:
        hosts.write_text(kept)
        s.there.ip(*readdress(s, new, old))
        s.a.tunnel("down", "wg0", check=False)
        s.a.up()


def readdress(s: Scene, old: str, new: str) -> list[str]:
    """Give b another address. Its default route goes with the first, and has to be added again."""
    at, router = {
        4: (f"/24 dev {s.cable.b_interface}", "203.0.113.254"),
        6: (f"/64 dev {s.cable.b_interface}", "2001:db8:b::254"),
    }[s.shape.outer]
    nodad = " nodad" if s.shape.outer == 6 else ""
    return [
        f"address del {old}{at}",
        f"address add {new}{at}{nodad}",
        f"route replace default via {router}",
    ]


@contextlib.contextmanager
def kept_down(
    s: Scene, obstacle: contextlib.AbstractContextManager[object], text: str = ""
) -> Iterator[None]:
    """a's tunnel is down, and does not come up again."""
    s.a.down()
    try:
        with conf_is(s.a, text or s.a.conf.read_text()), obstacle:
            s.a.tunnel("up", str(s.a.conf), check=False)
            yield
    finally:
        s.a.tunnel("down", "wg0", check=False)
        s.a.up()


def hook_fails(s: Scene) -> contextlib.AbstractContextManager[object]:
    text = s.text_a().replace("Address", "PostUp = false\nAddress")
    return kept_down(s, contextlib.nullcontext(), text)


def name_taken(s: Scene) -> contextlib.AbstractContextManager[object]:
    return kept_down(s, lines(s.here, "ip tuntap add wg0 mode tun", "ip tuntap del wg0 mode tun"))


def port_taken(s: Scene) -> contextlib.AbstractContextManager[object]:
    @contextlib.contextmanager
    def other_program() -> Iterator[None]:
        with s.here.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.bind(("", 51820))
            yield

    return kept_down(s, other_program())


@contextlib.contextmanager
def no_masquerade(s: Scene) -> Iterator[None]:
    s.there.run(["nft", "delete", "table", "inet", "nat_of_b"])
    try:
        yield
    finally:
        s.there.nft(NAT)


# --- Rows ----------------------------------------------------------------------------------------

ALL = tuple(SHAPES)


def but(reason: str, *shapes: str) -> dict[str, str]:
    """These shapes make no sense."""
    return dict.fromkeys(shapes, reason)


def only(reason: str, *shapes: str) -> dict[str, str]:
    return {name: reason for name in ALL if name not in shapes}


FULL = ("full v4", "full v6", "both")
NOT_FULL = only("only a full tunnel has rules", *FULL)
NOT_ROUTER = only("b forwards nothing", "gateway")
WIDE = but("a default route covers all", *FULL, "halves")
IS_WAITING = but("b has no Endpoint of a: it never initiates", *FULL, "halves", "gateway", "hub")


def not_made(s: Scene) -> contextlib.AbstractContextManager[object]:
    raise NotImplementedError


def codes(*found: str) -> frozenset[str]:
    return frozenset(found)


FAULTS: tuple[Fault, ...] = (
    Fault("nothing", lambda s: contextlib.nullcontext(), codes()),
    Fault("UDP dropped on the way", silent, codes("nothing_comes")),
    Fault(
        "b is down, its port closed", closed, codes("not_running", "endpoint_refuses"), heals=True
    ),
    Fault("b's firewall rejects", ruleset(REJECT), codes("firewall_drop"), heals=True),
    Fault("a has a wrong key of b", wrong_key_at_a, codes("peer_has_wrong_key", "unknown_peer")),
    Fault("b has a wrong key of a", wrong_key_at_b, codes("peer_has_wrong_key", "unknown_peer")),
    Fault("preshared key on a alone", psk_at_a, codes("preshared_key_differs")),
    Fault("b's AllowedIPs lack a", allowed_missing_at_b, codes("source_not_allowed")),
    Fault(
        "a's AllowedIPs lack b",
        allowed_missing_at_a,
        codes("address_missed", "source_not_allowed"),
        ask=True,
        senseless=WIDE,
    ),
    Fault(
        "a's AllowedIPs twice",
        allowed_twice,
        codes("allowed_ips_twice"),
        also=codes("source_not_allowed"),
    ),
    *(
        Fault(
            f"{side}'s firewall drops in {hook}",
            firewall(side, hook),
            codes("firewall_drop"),
            heals=True,
        )
        for side, hook in product(
            "ab", (Hook.OUTPUT, Hook.POSTROUTING, Hook.PREROUTING, Hook.INPUT)
        )
    ),
    Fault(
        "b's firewall drops in ingress",
        ruleset(INGRESS),
        codes("firewall_drop"),
        heals=True,
        senseless=but("eth0 carries the other tunnel", "nested"),
    ),
    Fault(
        "a's route taken away",
        script("a", lambda s: f"ip route del {own_route(s)}", lambda s: "true"),
        codes("taken_away", "connected_route_missing"),
        heals=True,
    ),
    Fault(
        "another route before a's",
        script("a", lambda s: f"ip route add {astray(s)}", lambda s: f"ip route del {astray(s)}"),
        codes("route_misses_tunnel", "traffic_leaks"),
        heals=True,
    ),
    Fault(
        "a's rules taken away",
        script("a", flush_rules, lambda s: "true"),
        codes("taken_away"),
        heals=True,
        senseless=NOT_FULL,
    ),
    Fault(
        "another rule before a's",
        script(
            "a",
            lambda s: f"ip {version(s)} rule add pref 99 lookup main",
            lambda s: f"ip {version(s)} rule del pref 99",
        ),
        codes("traffic_leaks"),
        heals=True,
        senseless=NOT_FULL,
    ),
    Fault(
        "a's nft table taken away",
        fixed("a", "nft delete table inet tunnel-wg0"),
        codes("taken_away"),
        heals=True,
        senseless=NOT_FULL,
    ),
    Fault(
        "a's mark taken away",
        fixed("a", "wg set wg0 fwmark 0"),
        codes("endpoint_in_tunnel"),
        heals=True,
        senseless=NOT_FULL,
    ),
    Fault(
        "strict rp_filter at a",
        rp_filter,
        codes("rp_filter", "taken_away"),
        also=codes("route_misses_tunnel"),
        heals=True,
        senseless=but("rp_filter is for IPv4", "full v6")
        | but("nothing arrives on another interface", "halves"),
    ),
    Fault(
        "b does not forward",
        fixed("b", "sysctl -qw net.ipv4.ip_forward=0", "sysctl -qw net.ipv4.ip_forward=1"),
        codes("forwarding_off"),
        heals=True,
        senseless=NOT_ROUTER,
    ),
    Fault(
        "b does not masquerade",
        no_masquerade,
        codes("no_way_back"),
        heals=True,
        senseless=NOT_ROUTER,
    ),
    Fault("docker's rules at b", docker, codes("docker_forward"), heals=True, senseless=NOT_ROUTER),
    Fault(
        "b has no route back",
        script(
            "b",
            lambda s: f"ip route add unreachable {endpoint_of_a(s)}",
            lambda s: f"ip route del unreachable {endpoint_of_a(s)}",
        ),
        codes("endpoint_unreachable"),
    ),
    Fault("a black hole for large packets", black_hole, codes("mtu_black_hole"), heals=True),
    Fault("a's clock was set back", clock("a"), codes("peer_clock_back"), fades=True),
    Fault(
        "b's clock was set back",
        clock("b"),
        codes("peer_clock_back"),
        senseless=IS_WAITING,
        fades=True,
    ),
    Fault(
        "IPv6 switched off at a",
        fixed(
            "a",
            "sysctl -qw net.ipv6.conf.wg0.disable_ipv6=1",
            "sysctl -qw net.ipv6.conf.wg0.disable_ipv6=0",
        ),
        codes("ipv6_off"),
        heals=True,
        senseless=only("no IPv6 inside", "full v6", "both"),
    ),
    Fault("b's name is gone", name_gone, codes("endpoint_name")),
    Fault(
        "a's interface is down",
        link_down,
        codes("interface_down"),
        heals=True,
    ),
    Fault(
        "a's interface renamed",
        fixed(
            "a",
            "ip link set wg0 down; ip link set wg0 name odd0; ip link set odd0 up",
            "ip link set odd0 down; ip link set odd0 name wg0; ip link set wg0 up",
        ),
        codes("interface_missing"),
        heals=True,
    ),
    Fault(
        "a's interface moved",
        moved_away,
        codes("address_missing", "interface_down"),
    ),
    Fault(
        "a's address taken away",
        script("a", lambda s: f"ip address del {s.shape.a[0]} dev wg0", lambda s: "true"),
        codes("address_missing"),
        also=codes("source_not_allowed"),
        heals=True,
    ),
    Fault(
        "a's name server is replaced",
        name_server_replaced,
        codes("taken_away"),
        heals=True,
        healed=name_server_is_back,
    ),
    Fault(
        "b's address changed",
        moved,
        codes("endpoint_moved"),
        heals=True,
        fades=True,
        senseless=but("b's address in the outer tunnel does not change", "nested"),
    ),
    Fault("a's interface name is taken", name_taken, codes("interface_taken", "not_running")),
    Fault("a's UDP port is taken", port_taken, codes("port_taken", "not_running")),
    Fault("a's PostUp hook fails", hook_fails, codes("not_running")),
    Fault(
        "conntrack is full",
        not_made,
        codes(),
        senseless=only(
            "a namespace cannot set this limit of the whole machine; held by a unit test"
        ),
    ),
    Fault("a's daemon was killed", killed, codes("not_running"), heals=True),
    Fault("a's daemon hangs", hung, codes("daemon_hangs"), heals=True),
    Fault("a's conf is gone", conf_gone, codes("conf_gone")),
    Fault("a's conf has a mistake", mixed_up, codes("conf_invalid")),
)


# --- Cells ---------------------------------------------------------------------------------------


def said(report: dict[str, Any]) -> set[str]:
    return {each["code"] for each in (*report["findings"], *report["notes"])} - IGNORED


def carry_out(host: Host, report: dict[str, Any]) -> bool:
    """Carry out all remedies of the findings that are commands; whether there was one."""
    done = False
    for remedy in dict.fromkeys(each["remedy"] for each in report["findings"]):
        bare = remedy.partition("   #")[0]
        if remedy.split()[0] in PROGRAMS and not _PLACEHOLDER.search(bare):
            host.run(["sh", "-c", TUNNEL + remedy], check=False, timeout=60)
            done = True
    return done


def run_cell(s: Scene, fault: Fault) -> Cell:
    """Make the fault, look, carry out what is advised, undo the fault."""
    mistakes = []
    ask = ("--address", s.shape.target) if fault.ask else ()
    if fault.causes:
        s.forget()
    with fault.make(s):
        here, there = s.examine(*ask)
        flows = s.flows(1.0)
        found = {"a": said(here), "b": said(there)}
        named = [side for side, words in found.items() if words & fault.causes]
        for side, report in (("a", here), ("b", there)):
            wrong = {each["code"] for each in report["findings"]} - IGNORED
            extra = wrong - fault.causes - fault.also - (POINTERS if fault.causes else set())
            if extra:
                mistakes.append(f"{side} finds {', '.join(sorted(extra))} too")
            first = next((each["code"] for each in report["findings"]), None)
            if wrong & fault.causes and first not in fault.causes | fault.also:
                mistakes.append(f"{side} says {first} first")
        faults_found = {each["code"] for each in (*here["findings"], *there["findings"])}
        faded = fault.fades and flows and not named and faults_found <= POINTERS
        if fault.causes and not named and not faded:
            mistakes.append(f"named by no one: {found}")
        if fault.causes and not flows and not found["a"]:
            mistakes.append("a says nothing, and nothing flows")
        acted = [carry_out(s.here, here), carry_out(s.there, there)]
        healed = any(acted) and fault.causes and fault.healed(s)
        if fault.heals and not healed and not faded:
            advice = [each["remedy"] for each in (*here["findings"], *there["findings"])]
            mistakes.append(f"not healed by {advice}")
    if not s.restore(reload=any(acted)):
        mistakes.append("does not flow again after the fault")
    words = {(): "fades" if faded else "nothing", ("a",): "a", ("b",): "b", ("a", "b"): "a, b"}[
        tuple(named)
    ]
    return Cell(words + (" ✓" if fault.heals and healed else ""), tuple(mistakes))


def run_shape(name: str, wanted: list[Fault]) -> Iterator[tuple[Fault, Cell]]:
    """All cells of a column; where one leaves something behind, the hosts are made again."""
    ahead = [fault for fault in wanted if name not in fault.senseless]
    while ahead:
        with scene(name) as s:
            while ahead:
                fault = ahead.pop(0)
                cell = run_cell(s, fault)
                yield fault, cell
                if cell.mistakes:
                    break


# --- The table -----------------------------------------------------------------------------------


def table(cells: Mapping[tuple[str, str], Cell]) -> str:
    """The table as Markdown, and below it why cells are empty."""
    rows = ["| fault | " + " | ".join(SHAPES) + " |", "| --- |" + " --- |" * len(SHAPES)]
    reasons: list[str] = []
    for fault in FAULTS:
        shown = []
        for shape in SHAPES:
            if shape in fault.senseless:
                reason = fault.senseless[shape]
                if reason not in reasons:
                    reasons.append(reason)
                shown.append(f"({reasons.index(reason) + 1})")
            else:
                cell = cells[fault.name, shape]
                shown.append(f"**{cell.words}: wrong**" if cell.mistakes else cell.words)
        rows.append(f"| {fault.name} | " + " | ".join(shown) + " |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    notes.append(
        f"{len(notes) + 1}. fades: the fault ends by itself while the doctors look: by a handshake "
        "of the other side, or as a follows b's name"
    )
    return "\n".join([*rows, "", *notes, ""])


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the doctor's matrix.")
    parser.add_argument("--shape", action="append", choices=[*SHAPES])
    parser.add_argument("--fault", help="only rows whose name contains this")
    options = parser.parse_args()
    wanted = [fault for fault in FAULTS if (options.fault or "") in fault.name]
    whole = options.fault is None and options.shape is None
    if whole:
        return make_page()
    for shape in options.shape or SHAPES:
        for fault, cell in run_shape(shape, wanted):
            print(f"{shape} | {fault.name} | {cell.words} | {'; '.join(cell.mistakes)}", flush=True)
    return 0


def make_page() -> int:
    """All columns, each by a process of its own, two at a time; write the page."""
    cells: dict[tuple[str, str], Cell] = {}
    ahead = [*SHAPES]
    running: list[subprocess.Popen[str]] = []
    while ahead or running:
        while ahead and len(running) < 3:
            command = [sys.executable, "-m", "tests.support.doctor_matrix", "--shape", ahead.pop(0)]
            running.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        process = running.pop(0)
        output, _ = process.communicate()
        print(output, end="", flush=True)
        for line in output.splitlines():
            shape, fault, words, mistakes = line.split(" | ")
            cells[fault, shape] = Cell(words, tuple(filter(None, mistakes.split("; "))))
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(before + BEGIN + table(cells) + END + rest.partition(END)[2])
    return int(any(cell.mistakes for cell in cells.values()))


if __name__ == "__main__":
    sys.exit(main())
