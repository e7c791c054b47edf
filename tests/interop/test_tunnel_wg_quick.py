"""Our wg-quick, with `tunnel-wg` and with wireguard-go as its userspace implementation."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import wg_quick as debians
from tests.support.full_tunnel import check_that_nothing_leaks, make_world
from tests.support.hosts import TwoHosts
from tests.support.pairs import OUTER, remains
from tests.support.tunnel_wg import mesh_of_tunnel_wg, wg, write_script
from tunnel.lab import Host, Lab
from tunnel.lab.peers import Node, render_conf

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

PROGRAMS = ["tunnel-wg", pytest.param("wireguard-go", marks=pytest.mark.foreign("wireguard-go"))]


@dataclass(frozen=True)
class Quick:
    """`tunnel-wg-quick` with a program that carries the packets."""

    script: str
    program: str

    def __call__(self, host: Host, command: str, conf: Path | str, *, check: bool = True) -> str:
        """What it says, status and reason of a failure included."""
        # wireguard-go keeps the outputs it was given, so they must be no pipes of ours.
        said = host.directory / "said"
        done = host.run(
            ["sh", "-c", f'"$0" "$@" >{said} 2>&1', self.script, command, str(conf)],
            environment={"WG_QUICK_USERSPACE_IMPLEMENTATION": self.program},
            check=False,
            timeout=60,
        )
        text = said.read_text()
        assert (done.returncode == 0) is check, text
        assert done.returncode in (0, 1)
        return text


MakeQuick = Callable[[str], Quick]


@pytest.fixture
def make_quick(tmp_path: Path, script: str) -> MakeQuick:
    own = write_script(tmp_path, "tunnel-wg-quick", "tunnel.cli.quick")

    def make(program: str) -> Quick:
        return Quick(own, script if program == "tunnel-wg" else program)

    return make


@pytest.fixture
def quick(make_quick: MakeQuick) -> Quick:
    return make_quick("tunnel-wg")


def write(host: Host, text: str, name: str = "wg0") -> Path:
    path = host.directory / f"{name}.conf"
    path.write_text(text)
    path.chmod(0o600)
    return path


def nodes_of(two: TwoHosts, outer: int = 4) -> tuple[Node, Node]:
    a = Node(two.a, ("10.77.0.1/24", "fd77::1/64"), OUTER[outer][0])
    b = Node(two.b, ("10.77.0.2/24", "fd77::2/64"), OUTER[outer][1])
    return a, b


def gone(host: Host, before: list[str]) -> None:
    """Nothing is left, now that the program has had its moment to end."""
    host.wait_for(lambda: remains(host) == before, 10, "everything to be gone")


@pytest.mark.foreign("wg")
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("outer", [4, 6])
def test_up_and_down_leave_no_trace(
    two_hosts: TwoHosts, make_quick: MakeQuick, script: str, program: str, outer: int
) -> None:
    quick = make_quick(program)
    a, b = nodes_of(two_hosts, outer)
    before = remains(two_hosts.a)
    hooks = ["PostUp = echo %i is up", "PreDown = echo going", "PostDown = echo gone; exit 0"]
    conf = write(two_hosts.a, render_conf(a, [b], extra=hooks))
    said = quick(two_hosts.a, "up", conf).splitlines()
    steps = [line for line in said if line.startswith("[#] ")]
    assert steps[:3] == [
        f"[#] {quick.program} wg0",
        f"[#] wg setconf wg0 {conf}",
        "[#] ip -4 address add 10.77.0.1/24 dev wg0",
    ]
    assert steps[-1] == "[#] echo wg0 is up"
    assert said[-1] == "wg0 is up"
    mesh_of_tunnel_wg([b], script)
    wg(two_hosts.b, "setconf", "wg0", "/dev/stdin", stdin=render_conf(b, [a], quick=False))
    for address in ("10.77.0.2", "fd77::2"):
        two_hosts.a.ping(address)
    assert [str(found.address) for found in two_hosts.a.addresses("wg0")] == list(a.addresses)
    assert "already exists" in quick(two_hosts.a, "up", conf, check=False)
    said = quick(two_hosts.a, "down", conf).splitlines()
    assert said[:2] == ["[#] echo going", "going"]
    assert said[-3:] == ["[#] ip link delete dev wg0", "[#] echo gone; exit 0", "gone"]
    gone(two_hosts.a, before)
    assert "is not an interface of" in quick(two_hosts.a, "down", conf, check=False)


def test_needs_no_wireguard_tools(two_hosts: TwoHosts, quick: Quick) -> None:
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    conf = write(two_hosts.a, render_conf(a, [b], extra=["SaveConfig = true"]))
    bare = Quick(f"PATH=/nonexistent:/usr/sbin:/sbin exec {quick.script}", quick.program)
    for command in ("up", "save", "down"):
        two_hosts.a.run(
            ["/bin/sh", "-c", f"{bare.script} {command} {conf} >/dev/null 2>&1"],
            environment={"WG_QUICK_USERSPACE_IMPLEMENTATION": bare.program},
        )
    gone(two_hosts.a, before)


@pytest.mark.real_root
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("outer", [4, 6])
def test_nothing_leaks(lab: Lab, make_quick: MakeQuick, program: str, outer: int) -> None:
    quick = make_quick(program)
    world = make_world(lab, outer=outer)
    a = world.a
    before = remains(a)
    conf = write(a, world.confs[0])
    quick(a, "up", conf)
    check_that_nothing_leaks(world)
    quick(a, "down", conf)
    gone(a, before)


@pytest.mark.foreign("wg")
@pytest.mark.parametrize("program", PROGRAMS)
def test_saveconfig_keeps_comments(
    two_hosts: TwoHosts, make_quick: MakeQuick, program: str
) -> None:
    quick = make_quick(program)
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    text = render_conf(a, [b], extra=["# where we live", "SaveConfig = true", "MTU = 1400"])
    # One that is said by its name, as the file does it.
    text = text.replace("Endpoint = 192.0.2.2:", "Endpoint = localhost:")
    conf = write(two_hosts.a, text)
    quick(two_hosts.a, "up", conf)
    assert quick(two_hosts.a, "save", conf) == f"[#] save {conf}\n"
    assert conf.read_text() == text
    two_hosts.a.ip("address add 10.78.0.1/24 dev wg0")
    assert wg(two_hosts.a, "show", "wg0", "fwmark") == "off\n"
    change = ["allowed-ips", "10.99.0.0/16", "persistent-keepalive", "21"]
    wg(two_hosts.a, "set", "wg0", "peer", b.public_key, *change)
    quick(two_hosts.a, "down", conf)
    saved = conf.read_text()
    for line in (
        "# where we live\nSaveConfig = true\nMTU = 1400\n",
        "Address = 10.77.0.1/24, fd77::1/64, 10.78.0.1/24\n",
        "AllowedIPs = 10.99.0.0/16\n",
        "Endpoint = localhost:51820\n",
        "PersistentKeepalive = 21\n",
    ):
        assert line in saved
    gone(two_hosts.a, before)
    quick(two_hosts.a, "up", conf)
    wg(two_hosts.a, "set", "wg0", "peer", b.public_key, "endpoint", "192.0.2.7:7")
    quick(two_hosts.a, "down", conf)
    assert "Endpoint = 192.0.2.7:7\n" in conf.read_text(), "it is no address of the name's"
    gone(two_hosts.a, before)


@pytest.mark.parametrize(
    ("program", "step"),
    [
        *(("tunnel-wg", step) for step in ("program", "PreUp", "port", "route", "PostUp")),
        pytest.param("wireguard-go", "PostUp", marks=pytest.mark.foreign("wireguard-go")),
    ],
)
def test_failure_at_any_step_leaves_nothing(
    two_hosts: TwoHosts, make_quick: MakeQuick, program: str, step: str
) -> None:
    quick = make_quick("/bin/false" if step == "program" else program)
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    extra = ["Table = 77"]
    if step in ("PreUp", "PostUp"):
        extra.append(f"{step} = false")
    conf = write(host, render_conf(a, [b], extra=extra))
    if step == "route":
        host.ip("route add 10.77.0.2/32 dev eth0 table 77")
    before = remains(host)
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        if step == "port":
            taken.bind(("0.0.0.0", a.port))
        said = quick(host, "up", conf, check=False)
    assert said.splitlines()[-1].startswith("tunnel-wg-quick: ")
    if step == "port":
        assert f"choose another as ListenPort ({conf}:3)" in said
    gone(host, before)


def test_stopped_while_starting(two_hosts: TwoHosts, quick: Quick) -> None:
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    before = remains(host)
    flag = host.directory / "go"
    hook = f"PostUp = echo waiting; timeout 30 sh -c 'until [ -e {flag} ]; do sleep 0.05; done'"
    conf = write(host, render_conf(a, [b], extra=[hook]))
    up = host.popen(
        [sys.executable, "-m", "tunnel.cli.quick", "up", str(conf)],
        environment={"WG_QUICK_USERSPACE_IMPLEMENTATION": quick.program},
    )
    up.wait_for_output("\nwaiting", 30)
    up.signal(signal.SIGTERM)
    flag.touch()
    assert up.wait(30) == 1
    assert "was stopped while starting" in up.log()
    gone(host, before)


@pytest.mark.foreign("wg")
def test_what_is_left_when_the_interface_has_gone(two_hosts: TwoHosts, quick: Quick) -> None:
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    before = remains(host)
    b = Node(b.host, b.addresses, b.endpoint, routes=("0.0.0.0/0", "::/0"))
    conf = write(host, render_conf(a, [b]))
    quick(host, "up", conf)
    # `tunnel` knows whose it is.
    refused = host.run([sys.executable, "-m", "tunnel", "down", "wg0"], check=False)
    assert refused.returncode == 1
    assert "tunnel-wg-quick down wg0" in refused.stderr
    assert wg(host, "show", "wg0", "fwmark") == "0xca6c\n"
    host.ip("link delete wg0")
    assert "0xca6c" in host.run(["ip", "rule"]).stdout
    said = quick(host, "down", conf)
    assert "ip link delete" not in said
    gone(host, before)


def test_the_daemon_of_tunnel_up_is_none_of_ours(two_hosts: TwoHosts, quick: Quick) -> None:
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    conf = write(host, render_conf(a, [b]))
    host.run([sys.executable, "-m", "tunnel", "up", str(conf)])
    assert "tunnel down wg0" in quick(host, "down", conf, check=False)
    assert "is not an interface of" in quick(host, "save", conf, check=False)
    assert "already running" in quick(host, "up", conf, check=False)
    host.run([sys.executable, "-m", "tunnel", "down", "wg0"])


def test_record_of_another_namespace_is_left_alone(two_hosts: TwoHosts, quick: Quick) -> None:
    """The hosts have their own /run; a namespace inside one shares it."""
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    before = remains(host)
    conf = write(host, render_conf(a, [b], extra=["PostDown = true"]))
    quick(host, "up", conf)
    (link,) = host.ip_json(["link", "show", "wg0"])
    # A namesake of the same number.
    make = f"ip link add wg0 index {link['ifindex']} type veth peer name other"
    inside = f"{make}; {quick.script} down {conf}; ip -br link show wg0"
    done = host.run(["unshare", "--net", "sh", "-c", inside])
    assert "another network namespace" in done.stderr
    assert "[#]" not in done.stderr
    assert done.stdout.startswith("wg0@other ")
    quick(host, "down", conf)
    gone(host, before)


def rules(host: Host) -> list[str]:
    return [line for v in ("-4", "-6") for line in host.run(["ip", v, "rule"]).stdout.splitlines()]


@pytest.mark.foreign("wg", "wg-quick")
@pytest.mark.parametrize("first_up", ["ours", "debians"])
@pytest.mark.parametrize("first_down", ["ours", "debians"])
def test_beside_debians(two_hosts: TwoHosts, quick: Quick, first_up: str, first_down: str) -> None:
    """Two full tunnels of one host: what one takes down is its own."""
    host = two_hosts.a
    before = remains(host)
    confs = {}
    for number, whose in enumerate(("ours", "debians")):
        near = Node(host, (f"10.{77 + number}.0.1/24",), port=51820 + number)
        far = Node(two_hosts.b, (), "192.0.2.2", routes=("0.0.0.0/0", "::/0"))
        confs[whose] = write(host, render_conf(near, [far]).replace("= , ", "= "), f"wg{number}")

    def act(whose: str, command: str) -> None:
        if whose == "ours":
            quick(host, command, confs[whose])
        else:
            debians.quick(host, quick.program, command, confs[whose])

    order = [first_up, "debians" if first_up == "ours" else "ours"]
    for whose in order:
        act(whose, "up")
    marks = {wg(host, "show", name, "fwmark") for name in ("wg0", "wg1")}
    assert marks == {"0xca6c\n", "0xca6d\n"}
    act(first_down, "down")
    last = "debians" if first_down == "ours" else "ours"
    if (first_up, first_down) != ("debians", "debians"):
        # Debian's deletes the first rule that suppresses the default route, whosever it is.
        assert sum("suppress_prefixlength" in rule for rule in rules(host)) == 2
    name = "wg0" if last == "ours" else "wg1"
    mark = wg(host, "show", name, "fwmark").strip()
    assert sum(f"not from all fwmark {mark} lookup" in rule for rule in rules(host)) >= 2
    assert f"dev {name}" in host.run(["ip", "route", "get", "198.51.100.1"]).stdout
    act(last, "down")
    host.wait_for(lambda: remains(host) == before, 10, "everything to be gone")


def test_command_line(quick: Quick, tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [quick.script, *arguments], capture_output=True, text=True, check=False
        )

    for arguments in (["-h"], ["--help"], ["help"]):
        done = run(*arguments)
        assert done.returncode == 0
        assert done.stderr.startswith("Usage: tunnel-wg-quick [ up | down | save | strip ]")
    for arguments in ([], ["up"], ["restart", "wg0"], ["up", "wg0", "wg1"]):
        assert run(*arguments).returncode == 1
    missing = run("up", str(tmp_path / "none.conf"))
    assert missing.returncode == 1
    assert missing.stderr.startswith("tunnel-wg-quick: ")
    conf = tmp_path / "wg0.conf"
    key = "EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
    conf.write_text(f"[Interface]\nPrivateKey = {key}\nAddress = 10.0.0.1/24\nListenPort = 7\n")
    done = run("strip", str(conf))
    assert done.stdout == f"[Interface]\nPrivateKey = {key}\nListenPort = 7\n"


@pytest.mark.foreign("wg")
@pytest.mark.parametrize("kind", ["PreUp", "PostUp"])
def test_private_key_by_a_hook(two_hosts: TwoHosts, quick: Quick, kind: str) -> None:
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    before = remains(host)
    key = host.directory / "key"
    key.write_text(a.private_key)
    text = render_conf(a, [b]).replace(
        f"PrivateKey = {a.private_key}", f"{kind} = wg set %i private-key <(cat {key})"
    )
    conf = write(host, text)
    quick(host, "up", conf)
    assert wg(host, "show", "wg0", "private-key").strip() == a.private_key
    quick(host, "down", conf)
    gone(host, before)


@pytest.mark.parametrize("hook", ["no-such-program; true", "cat /nonexistent | wc -l"])
def test_hook_that_fails_half_way_refuses_up(two_hosts: TwoHosts, quick: Quick, hook: str) -> None:
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    conf = write(two_hosts.a, render_conf(a, [b], extra=[f"PostUp = {hook}"]))
    said = quick(two_hosts.a, "up", conf, check=False)
    assert "PostUp number 1: exit status" in said
    gone(two_hosts.a, before)


@pytest.mark.parametrize("damage", ["typo", "deleted", "others can write"])
def test_down_works_by_the_record_whatever_became_of_the_conf(
    two_hosts: TwoHosts, quick: Quick, damage: str
) -> None:
    host = two_hosts.a
    a, b = nodes_of(two_hosts)
    before = remains(host)
    trace = host.directory / "trace"
    extra = [f"PreDown = echo PreDown %i >> {trace}", f"PostDown = echo PostDown %i >> {trace}"]
    conf = write(host, render_conf(a, [b], extra=[*extra, "SaveConfig = true"]))
    quick(host, "up", conf)
    host.ip("address add 10.88.0.1/24 dev wg0")
    if damage == "typo":
        conf.write_text(conf.read_text() + "Adress = 1.2.3.4\n")
    elif damage == "deleted":
        conf.unlink()
    else:
        conf.chmod(0o666)
    # SaveConfig is what fails: nothing that was running is lost in silence.
    said = quick(host, "down", conf, check=False)
    assert "what was running is in /run/tunnel/wg0.unsaved.conf" in said
    assert "10.88.0.1/24" in host.run(["cat", "/run/tunnel/wg0.unsaved.conf"]).stdout
    assert trace.read_text().splitlines() == ["PreDown wg0", "PostDown wg0"]
    gone(host, [*before, "wg0.unsaved.conf"])


@pytest.mark.parametrize(
    ("retries", "words"),
    [
        ("0", "Endpoint = peer.example:51820"),
        ("many", "WG_ENDPOINT_RESOLUTION_RETRIES is 'many': it must be a number, or infinity"),
    ],
)
def test_number_of_attempts_for_a_name(
    two_hosts: TwoHosts, quick: Quick, retries: str, words: str
) -> None:
    a, b = nodes_of(two_hosts)
    before = remains(two_hosts.a)
    # That another peer has an address does not help: no daemon stays that could go on trying.
    other = Node(two_hosts.b, ("10.77.0.3/24",), "192.0.2.3")
    text = render_conf(a, [b, other]).replace("192.0.2.2:", "peer.example:")
    conf = write(two_hosts.a, text)
    # A name server that is out of reach is a reason to ask again, unless that is not wanted.
    resolv = write(two_hosts.a, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n", "resolv")
    two_hosts.a.run(["mount", "--bind", str(resolv), "/etc/resolv.conf"])
    limited = Quick(f"WG_ENDPOINT_RESOLUTION_RETRIES={retries} exec {quick.script}", quick.program)
    done = two_hosts.a.run(
        ["timeout", "10", "sh", "-c", f"{limited.script} up {conf}"],
        environment={"WG_QUICK_USERSPACE_IMPLEMENTATION": limited.program},
        check=False,
    )
    assert done.returncode == 1
    assert words in done.stderr
    gone(two_hosts.a, before)


def test_a_kill_switch_comes_before_all_else_and_stays(two_hosts: TwoHosts, quick: Quick) -> None:
    host = two_hosts.a
    nodes = nodes_of(two_hosts)
    stands = "nft list table inet tunnel-%i"
    extra = [f"PreUp = {stands}", "FwMark = 0xca6c", "#! tunnel: KillSwitch = on"]
    conf = write(host, render_conf(nodes[0], [nodes[1]], extra=extra))
    said = quick(host, "up", conf)
    assert said.index("kill switch") < said.index("[#] " + stands.replace("%i", "wg0"))
    quick(host, "down", conf)
    assert "tunnel-wg0" not in host.run(["nft", "list", "tables"]).stdout
    conf.write_text(conf.read_text().replace(stands, "false"))
    said = quick(host, "up", conf, check=False)
    assert "the kill switch of wg0 stays; to open it: tunnel down wg0" in said
    assert "killswitch" in host.run(["nft", "list", "ruleset"]).stdout
    host.run([sys.executable, "-m", "tunnel", "down", "wg0"])
    assert "tunnel-wg0" not in host.run(["nft", "list", "tables"]).stdout
