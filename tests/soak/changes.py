"""Is a daemon's memory flat while everything around it changes, and does nothing pause? As root.

    python -m tests.soak.changes --minutes 10

Two hosts of a lab with a tunnel. For minutes without a break, host a: 200 peers come by `wg set`
and go again, the conf is reloaded, status, metrics and events are asked for, the interface goes
down and up. Meanwhile pings cross the tunnel. One line a minute: resident memory (VmRSS), peers
that came and went so far, the longest stop of the garbage collector in that minute, its share of
the time, how many objects it freed and how many are frozen. It fails when the memory has grown by
more than `--limit` kB in the second half or any stop took longer than `--pause` ms. In the first
half the heap grows to what the busiest moment needs; some 2,000 rounds do that.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.churn_program import KINDS, PEERS
from tests.support.processes import resident_kb
from tests.support.watched import Watched
from tunnel.lab import Lab
from tunnel.lab.peers import Node, mesh


def main() -> int:
    """The exit status: 1 when memory has grown or something has paused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--limit", type=int, default=4_096, help="kB")
    parser.add_argument("--pause", type=float, default=20.0, help="milliseconds")
    options = parser.parse_args()
    with Lab() as lab:
        hosts = lab.host("a"), lab.host("b")
        lab.link(*hosts, ["192.0.2.1/24"], ["192.0.2.2/24"])
        nodes = [
            Node(host, (f"10.77.0.{number}/24",), f"192.0.2.{number}")
            for number, host in enumerate(hosts, start=1)
        ]
        ends = mesh(nodes)
        ends["b"].up()
        a, b = hosts
        daemon = Watched(a, ends["a"].conf)
        program = [sys.executable, "-m", "tests.support.churn_program", "1000000000"]
        churn = a.popen([*program, *options.kinds])
        ping = b.popen(["ping", "-n", "-q", "-i", "0.01", nodes[0].address()])
        daemon.pauses()
        print(f"{', '.join(options.kinds)}")
        print(
            "minute  RSS kB  peers so far  longest ms  stopped %  fulls    freed   frozen",
            flush=True,
        )
        begin = time.monotonic()
        resident: list[int] = []
        longest = 0.0
        for minute in range(1, options.minutes + 1):
            time.sleep(max(0.0, begin + 60 * minute - time.monotonic()))
            assert churn.running, churn.log()[-2_000:] + daemon.log()[-4_000:]
            pauses = daemon.pauses()
            longest = max(longest, pauses["longest_ms"])
            resident.append(resident_kb(daemon.pid))
            rounds = len(churn.log().splitlines())
            print(
                f"{minute:6}  {resident[-1]:6,}  {rounds * PEERS:12,}  "
                f"{pauses['longest_ms']:10.1f}  {pauses['total_ms'] / 600:9.2f}  "
                f"{pauses['full']:5}  {pauses['collected']:7,}  {pauses['frozen']:7,}",
                flush=True,
            )
        churn.kill()
        ping.stop()
        daemon.stop()
    grown = resident[-1] - resident[(len(resident) - 1) // 2]
    print(f"grown in the second half: {grown:,} kB; longest stop: {longest:.1f} ms")
    return int(grown > options.limit or longest > options.pause)


if __name__ == "__main__":
    sys.exit(main())
