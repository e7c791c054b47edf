"""Checks of the conf, the clock, privileges, and whether the tunnel is up at all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from ipaddress import ip_interface

from tunnel.config import OWN_KEY, PrivateKey
from tunnel.config.expiry import without_expired
from tunnel.doctor.around import doctor_command, put_back, restart_command, up_command
from tunnel.doctor.facts import Facts, Network
from tunnel.doctor.findings import Finding

EARLIEST, LATEST = 1_577_836_800, 4_102_444_800
"""Unix times of the years 2020 and 2100: outside of them a clock was never set, or set wrongly."""

AHEAD = 60.0
"""Seconds by which a past handshake may lie in the future before the clock must have gone back."""


def check_clock(facts: Facts) -> Iterator[Finding]:
    """A wall clock that peers reject: handshakes carry its time, which must only grow."""
    remedy = "timedatectl set-ntp true   # or: date --set='…'"
    today = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(facts.now))
    if not EARLIEST <= facts.now < LATEST:
        yield Finding(
            "clock_wrong",
            "this host's clock was never set, or is far off: peers refuse its handshakes",
            f"it says {today}",
            remedy,
        )
        return
    for peer in facts.peers:
        ahead = peer.latest_handshake - facts.now
        if ahead > AHEAD:
            yield Finding(
                "clock_set_back",
                "this host's clock was set back: the peer ignores handshakes that look older "
                "than the last one it saw",
                f"it says {today}, {ahead:.0f} s before the latest handshake",
                remedy,
                peer.public_key,
            )


def check_conf(facts: Facts) -> Iterator[Finding]:
    """A conf that `tunnel up` would refuse."""
    for problem in facts.problems:
        if problem.fault == OWN_KEY:
            yield Finding(
                "own_key_as_peer",
                "a peer has this host's own public key: the keys of the two sides are mixed up",
                f"{problem.place}: PublicKey is the public key of our PrivateKey",
                "on the peer: tunnel pubkey < its private key; write that here",
            )
        else:
            yield Finding(
                "conf_invalid",
                "the conf cannot be used",
                f"{problem.place}: {problem.fault}",
                problem.remedy,
            )


def check_conf_doubts(facts: Facts) -> Iterator[Finding]:
    """Notes: what `tunnel up` warns of, such as a key that others can read."""
    for problem in facts.conf.warnings if facts.conf is not None else ():
        yield Finding(
            "conf_doubtful",
            "the conf can be used, but not all of it is right",
            f"{problem.place}: {problem.fault}",
            problem.remedy,
        )


def check_conf_gone(facts: Facts) -> Iterator[Finding]:
    """A tunnel that runs, and could not come up again."""
    if facts.conf_gone and facts.after is not None:
        path = shlex.quote(facts.after.conf)
        yield Finding(
            "conf_gone",
            "the conf that the tunnel was set up from is gone: the running tunnel cannot be "
            "compared with it, and would not come up again",
            f"there is no {path}",
            f"put {path} back; tunnel show {facts.name} lists what runs",
        )


def check_allowed_ips_twice(facts: Facts) -> Iterator[Finding]:
    """A network that two peers of the conf claim: the later one gets all of it."""
    if facts.conf is None:
        return
    holders: dict[Network, str] = {}
    for peer in facts.conf.peers:
        key = peer.public_key.to_base64()
        for network in peer.networks:
            first = holders.setdefault(network, key)
            if first != key:
                yield Finding(
                    "allowed_ips_twice",
                    f"two peers have {network} in AllowedIPs: the later one gets all packets to "
                    "it, the other none",
                    f"the conf gives it to {first}, and then to {key}",
                    f"take it out of one of the two; then tunnel reload {facts.name}",
                    first,
                )
                holders[network] = key


def check_private_key_as_peer(facts: Facts) -> Iterator[Finding]:
    """A peer whose public key is our private key's text: the wrong one was copied."""
    if facts.conf is None:
        return
    own = facts.conf.interface.private_key
    if own is None:
        return
    for peer in facts.conf.peers:
        # Private keys are clamped when they are read, so compare like with like.
        if PrivateKey.from_bytes(bytes(peer.public_key)) == own:
            yield Finding(
                "private_key_as_peer",
                "PrivateKey and a peer's PublicKey are the same key: one was copied into the "
                "place of the other",
                "both lines of the conf hold it",
                "tunnel genkey (here), tunnel pubkey (on the peer); a key that was given away as "
                "public must be replaced",
                peer.public_key.to_base64(),
            )


def check_private_key(facts: Facts) -> Iterator[Finding]:
    """No key of our own: the conf has none, and no hook has set one."""
    if facts.after is not None and facts.after.public_key is None:
        yield Finding(
            "private_key_missing",
            "this host has no private key, so no peer can be reached",
            f"tunnel show {facts.name} lists no public key: the conf has no PrivateKey, and no "
            "hook has set one",
            f"wg set {facts.name} private-key FILE, in a hook, too; or put PrivateKey into section "
            f"[Interface] of the conf, then tunnel reload {facts.name}",
        )


def check_running(facts: Facts) -> Iterator[Finding]:
    """No daemon, or one that does not answer."""
    if facts.refused:
        return  # whether it runs is not known: `check_privileges` says how to learn it
    up = up_command(facts)
    if facts.hangs:
        ends = f"kill -KILL {facts.hangs}"
        yield Finding(
            "daemon_hangs",
            f"the daemon of {facts.name} is running, but does not answer",
            f"process {facts.hangs}: {facts.daemon_error}",
            f"kill -CONT {facts.hangs}; sleep 1; tunnel show {facts.name} >/dev/null || "
            + (f"{{ {ends}; sleep 1; {up}; }}" if facts.conf_path else f"{ends}   # then {up}"),
        )
        return
    if facts.busy:
        yield Finding(
            "not_ready",
            f"the tunnel {facts.name} is coming up or going down, slowed by a hook or look-up",
            facts.daemon_error,
            f"sleep 10; {doctor_command(facts)}",
        )
        return
    if facts.after is None and not facts.problems:
        shut = "; its kill switch refuses all that should go into it" if facts.shut else ""
        if facts.obstacles:
            yield Finding(
                "not_running",
                f"the tunnel {facts.name} is not up, and would not come up{shut}",
                "there is no control socket; what stands in the way is named here, too",
                f"{up}   # once that is removed",
            )
            return
        yield Finding(
            "not_running",
            f"the tunnel {facts.name} is not up, or does not answer{shut}",
            facts.daemon_error
            or ("its daemon was killed and has left things behind" if facts.killed else "")
            or "there is no control socket",
            # Down, and packets leave in clear until the next command has begun.
            f"{up}   # tunnel down {facts.name} opens the network without it" if facts.shut else up,
        )


def check_privileges(facts: Facts) -> Iterator[Finding]:
    """Rights that we need to look, or the daemon to work."""
    lacks = [f"it runs without {', '.join(facts.missing)}"] if facts.missing else []
    if facts.refused:
        lacks.append(facts.daemon_error)
    if lacks:
        yield Finding(
            "privileges",
            "the doctor lacks privileges: no probes and no trace, so there may be more faults",
            "; ".join(lacks),
            f"sudo {doctor_command(facts)}",
        )
    if facts.daemon_missing:
        yield Finding(
            "daemon_privileges",
            "the daemon is not allowed to change the network: it cannot repair routes or "
            "reload the conf",
            f"process {facts.after.pid if facts.after else '?'} runs without "
            f"{', '.join(facts.daemon_missing)}",
            f"sudo {restart_command(facts)}",
        )


def check_interface(facts: Facts) -> Iterator[Finding]:
    """The TUN device: there, up, with its addresses."""
    if facts.after is None or not facts.links or not facts.after.here:
        return
    link = facts.links.get(facts.name)
    if link is None:
        yield _missing(facts, facts.after.device)
        return
    if not link.up:
        yield Finding(
            "interface_down",
            f"the interface {facts.name} is down",
            "ip link shows it without UP",
            put_back(facts, f"ip link set {facts.name} up"),
        )
        return  # IPv6 addresses go with it
    link = facts.links.get(facts.addressed, link)
    lacking = [text for text in facts.after.addresses if ":" in text and text not in link.networks]
    setting = f"net.ipv6.conf.{link.name.replace('.', '/')}.disable_ipv6"
    if lacking and facts.sysctls.get(f"net.ipv6.conf.{link.name}.disable_ipv6") == "1":
        yield Finding(
            "ipv6_off",
            f"IPv6 is switched off on {link.name}, so its addresses {', '.join(lacking)} are gone",
            f"sysctl {setting} is 1",
            f"sysctl -w {setting}=0; tunnel reload {facts.name}",
        )
        return
    have = {ip_interface(text).ip for text in link.networks}
    for text in facts.after.addresses:
        if ip_interface(text).ip not in have:
            yield Finding(
                "address_missing",
                f"the interface lacks its address {text}",
                f"ip address show {link.name} does not list it",
                put_back(facts, f"ip address add {text} dev {link.name}"),
            )


def _missing(facts: Facts, device: str) -> Finding:
    name, now = facts.name, shlex.quote(device)
    if device in ("", name):
        return Finding(
            "interface_missing",
            f"the interface {name} is gone",
            "the daemon runs, but ip link does not list it",
            restart_command(facts),
        )
    return Finding(
        "interface_missing",
        f"the interface {name} was renamed: rules and routes for {name} do not match it",
        f"the daemon says that it is called {device}; ip link does not list {name}",
        f"ip link set {now} down; ip link set {now} name {name}; ip link set {name} up",
    )


def check_elsewhere(facts: Facts) -> Iterator[Finding]:
    """A note: what runs is in another namespace, and cannot be judged from here."""
    status = facts.after
    if status is None:
        return
    if facts.elsewhere:
        yield Finding(
            "interface_elsewhere",
            "the daemon is in another network namespace than this command, which cannot see "
            "its interfaces and routes",
            f"/proc/{status.pid}/ns/net is not ours",
            f"nsenter -t {status.pid} -n tunnel doctor {facts.name}",
        )
    elif not status.here:
        yield Finding(
            "interface_elsewhere",
            f"the interface {facts.name} was moved to another network namespace: what is around it "
            "there was not looked at",
            f"the daemon says so, and that it is called {status.device or facts.name}",
            "look there: ip -n NAMESPACE address; ip netns exec NAMESPACE ping ADDRESS",
        )


def check_differs(facts: Facts) -> Iterator[Finding]:
    """A note: the conf differs from what runs."""
    if facts.conf is None or facts.after is None:
        return
    conf = without_expired(facts.conf, facts.now)
    wanted = {peer.public_key.to_base64(): peer for peer in conf.peers}
    running = {peer.public_key: peer for peer in facts.after.peers}
    differing = [
        key
        for key in wanted.keys() | running.keys()
        if key not in wanted
        or key not in running
        or set(map(str, wanted[key].networks)) != set(running[key].allowed_ips)
        or wanted[key].persistent_keepalive != running[key].persistent_keepalive
        or (wanted[key].preshared_key is not None) != running[key].has_preshared_key
    ]
    if differing:
        yield Finding(
            "conf_not_applied",
            "the conf differs from what is running",
            f"peers that differ: {', '.join(sorted(differing))}",
            f"tunnel diff {facts.name}; tunnel reload {facts.name}",
        )
