"""How soon do packets flow where routes are odd or move? Ours and wireguard-go. As root.

    python -m tests.soak.routes

A host with two uplinks, its peer behind a router. `first packet` is the time of the first ping to a
host whose route back is by the other uplink, the handshake included. The others are the longest
pause of a ping every 10 ms while the route to the peer moves to the other uplink and what comes for
the old address is lost: by a replaced route, a better metric, a more specific route, the old one
taken away, and an address that moves to another machine (VRRP) with ip_nonlocal_bind. Milliseconds;
`-` is more than the 8 seconds of a trial. With `--foreign N`, N routes to elsewhere come and go
while packets flow, and the CPU time of the daemon is printed instead.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from itertools import pairwise
from pathlib import Path

from tests.support.pairs import status
from tests.support.uplinks import BITS, MOVES, TwoUplinks
from tunnel.lab import Lab
from tunnel.lab.peers import End, Node, OurEnd, mesh

SECONDS = 8
_REPLY = re.compile(r"^\[([0-9.]+)\].* time=([0-9.]+) ms", re.MULTILINE)


def tunnel(net: TwoUplinks, program: str, place: str | None) -> End:
    """Both ends up; b finds a at `place`. The end of a."""
    here = Node(net.a, ("10.77.0.1/24",), place)
    there = Node(net.b, ("10.77.0.2/24",), net.peer)
    foreign = {} if program == "tunnel" else {"a": program, "b": program}
    ends = mesh([here, there], foreign=foreign)
    for end in ends.values():
        end.up()
    return ends["a"]


def first_packet(program: str, outer: int) -> float | None:
    """Milliseconds of the first ping to a host that answers by its other uplink."""
    with Lab() as lab:
        net = TwoUplinks.make(lab, outer)
        net.route(f"add default via {net.gateway(1)}")
        tunnel(net, program, net.own(0))
        command = ["ping", "-n", "-c", "1", "-W", str(SECONDS), "10.77.0.1"]
        found = re.search(r" time=([0-9.]+) ms", net.b.run(command, check=False, timeout=30).stdout)
        return None if found is None else float(found[1])


def pause(program: str, outer: int, how: str) -> float | None:
    """The longest pause in milliseconds while the route moves; None if it did not end."""
    with Lab() as lab:
        net = TwoUplinks.make(lab, outer)
        net.route(f"add default via {net.gateway(0)} metric 1024")
        virtual = net.own(0, 77)
        if how == "vrrp":
            net.a.set_sysctl(f"net.ipv{outer}.ip_nonlocal_bind", "1")
            net.a.add_addresses("eth0", [f"{virtual}/{BITS[outer]}"])
        tunnel(net, program, virtual if how == "vrrp" else None)
        asking, asked = (net.b, "10.77.0.1") if how == "vrrp" else (net.a, "10.77.0.2")
        asking.run(["ping", "-n", "-c", "1", "-W", "5", asked], timeout=30)
        count = str(SECONDS * 100)
        ping = net.a.popen(["ping", "-D", "-n", "-i", "0.01", "-c", count, "-W", "1", "10.77.0.2"])
        time.sleep(1.0)
        if how == "vrrp":
            net.lose(virtual)
            net.a.run(["ip", "address", "del", f"{virtual}/{BITS[outer]}", "dev", "eth0"])
        else:
            net.lose(net.own(0))
            net.move(how)
        ping.wait(30)
        times = [float(when) for when, _ in _REPLY.findall(ping.log())]
        gaps = [after - before for before, after in pairwise(times)]
        if not times or times[-1] < times[0] + SECONDS - 2:
            return None
        return 1000 * max(gaps)


def foreign(count: int) -> None:
    """The daemon's CPU time while routes that are not ours come and go."""
    with Lab() as lab:
        net = TwoUplinks.make(lab, 4)
        net.route(f"add default via {net.gateway(0)}")
        end = tunnel(net, "tunnel", None)
        assert isinstance(end, OurEnd)
        net.a.run(["ping", "-n", "-c", "1", "-W", "5", "10.77.0.2"], timeout=30)
        pid = status(end)["pid"]

        def cpu() -> float:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
            return (int(fields[11]) + int(fields[12])) / 100

        lines = [f"100.{n >> 16}.{n >> 8 & 255}.{n & 255}/32" for n in range(count)]
        text = "".join(f"route {{}} {line} via {net.gateway(1)}\n" for line in lines)
        ping = net.a.popen(["ping", "-D", "-n", "-i", "0.01", "-c", "3000", "10.77.0.2"])
        before, begin = cpu(), time.monotonic()
        for verb in ("add", "del"):
            net.a.run(["ip", "-batch", "-"], stdin=text.replace("{}", verb), timeout=300)
        seconds = time.monotonic() - begin
        used = cpu() - before
        ping.stop()
        trips = sorted(float(trip) for _, trip in _REPLY.findall(ping.log()))
        print(
            f"{2 * count:,} changes in {seconds:.1f} s: {used:.2f} s of CPU in the daemon, with "
            f"{len(trips)} pings of {trips[len(trips) // 2]:.2f} ms, at most {trips[-1]:.1f} ms"
        )


def main() -> int:
    """Print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--programs", nargs="+", default=["tunnel", "wireguard-go"])
    parser.add_argument("--foreign", type=int, default=0)
    options = parser.parse_args()
    if options.foreign:
        foreign(options.foreign)
        return 0
    print(f"{'':14}  IP" + "".join(f"  {program:>12}" for program in options.programs))
    for how in ("first packet", *MOVES, "vrrp"):
        for outer in (4, 6):
            row = f"{how:14}  v{outer}"
            for program in options.programs:
                if how == "first packet":
                    found = first_packet(program, outer)
                else:
                    found = pause(program, outer, how)
                row += f"  {'-' if found is None else format(found, '.0f'):>12}"
            print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
