"""An engine that is killed again and again while it carries packets, as a program.

    crash_program.py DATAPATH POINTS SEED

At each point a process goes on with the sessions, sockets and TUN that those before it left, and is
killed at a random moment; now and then it hands over. What it sends is read, and what it is sent is
sent again later. Prints, as JSON: points, datagrams read, packets delivered, and what must be none:
datagrams whose counter was there before, packets delivered twice, sessions that did not go on.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Network
from typing import cast

import trio

from tests.support.engines import packet
from tests.support.loopback import LOOPBACK, SocketTun
from tunnel import datapath
from tunnel.config import PrivateKey
from tunnel.datapath import SEAL_OUT_SIZE, Session
from tunnel.engine import Engine
from tunnel.engine.common import boot_time
from tunnel.engine.session_record import SessionKeys, SessionRecord, SessionUse
from tunnel.io.endpoint import Endpoint
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp

BLOCK = 64
"""Counters reserved at a time: some crashes come at the end of a block."""
PER_SESSION = 50
"""Points before another session begins: none is to be over age."""
MOST = 300
"""Datagrams read before the end of a process at most."""
OWN = PrivateKey.from_random(bytes([1]) * 32)
PEER = PrivateKey.from_random(bytes([2]) * 32).public_key()
TO_PEER, TO_US = b"s" * 32, b"r" * 32
HANDED_OVER = 0.1


@dataclass
class Outside:
    """The peer and the kernel: what stays when the process ends."""

    path: datapath.Datapath
    tun: SocketTun
    udp: Udp
    rng: random.Random
    index: int = 0
    greatest: int = -1
    datagrams: int = 0
    repeated: int = 0
    delivered: set[bytes] = field(default_factory=set)
    twice: int = 0
    lost: int = 0
    sent: list[bytes] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.wire.bind(("127.0.0.1", 0))
        self.wire.setblocking(False)
        self.out = bytearray(SEAL_OUT_SIZE)

    def begin(self) -> int:
        """A record with a new session; its descriptor."""
        self.index += 1
        self.greatest = -1
        self.sent.clear()
        keys = SessionKeys(self.index, 1000 + self.index, TO_PEER, TO_US)
        record = SessionRecord.create()
        own, psk = (record.fingerprint(key) for key in (bytes(OWN.public_key()), bytes(32)))
        place = record.add_session(keys)
        assert place is not None
        record.begin_session(place, SessionUse(boot_time(), bytes(PEER), own, psk), 2)
        self.session: Session = datapath.load("python").session(
            TO_US, TO_PEER, 1000 + self.index, self.index
        )
        fd = os.dup(record.fileno())
        record.close()
        return fd

    def work(self) -> None:
        """Packets for the TUN, datagrams from the peer, old ones among them."""
        with contextlib.suppress(BlockingIOError):
            for _ in range(self.rng.randrange(1, 9)):
                self.tun.kernel.send(packet(1, 2, self.rng.choice((40, 84, 1400))))
        self.number += 1
        frame = packet(2, 1, 60)[:-8] + self.number.to_bytes(8, "big")
        sealed = self.session.seal(frame, [(0, len(frame))], 1420, self.out)
        self.sent.append(bytes(self.out[: sealed.batches[0].end]))
        with contextlib.suppress(BlockingIOError):
            for message in (self.sent[-1], self.rng.choice(self.sent[-200:])):
                self.wire.sendto(message, ("127.0.0.1", self.udp.port))

    def read(self) -> int:
        """What was sent and delivered; how many datagrams."""
        before = self.datagrams
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self.wire.recv(1 << 16)
                counter = int.from_bytes(data[8:16], "little")
                self.datagrams += 1
                # Nothing overtakes another on this way.
                if data[0] == 4 and counter <= self.greatest:
                    self.repeated += 1
                self.greatest = max(self.greatest, counter)
        with contextlib.suppress(BlockingIOError):
            while True:
                number = self.tun.kernel.recv(1 << 17)[-8:]
                self.twice += number in self.delivered
                self.delivered.add(number)
        return self.datagrams - before

    def crash(self, fd: int) -> None:
        """One point: a process from its beginning to its end."""
        hands_over = self.rng.random() < HANDED_OVER
        enough = self.rng.randrange(1, MOST)
        child = os.fork()
        if not child:
            live(self, fd, hands_over=hands_over, after=self.rng.random() / 100)
        count, status = 0, 0
        while count < enough and not status:
            self.work()
            count += self.read()
            pid, code = os.waitpid(child, os.WNOHANG)
            status = code if pid else 0
            if pid and not code:
                break
        else:
            if not status:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        self.lost += bool(status)
        self.read()


def live(outside: Outside, fd: int, *, hands_over: bool, after: float) -> None:
    """The process. Ends itself only to hand over, or if its session did not go on."""
    record = SessionRecord.adopt(fd)
    path = outside.path
    engine = Engine(
        tun=cast(Tun, outside.tun),
        udp=outside.udp,
        mtu=1420,
        path=path._replace(ledger=partial(path.ledger, block=BLOCK)),
        record=record,
    )
    engine.interface.set_private_key(OWN, engine.clock())
    peer = engine.interface.add_peer(PEER)
    peer.set_endpoint(Endpoint(LOOPBACK, outside.wire.getsockname()[1]))
    engine.interface.allowed_ips.insert(IPv4Network("10.0.0.2/32"), peer)
    if engine.revive().sessions != 1:
        os._exit(1)

    async def main() -> None:
        with trio.move_on_after(after if hands_over else 60):
            await engine.run()
        engine.hand_over()

    trio.run(main)
    os._exit(0)


def main(path: str, points: int, seed: int) -> None:
    tun = SocketTun()
    with Udp.open(ipv6=False) as udp:
        outside = Outside(datapath.load(path), tun, udp, random.Random(seed))
        fd = -1
        for point in range(points):
            if point % PER_SESSION == 0:
                if fd >= 0:
                    os.close(fd)
                fd = outside.begin()
            outside.crash(fd)
        os.close(fd)
        outside.wire.close()
        tun.close()
    found = {
        "points": points,
        "datagrams": outside.datagrams,
        "packets": len(outside.delivered),
        "repeated": outside.repeated,
        "delivered twice": outside.twice,
        "not revived": outside.lost,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
