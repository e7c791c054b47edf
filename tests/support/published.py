"""Confs as users publish them, and the state of a host that wg-quick makes of each.

tests/confs/published/NAME.conf is what a provider, a generator, a router or a phone writes, with
keys that guard nothing. NAME.json beside it is what Debian's wg-quick, with wireguard-go, made of
it in a host of the lab. `make confs` writes these again; nothing else does.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.pairs import remains
from tunnel.lab import Host, Lab, LabError

FOLDER = Path(__file__).parents[1] / "confs/published"
NAMES = sorted(path.stem for path in FOLDER.glob("*.conf"))
INTERFACE = "wg0"
ENDPOINTS = {
    "vpn.example.com": "192.0.2.2",
    "site-b.example.com": "198.51.100.2",
    "six.example.com": "2001:db8::2",
}
"""What the host's /etc/hosts says of the names in the confs."""

LINK_MTU = 1500
IN_USE_ALONE = {
    "corner-address-by-hook": {"addresses", "routes", "mtu"},
    "corner-key-by-hook": {"public_key"},
    "corner-same-network-twice": {"peers"},
    "provider-own-table": {"rules"},
    "site-with-routing-daemon": {"addresses"},
}
"""What hooks do, and how a device sees peers with the same network: no plan shows that."""
_FREE_PORTS = "61000 61999"
"""Of the host, so that a port that the conf left open is known as such."""

_FAKE = """#!/bin/sh
case "${0##*/} $1" in
*-save*) ;;
"resolvconf -a") cat >DIRECTORY/dns ;;
resolvconf*) ;;
*) echo "${0##*/} $*" >>DIRECTORY/calls ;;
esac
"""
_FAKES = ("resolvconf", *(f"{v}{end}" for v in ("iptables", "ip6tables") for end in ("", "-save")))
_NOTE_HOOKS = 'eval() { printf "%s\\n" "$1" >>DIRECTORY/hooks; builtin eval "$@"; }\n'
"""wg-quick evaluates its hooks, and nothing else."""

_RULE = re.compile(r"(\d+):\s*(.*?)\s*(?:proto static)?")
_GUARD = re.compile(r"ip6? daddr (\S+) fib saddr type != local .*drop")
_KEPT_MARK = re.compile(r"meta mark (0x\w+) ct mark set meta mark")


@dataclass(frozen=True)
class Peer:
    """One peer, as `wg` shows it; its address is None until it is known."""

    public_key: str
    preshared_key: str | None
    endpoint: str | None
    allowed_ips: list[str]
    keepalive: int


@dataclass(frozen=True)
class Around:
    """The tunnel and what is around it, each list sorted if its order means nothing.

    `routes` are without those that the kernel adds with an address. `rules` are those of a full
    tunnel, in their order. `guarded` are the addresses that the firewall protects from spoofed
    packets, and `kept_marks` the marks that it keeps in conntrack. `dns` are the lines given to
    resolvconf, `calls` what hooks called of programs that do nothing here. `listen_port` is 0 where
    any would do.
    """

    addresses: list[str]
    mtu: int
    routes: list[str]
    rules: list[str]
    guarded: list[str]
    kept_marks: list[int]
    src_valid_mark: bool
    dns: list[str]
    calls: list[str]
    public_key: str
    listen_port: int
    fwmark: int
    peers: list[Peer]


@dataclass(frozen=True)
class Recorded:
    """What wg-quick made of a conf; `around` is None if it refused it, and `words` are why."""

    around: Around | None
    hooks: list[str]
    words: str = ""

    @classmethod
    def read(cls, name: str) -> Recorded:
        found = json.loads((FOLDER / f"{name}.json").read_text())
        around = found["around"]
        if around is not None:
            around = Around(**{**around, "peers": [Peer(**peer) for peer in around["peers"]]})
        return cls(around, found["hooks"], found["words"])

    def write(self, name: str) -> None:
        (FOLDER / f"{name}.json").write_text(json.dumps(asdict(self), indent=1) + "\n")


@contextmanager
def fakes(host: Host) -> Iterator[Mapping[str, str]]:
    """The environment of programs whose hooks leave their traces with `host`, and no others."""
    folder = host.directory / "fakes"
    folder.mkdir(exist_ok=True)
    for name in _FAKES:
        (folder / name).write_text(_FAKE.replace("DIRECTORY", str(folder)))
        (folder / name).chmod(0o755)
    (folder / "noting").write_text(_NOTE_HOOKS.replace("DIRECTORY", str(folder)))
    for note in ("calls", "hooks", "dns"):
        (folder / note).write_text("")
    host.set_sysctl("net.ipv4.conf.all.src_valid_mark", "0")
    yield {"PATH": f"{folder}:{os.environ['PATH']}"}


def notes(host: Host, kind: str) -> list[str]:
    """What the fakes noted: `calls`, `hooks` or `dns`."""
    return (host.directory / "fakes" / kind).read_text().splitlines()


def observe(host: Host) -> Around:
    """The tunnel of `host`, and what is around it."""
    (link,) = host.ip_json(["link", "show", INTERFACE])
    addresses = [str(a.address) for a in host.addresses(INTERFACE)]
    first, *others = (line.split("\t") for line in _wg(host, "show", INTERFACE, "dump"))
    port = int(first[2])
    ruleset = host.run(["nft", "list", "ruleset"]).stdout
    valid = host.run(["sysctl", "-n", "net.ipv4.conf.all.src_valid_mark"]).stdout.strip()
    return Around(
        addresses=sorted(addresses),
        mtu=link["mtu"],
        routes=sorted(_routes(host)),
        rules=list(_rules(host)),
        # wireguard-go's interfaces have a link-local address by chance; the kernel's have none.
        guarded=sorted(a for a in _GUARD.findall(ruleset) if not a.startswith("fe80:")),
        kept_marks=sorted({int(mark, 16) for mark in _KEPT_MARK.findall(ruleset)}),
        src_valid_mark=valid == "1",
        dns=notes(host, "dns"),
        calls=notes(host, "calls"),
        public_key=first[1],
        listen_port=0 if port >= int(_FREE_PORTS.split()[0]) else port,
        fwmark=0 if first[3] == "off" else int(first[3], 16),
        peers=sorted(map(_peer, others), key=lambda peer: peer.public_key),
    )


def _wg(host: Host, *arguments: str) -> list[str]:
    return host.run(["wg", *arguments]).stdout.splitlines()


def _peer(words: list[str]) -> Peer:
    key, psk, endpoint, allowed, *_, keepalive = words
    return Peer(
        key,
        None if psk == "(none)" else psk,
        None if endpoint == "(none)" else endpoint,
        [] if allowed == "(none)" else sorted(allowed.split(",")),
        0 if keepalive == "off" else int(keepalive),
    )


def _routes(host: Host) -> Iterator[str]:
    for version, everything in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        shown = ["route", "show", "table", "all", "dev", INTERFACE]
        for route in host.ip_json([version, *shown]):
            if route.get("protocol") == "kernel":
                continue
            to = everything if route["dst"] == "default" else route["dst"]
            if "/" not in to:
                to += "/128" if ":" in to else "/32"
            table = route.get("table", "main")
            yield to if table == "main" else f"{to} table {table}"


def _rules(host: Host) -> Iterator[str]:
    for version in (4, 6):
        for line in host.run(["ip", f"-{version}", "rule", "show"]).stdout.splitlines():
            found = _RULE.fullmatch(line)
            assert found is not None, line
            if found[1] in ("0", "32766", "32767") or "goto" in found[2]:
                continue
            # Ours is for packets without our mark alone, so that it is ours alone.
            suppresses = "suppress_prefixlength 0" in found[2]
            words = "from all lookup main suppress_prefixlength 0" if suppresses else found[2]
            yield f"ipv{version} {words}"


def make_host(lab: Lab) -> Host:
    """A host whose way to everywhere leads through another one."""
    a, b = lab.host("a"), lab.host("b")
    lab.link(a, b, ["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"])
    a.ip("route add default via 192.0.2.2", "route add default via 2001:db8::2")
    with (a.etc / "hosts").open("a") as hosts:
        hosts.writelines(f"{address} {name}\n" for name, address in ENDPOINTS.items())
    a.set_sysctl("net.ipv4.ip_local_port_range", _FREE_PORTS)
    return a


def put(host: Host, name: str) -> Path:
    """The conf of that name as the host's own conf."""
    path = host.directory / f"{INTERFACE}.conf"
    path.write_bytes((FOLDER / f"{name}.conf").read_bytes())
    path.chmod(0o600)
    return path


def by_wg_quick(host: Host, name: str) -> Recorded:
    """What Debian's wg-quick makes of a conf; it is down again on return."""
    conf = put(host, name)
    before = remains(host)
    with fakes(host) as environment:
        noting = {"BASH_ENV": str(host.directory / "fakes/noting")}
        programs = {"WG_QUICK_USERSPACE_IMPLEMENTATION": "wireguard-go"}
        # wireguard-go keeps the outputs it was given, so they must be no pipes of ours.
        said = host.directory / "said"

        def quick(command: str) -> int:
            shell = f'exec wg-quick {command} "{conf}" >{said} 2>&1'
            given = {**environment, **noting, **programs}
            return host.run(["sh", "-c", shell], environment=given, check=False).returncode

        if quick("up") != 0:
            found = Recorded(None, [], _last_words(said.read_text()))
        else:
            around = observe(host)
            if quick("down") != 0:
                raise LabError(f"{name}: wg-quick down: {said.read_text()}")
            found = Recorded(around, notes(host, "hooks"))
    host.wait_for(lambda: remains(host) == before, 10, f"{name}: everything to be gone")
    return found


def _last_words(said: str) -> str:
    """What was printed last by one of the steps, each of which is printed after [#]."""
    printed: list[list[str]] = [[]]
    for line in said.splitlines():
        if line.startswith("[#] "):
            printed.append([])
        else:
            printed[-1].append(line)
    return "; ".join(next(lines for lines in reversed(printed) if lines))


def main() -> int:
    """Record all that wg-quick makes, or that of the confs that are named."""
    with Lab() as lab:
        host = make_host(lab)
        for name in sys.argv[1:] or NAMES:
            recorded = by_wg_quick(host, name)
            recorded.write(name)
            print(name, recorded.words or "up and down", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
