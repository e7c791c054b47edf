"""A made-up IP stack: tells a Joiner what a kernel and a daemon would tell it."""

from __future__ import annotations

import socket
import struct
from typing import Any

from tunnel.packet.headers import ICMP, UDP
from tunnel.trace.correlate import LATE, Joiner
from tunnel.trace.journey import Journey
from tunnel.trace.nftrace import TraceEvent, TraceType, Verdict
from tunnel.trace.ruleset import BaseChain, Ruleset

ETH, TUN = 2, 3
PORT = 51820
TABLE = "tunnel-trace-wg0-1"
RULE = 3
_CHAINS = {"PREROUTING": "pre", "INPUT": "in", "FORWARD": "fwd", "OUTPUT": "out"}
INET = 1


def packet(protocol: int, source: str, destination: str, transport: bytes) -> bytes:
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    length = 20 + len(transport)
    return struct.pack("!BBHHHBBH", 0x45, 0, length, 1, 0, 64, protocol, 0) + addresses + transport


def echo(number: int, source: str = "10.77.0.1") -> bytes:
    ping = struct.pack("!BBHHH", 8, 0, 0, 99, number) + bytes(56)
    return packet(ICMP, source, "10.77.0.2", ping)


def message(index: int, counter: int, kind: int = 4) -> bytes:
    udp = struct.pack("!HHHH", PORT, PORT, 136, 0)
    data = struct.pack("<BxxxIQ", kind, index, counter) + bytes(112)
    return packet(UDP, "192.0.2.1", "192.0.2.2", udp + data)


class Stack:
    """One host. Everything that is told takes a millisecond."""

    def __init__(self) -> None:
        chains = {("inet", "user", name): BaseChain(hook, 0) for hook, name in _CHAINS.items()}
        rules = {("inet", "user", RULE): "a rule"}
        self.time = 100.0
        self.joiner = Joiner(
            table=TABLE,
            ruleset=Ruleset(chains, rules),
            interfaces={ETH: "eth0", TUN: "wg0"},
            tun=TUN,
            port=PORT,
        )

    def cross(
        self,
        number: int,
        data: bytes,
        hooks: str,
        *,
        iif: int = 0,
        oif: int = 0,
        verdict: Verdict = Verdict.ACCEPT,
        left_as: bytes | None = None,
        marked: bool = True,
        vanishes: bool = False,
    ) -> None:
        """A packet at some hooks; a rule of the last one gives `verdict`.

        One that `vanishes` does not come to the last hook's end, and no rule says why.
        """
        names = hooks.split()
        for name in names:
            last = name == names[-1]
            places = (
                0 if name == "OUTPUT" else iif,
                0 if name in ("PREROUTING", "INPUT") else oif,
            )
            if marked:
                self._event(number, TABLE, f"first-{name.lower()}", 1, None, data, places)
            if name in _CHAINS:
                told = verdict if last else Verdict.ACCEPT
                self._event(number, "user", _CHAINS[name], RULE, told, data, places)
            if last and (vanishes or verdict is Verdict.DROP):
                return
            if last and left_as is not None:
                data = left_as
            self._event(number, TABLE, f"last-{name.lower()}", None, Verdict.ACCEPT, data, places)

    def _event(
        self,
        number: int,
        table: str,
        chain: str,
        handle: int | None,
        verdict: Verdict | None,
        data: bytes,
        places: tuple[int, int],
    ) -> None:
        self.time += 0.001
        event = TraceEvent(
            time=self.time,
            packet_id=number,
            type=TraceType.POLICY if handle is None else TraceType.RULE,
            family=2,
            table=table,
            chain=chain,
            rule_handle=handle,
            verdict=verdict,
            jump_to=None,
            iif=places[0],
            oif=places[1],
            mark=0,
            network_header=data[:20],
            transport_header=data[20:40],
            table_family=INET,
        )
        self.joiner.add_events([event])

    def sent(
        self,
        data: bytes,
        *,
        counter: int = 0,
        packets: int = 1,
        drop: str | None = None,
        staged: bool = False,
        read: bool = True,
    ) -> None:
        """The daemon's record of a frame."""
        self.time += 0.001
        record: dict[str, Any] = {
            "packet": data[:40].hex(),
            "size": len(data),
            "segment": 1380 if packets > 1 else 0,
            "peer": None if drop == "no_peer" else "k" * 44,
            "allowed_ip": None if drop == "no_peer" else "10.77.0.2/32",
            "drop": drop,
            "read_at": self.time if read else None,
        }
        if staged:
            record["staged"] = True
        elif drop not in ("no_peer", "over_rate", "over_quota"):
            record |= {"session_at": self.time, "sealed_at": self.time, "index": 7, "session": 8}
            if drop != "too_long":
                batch = {"counter": counter, "packets": packets, "size": 128, "ecn": 0}
                record |= {"batches": [batch], "endpoint": "192.0.2.2:51820"}
                record["sending_at"] = self.time
        self.joiner.add_record("out", record, self.time)

    def received(
        self,
        data: bytes,
        *,
        counter: int,
        batch: int | None = None,
        index: int = 7,
        drop: str | None = None,
    ) -> None:
        """The daemon's record of a datagram."""
        self.time += 0.001
        record: dict[str, Any] = {
            "received_at": self.time,
            "opened_at": self.time,
            "endpoint": "192.0.2.2:51820",
            "index": index,
            "counter": counter,
            "batch": counter if batch is None else batch,
            "wire_size": 128,
            "peer": "k" * 44,
            "packet": None,
            "drop": drop,
        }
        if drop not in ("replay", "authentication", "no_session"):
            record |= {"packet": data[:40].hex(), "size": len(data), "allowed_ip": "10.77.0.1/32"}
            if drop != "source_not_allowed":
                record["allowed_at"] = self.time
        self.joiner.add_record("in", record, self.time)

    def journeys(self) -> list[Journey]:
        """All that came of it, after a while."""
        return self.joiner.take(self.time + LATE, final=True)
