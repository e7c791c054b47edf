"""What floods of handshakes leave of a tunnel, beside wireguard-go. As root; needs iperf3 and wg.

    python -m tests.soak.floods --rate 190000 --kinds junk "bad mac1"

Four hosts on a switch: a server that is flooded, a peer with a session, a newcomer, and the
attacker. A row for each kind of flood and each program: the datagrams a second that were sent, the
time of new handshakes, what TCP carries to the server meanwhile, and how many pings are lost.

    junk          148 bytes that are no message
    bad mac1      initiations by one who does not know the server's public key
    one source    initiations with a right mac1 and nothing else right, from one address
    many sources  the same from 16,384 addresses

Takes less than a minute for a row. Both ends of the tunnel, the attacker and the kernel's work for
him share the cores of one machine: compare the two programs, not the figures of two machines.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
from statistics import median

from tests.support.flood_program import KINDS, MANY_SOURCES, OWN_SOURCE
from tunnel.bench.bench import Bench
from tunnel.bench.handshake_load import private_key
from tunnel.bench.subjects import B_OUTER, Ours, Scalable, WireGuardGo
from tunnel.lab import Host, Lab
from tunnel.lab.errors import LabTimeoutError
from tunnel.lab.peers import PORT

NEWCOMERS = 5
PATIENCE = 6.0
"""Seconds for one of them, which is two initiations."""
TCP_SECONDS = 3.0
HEAD = ("flood", "program", "sent/s", "handshake: median", "worst", "TCP Mbit/s", "pings lost")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rate", type=int, default=190_000, help="datagrams a second")
    parser.add_argument("--kinds", nargs="+", choices=("none", *KINDS), default=("none", *KINDS))
    parser.add_argument(
        "--programs", nargs="+", choices=("native", "python", "wireguard-go"),
        default=("native", "wireguard-go"),
    )  # fmt: skip
    parser.add_argument(
        "--how", choices=("single", "batches"), default="single",
        help="batches: 64 datagrams of one source in one call, as a host with UDP_SEGMENT sends",
    )  # fmt: skip
    options = parser.parse_args()
    print("| " + " | ".join(HEAD) + " |\n|" + "---|" * len(HEAD), flush=True)
    for kind in options.kinds:
        for program in options.programs:
            row = measure(kind, program, options.rate, options.how)
            print("| " + " | ".join((kind, program, *row)) + " |", flush=True)
    return 0


def measure(kind: str, program: str, rate: int, how: str) -> tuple[str, ...]:
    """One row, in a lab of its own."""
    newcomers = "".join(
        f"\n[Peer]\nPublicKey = {private_key(number).public_key().to_base64()}\n"
        f"AllowedIPs = 10.78.0.{number + 1}/32\n"
        for number in range(NEWCOMERS)
    )
    subject: Scalable = WireGuardGo() if program == "wireguard-go" else Ours(program)
    subject = subject.with_more_peers(newcomers)
    with Lab() as lab:
        switch = lab.switch("switch")
        peer, server, newcomer, attacker = (lab.host(name) for name in "abcd")
        for number, host in enumerate((peer, server, attacker, newcomer), start=1):
            switch.attach(host, [f"192.0.2.{number}/24"])
        server.ip(f"route add {MANY_SOURCES} via {OWN_SOURCE[0]}")
        bench = Bench(peer, server, subject, TCP_SECONDS)
        bench.begin()
        sent = "-"
        if kind != "none":
            flood = attacker.popen(flood_command(kind, server, subject.server_key, rate, how))
            flood.wait_for_output("begins")
        asking = (subject.server_key, B_OUTER, PORT, 0, NEWCOMERS, PATIENCE)
        command = module("newcomer_program", *asking)
        answer = newcomer.run(command, timeout=NEWCOMERS * PATIENCE + 20)
        times = json.loads(answer.stdout)
        tcp = throughput(peer, server, subject.target)
        pinged = peer.run(["ping", "-nq", "-c100", "-i.02", "-W1", subject.target], check=False)
        lost = re.search(r"([0-9.]+)% packet loss", pinged.stdout)
        if kind != "none":
            flood.signal(signal.SIGTERM)
            flood.wait(10)
            sent = flood.log().split()[-1]
    worst = [PATIENCE if each is None else each for each in times]
    return (
        sent,
        f"{median(worst):.3f} s",
        f"{max(worst):.3f} s" if None not in times else f"none in {PATIENCE:g} s",
        f"{tcp:.0f}",
        f"{lost[1] if lost else '?'} %",
    )


def throughput(peer: Host, server: Host, target: str) -> float:
    """Mbit/s that TCP carries from `peer` to `server`; 0 if it cannot even say so in the end."""
    receiving = server.popen(["iperf3", "-s", "-1", "--forceflush"])
    receiving.wait_for_output("Server listening")
    command = ["iperf3", "-J", "-c", target, "-t", str(TCP_SECONDS), "--connect-timeout", "3000"]
    try:
        result = json.loads(peer.run(command, timeout=TCP_SECONDS + 12, check=False).stdout)
        return float(result["end"]["sum_received"]["bits_per_second"]) / 1e6
    except (LabTimeoutError, KeyError):
        return 0.0
    finally:
        receiving.stop()


def flood_command(kind: str, server: Host, key: str, rate: int, how: str) -> list[str]:
    """The attacker's command; it ends by itself, should no one stop it."""
    (link,) = server.ip_json(["link", "show", "dev", "eth0"])
    how = "single" if kind == "many sources" else how
    words = (kind, "eth0", link["address"], B_OUTER, PORT, key, rate, 90, how)
    return module("flood_program", *words)


def module(name: str, *words: object) -> list[str]:
    """The command that runs a program of `tests.support`."""
    return [sys.executable, "-m", f"tests.support.{name}", *map(str, words)]


if __name__ == "__main__":
    sys.exit(main())
