"""What floods leave of a tunnel, beside wireguard-go. As root; needs iperf3 and wg.

    python -m tests.soak.floods --rate 190000 --kinds junk "bad mac1"

Four hosts on a switch: a server that is flooded, a peer with a session, a newcomer, and the
attacker. A row for each kind of flood and each program: the datagrams a second that were sent, the
time of new handshakes, what TCP carries to the server meanwhile, how many pings are lost, whether
the peer's session went on, the bytes that the attacker got for each that he sent, and by how much
the server's memory grew in the second half of the flood.

    junk          148 bytes that are no message
    bad mac1      initiations by one who does not know the server's public key
    one source    initiations with a right mac1 and nothing else right, from one address
    many sources  the same from 16,384 addresses
    replays       what the peer has sent before, its initiation and data, from another address
    giants        forged data of the peer's session, 65,507 bytes each

Takes less than a minute for a row. Both ends of the tunnel, the attacker and the kernel's work for
him share the cores of one machine: compare the two programs, not the figures of two machines. So
the programs take turns, and `--rounds` gives the median of several.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from operator import sub
from pathlib import Path
from statistics import median

from tests.support.flood_program import KINDS, MANY_SOURCES, OWN_SOURCE
from tunnel.bench.bench import Bench
from tunnel.bench.handshake_load import private_key
from tunnel.bench.subjects import A_INNER, B_OUTER, Ours, Scalable, WireGuardGo
from tunnel.bench.usage import rss_mib
from tunnel.lab import Host, Lab
from tunnel.lab.errors import LabTimeoutError
from tunnel.lab.peers import PORT

NEWCOMERS = 5
PATIENCE = 6.0
"""Seconds for one of them, which is two initiations."""
TCP_SECONDS = 3.0
HEAD = (
    "flood", "program", "sent/s", "handshake: median", "worst", "TCP Mbit/s", "pings lost",
    "session", "bytes answered", "memory",
)  # fmt: skip
RECORDED = 64
"""Datagrams that are recorded for the attacker."""


@dataclass(frozen=True)
class FloodFigures:
    """What one flood left: seconds, Mbit/s, percent, parts of one, MiB. `handshakes` are new ones
    of the peer that had a session.
    """

    sent: float
    median_handshake: float
    worst_handshake: float
    tcp: float
    lost: float
    handshakes: int
    answered: float
    memory: float


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rate", type=int, default=190_000, help="datagrams a second")
    parser.add_argument("--rounds", type=int, default=1, help="times that each is measured")
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
        found: dict[str, list[FloodFigures]] = {program: [] for program in options.programs}
        for _ in range(options.rounds):
            for program in options.programs:
                found[program].append(measure(kind, program, options.rate, options.how))
        for program, figures in found.items():
            print("| " + " | ".join((kind, program, *row(figures))) + " |", flush=True)
    return 0


def row(figures: Sequence[FloodFigures]) -> tuple[str, ...]:
    """The medians of several measurements as they are printed."""
    sent, usual, worst, tcp, lost, handshakes, answered, memory = (
        median(getattr(each, field.name) for each in figures) for field in fields(FloodFigures)
    )
    return (
        f"{sent:.0f}",
        f"{usual:.3f} s",
        f"{worst:.3f} s" if worst < PATIENCE else f"none in {PATIENCE:g} s",
        f"{tcp:.0f}",
        f"{lost:g} %",
        "goes on" if not handshakes else "begun again",
        f"{100 * answered:.2f} %",
        f"{memory:+.1f} MiB",
    )


def measure(kind: str, program: str, rate: int, how: str) -> FloodFigures:
    """One flood of one program, in a lab of its own."""
    newcomers = "".join(
        f"\n[Peer]\nPublicKey = {private_key(number).public_key().to_base64()}\n"
        f"AllowedIPs = 10.78.0.{number + 1}/32\n"
        for number in range(NEWCOMERS)
    )
    subject: Scalable = WireGuardGo() if program == "wireguard-go" else Ours(program)
    subject = subject.with_more_peers(newcomers)
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        switch = lab.switch("switch")
        peer, server, newcomer, attacker = (lab.host(name) for name in "abcd")
        for number, host in enumerate((peer, server, attacker, newcomer), start=1):
            switch.attach(host, [f"192.0.2.{number}/24"])
        server.ip(f"route add {MANY_SOURCES} via {OWN_SOURCE[0]}")
        record = Path(folder, "recorded")
        recording = server.popen(module("record_program", "eth0", PORT, RECORDED, record))
        recording.wait_for_output("begins")
        bench = Bench(peer, server, subject, TCP_SECONDS)
        bench.begin()
        peer.run(["ping", "-nqf", f"-c{RECORDED}", "-w10", subject.target], check=False)
        recording.wait(20)
        daemon = server.pids()
        before = latest_handshake(server, A_INNER)
        counted = traffic(attacker)
        if kind != "none":
            key = subject.server_key
            flood = attacker.popen(flood_command(kind, server, key, rate, how, record))
            flood.wait_for_output("begins")
        asking = (subject.server_key, B_OUTER, PORT, 0, NEWCOMERS, PATIENCE)
        command = module("newcomer_program", *asking)
        answer = newcomer.run(command, timeout=NEWCOMERS * PATIENCE + 20)
        times = json.loads(answer.stdout)
        memory = rss_mib(daemon)
        tcp = throughput(peer, server, subject.target)
        pinged = peer.run(["ping", "-nq", "-c100", "-i.02", "-W1", subject.target], check=False)
        lost = re.search(r"([0-9.]+)% packet loss", pinged.stdout)
        grown = rss_mib(daemon) - memory
        sent = 0.0
        if kind != "none":
            flood.signal(signal.SIGTERM)
            flood.wait(10)
            sent = float(flood.log().split()[-1])
        received, transmitted = map(sub, traffic(attacker), counted)
        new_handshake = latest_handshake(server, A_INNER) != before
    worst = [PATIENCE if each is None else each for each in times]
    return FloodFigures(
        sent,
        median(worst),
        max(worst),
        tcp,
        float(lost[1]) if lost else 100.0,
        int(new_handshake),
        received / transmitted if kind != "none" else 0.0,
        grown,
    )


def latest_handshake(server: Host, peer: str) -> str:
    """When the server's last handshake with the peer of that inner address was, as wg says it."""
    shown = server.run(["wg", "show", "all", "dump"]).stdout
    (line,) = (line for line in shown.splitlines() if f"\t{peer}/32\t" in line)
    return line.split("\t")[5]


def traffic(host: Host) -> tuple[int, int]:
    """Bytes that the card of `host` has received and sent, headers included."""
    (link,) = host.ip_json(["-s", "link", "show", "dev", "eth0"])
    return link["stats64"]["rx"]["bytes"], link["stats64"]["tx"]["bytes"]


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


def flood_command(
    kind: str, server: Host, key: str, rate: int, how: str, recorded: Path
) -> list[str]:
    """The attacker's command; it ends by itself, should no one stop it."""
    (link,) = server.ip_json(["link", "show", "dev", "eth0"])
    how = "single" if kind in ("many sources", "replays") else how
    words = (kind, "eth0", link["address"], B_OUTER, PORT, key, rate, 90, how, recorded)
    return module("flood_program", *words)


def module(name: str, *words: object) -> list[str]:
    """The command that runs a program of `tests.support`."""
    return [sys.executable, "-m", f"tests.support.{name}", *map(str, words)]


if __name__ == "__main__":
    sys.exit(main())
