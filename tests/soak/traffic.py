"""Is the memory of both daemons flat under minutes of traffic? As root; needs iperf3.

    python -m tests.soak.traffic --datapath native --load udp tcp --minutes 10

Two hosts of a lab, `tunnel up` in each. UDP packets of 400 B go at 3,000 a second, TCP as fast as
`--tcp-rate` lets it. One line a minute: the resident memory (VmRSS) of the sender and of the
receiver, and the bytes that the receiver has taken. It fails when either end has grown by more than
`--limit` kB since the first minute, when caches and buffers have their size.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.pairs import status
from tests.support.processes import resident_kb
from tunnel.lab import Lab
from tunnel.lab.peers import Node, OurEnd, mesh
from tunnel.lab.process import HostProcess

UDP_BYTES = 400
UDP_RATE = UDP_BYTES * 8 * 3_000
"""Bits a second."""


def main() -> int:
    """The exit status: 1 when memory has grown."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--datapath", choices=("native", "python"), default="native")
    parser.add_argument("--load", nargs="+", choices=("udp", "tcp"), default=("udp", "tcp"))
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--tcp-rate", default="0", help="as iperf3 -b has it; 0 is no limit")
    parser.add_argument("--limit", type=int, default=1_024, help="kB")
    options = parser.parse_args()
    with Lab() as lab:
        hosts = lab.host("a"), lab.host("b")
        lab.link(*hosts, ["192.0.2.1/24"], ["192.0.2.2/24"])
        nodes = [
            Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}")
            for number, host in enumerate(hosts, start=1)
        ]
        ends = mesh(nodes, environment={"TUNNEL_DATAPATH": options.datapath})
        sender, receiver = ends["a"], ends["b"]
        assert isinstance(sender, OurEnd)
        assert isinstance(receiver, OurEnd)
        pids = []
        for end in (sender, receiver):
            end.up()
            found = status(end)
            pids.append(found["pid"])
            assert found["datapath"] == options.datapath
        loads = [start(kind, sender, receiver, options) for kind in options.load]
        print(f"{options.datapath}, {' and '.join(options.load)}")
        print("minute  sender kB  receiver kB  received MB", flush=True)
        begin = time.monotonic()
        rows: list[list[int]] = []
        for minute in range(1, options.minutes + 1):
            time.sleep(max(0.0, begin + 60 * minute - time.monotonic()))
            rows.append([resident_kb(pid) for pid in pids])
            received = status(receiver)["peers"][0]["rx_bytes"] // 1_000_000
            print(f"{minute:6}  {rows[-1][0]:9,}  {rows[-1][1]:11,}  {received:11,}", flush=True)
            for load in loads:
                assert load.running or minute == options.minutes, load.log()
        for load in loads:
            assert load.wait(30) == 0, load.log()
    grown = [last - first for first, last in zip(rows[0], rows[-1], strict=True)]
    print(f"grown since the first minute: {grown[0]:,} and {grown[1]:,} kB")
    return int(max(grown) > options.limit)


def start(kind: str, sender: OurEnd, receiver: OurEnd, options: argparse.Namespace) -> HostProcess:
    """iperf3 from one end to the other, for as long as asked and a little more."""
    port = {"udp": "5201", "tcp": "5202"}[kind]
    server = receiver.node.host.popen(["iperf3", "-s", "-1", "-p", port, "--forceflush"])
    server.wait_for_output("Server listening")
    how = (
        ["-u", "-l", str(UDP_BYTES), "-b", str(UDP_RATE)]
        if kind == "udp"
        else ["-b", options.tcp_rate]
    )
    seconds = str(60 * options.minutes + 2)
    return sender.node.host.popen(
        ["iperf3", "-c", receiver.node.address(), "-p", port, "-t", seconds, "-i", "0", *how]
    )


if __name__ == "__main__":
    sys.exit(main())
