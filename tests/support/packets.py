"""Random IP packets and TUN frames that are valid, nearly valid or junk, all from one seed.

A byte string at random is refused by the first check. What is drawn here passes most checks most of
the time, so that every branch behind them is taken too.
"""

from dataclasses import dataclass
from random import Random

TCP, UDP = 6, 17
GSO_TYPES = (0, 0, 1, 4, 5, 0x81, 0x84, 3, 0x80, 255)


def ones_sum(data: bytes | bytearray) -> int:
    """Return the folded one's complement sum of 16-bit words, the slow and obvious way."""
    total = 0
    for at in range(0, len(data), 2):
        total += int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big")
        total = (total & 0xFFFF) + (total >> 16)
    return total


def mangled(random: Random, data: bytes, probability: float) -> bytes:
    """Return `data`, at the given probability with one to three of its first 80 bytes changed."""
    if not data or random.random() >= probability:
        return data
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        changed[random.randrange(min(len(changed), 80))] = random.choice(
            (0, 1, 0xFF, 0x10, random.randrange(256))
        )
    return bytes(changed)


@dataclass
class Flow:
    """A conversation with the state that makes one packet the continuation of another."""

    random: Random
    version: int
    protocol: int
    tos: int
    ttl: int
    df: int
    identification: int
    sequence: int
    options: bytes
    addresses: bytes
    ports: bytes
    payload: int

    @classmethod
    def draw(cls, random: Random) -> "Flow":
        """Choose a flow."""
        version, protocol = random.choice((4, 6)), random.choice((TCP, UDP))
        size = 8 if version == 4 else 32
        return cls(
            random=random,
            version=version,
            protocol=protocol,
            tos=random.choice((0, 0, 1, 2, 3, 0xB8)),
            ttl=64,
            df=random.choice((0, 0x40)),
            identification=random.choice((0, 7, 0xFFFE)),
            sequence=random.choice((0, 1000, 2**32 - 20)),
            options=random.choice((b"", b"\1\1\x08\x0a" + bytes(8))) if protocol == TCP else b"",
            addresses=bytes(random.choices((0, 10, 255), k=size)),
            ports=bytes((0, random.randrange(3), 0, random.randrange(3))),
            payload=random.choice((1, 2, 7, 16, 100, 101)),
        )

    def segment(self, payload: bytes, flags: int = 0x10) -> bytes:
        """Return the transport packet with a checksum of zero."""
        if self.protocol == UDP:
            return self.ports + (8 + len(payload)).to_bytes(2, "big") + b"\0\0" + payload
        header = 5 + len(self.options) // 4
        return (
            self.ports
            + (self.sequence & 0xFFFFFFFF).to_bytes(4, "big")
            + b"\0\0\1\0"
            + bytes((header << 4, flags))
            + b"\2\0\0\0\0\0"
            + self.options
            + payload
        )

    def pseudo(self, length: int) -> int:
        """Return the folded sum of the pseudo-header."""
        return ones_sum(
            self.addresses + self.protocol.to_bytes(2, "big") + length.to_bytes(4, "big")
        )

    def packet(self, transport: bytes, extensions: bytes = b"", options: bytes = b"") -> bytes:
        """Put an IP header in front; `extensions` begins with its own protocol number."""
        if self.version == 4:
            length = 20 + len(options) + len(transport)
            header = bytearray(
                bytes((0x45 + len(options) // 4, self.tos))
                + (length & 0xFFFF).to_bytes(2, "big")
                + (self.identification & 0xFFFF).to_bytes(2, "big")
                + bytes((self.df, 0, self.ttl, self.protocol, 0, 0))
                + self.addresses
                + options
            )
            header[10:12] = (ones_sum(header) ^ 0xFFFF).to_bytes(2, "big")
            return bytes(header) + transport
        following = extensions[0] if extensions else self.protocol
        return (
            (6 << 28 | self.tos << 20).to_bytes(4, "big")
            + (len(extensions[1:]) + len(transport) & 0xFFFF).to_bytes(2, "big")
            + bytes((following, self.ttl))
            + self.addresses
            + extensions[1:]
            + transport
        )

    def next_packet(self) -> bytes:
        """Return the next packet of the flow, usually one that can be merged with the last."""
        random = self.random
        size = self.payload if random.random() < 0.85 else random.choice((0, 1, 3, 200))
        flags = 0x10 if random.random() < 0.9 else random.choice((0x18, 0x11, 0x90, 0x50, 0x02))
        for field in ("tos", "ttl", "df", "identification", "sequence"):
            if random.random() < 0.02:
                value = getattr(self, field) ^ random.choice((1, 2, 0x40))
                setattr(self, field, value & (0xE0 if field == "df" else 0xFF))
        transport = bytearray(self.segment(random.randbytes(size), flags))
        at = 16 if self.protocol == TCP else 6
        value = (ones_sum(transport) + self.pseudo(len(transport))) % 0xFFFF ^ 0xFFFF
        if random.random() < 0.03:
            value ^= random.choice((1, 0xFFFF, value))
        transport[at : at + 2] = value.to_bytes(2, "big")
        packet = self.packet(bytes(transport))
        self.sequence = self.sequence + size & 0xFFFFFFFF
        self.identification = self.identification + 1 & 0xFFFF
        return packet


def draw_extensions(random: Random, protocol: int) -> bytes:
    """Return the first protocol number and a chain of IPv6 extension headers."""
    chain = b""
    for _ in range(random.randrange(3)):
        kind = random.choice((0, 43, 60, 51, 44))
        units = random.randrange(3)
        length = 8 + units * (4 if kind == 51 else 8)
        chain = bytes((protocol, units)) + bytes(length - 2) + chain
        protocol = kind
    return bytes((protocol,)) + chain


def draw_frame(random: Random) -> bytes:
    """Return a frame as a TUN device gives it, or nearly."""
    if random.random() < 0.03:
        return random.randbytes(random.randrange(60))
    flow = Flow.draw(random)
    size = random.choice((0, 1, 30, 500, 1400, 3000, 9000, 65_500))
    payload = random.randbytes(random.randint(0, size))
    transport = bytearray(flow.segment(payload, random.choice((0x10, 0x18, 0x99, 0xFF))))
    field = 16 if flow.protocol == TCP else 6
    extensions = draw_extensions(random, flow.protocol) if random.random() < 0.3 else b""
    options = b"\1" * random.choice((0, 0, 0, 4, 40))
    transport[field : field + 2] = flow.pseudo(len(transport)).to_bytes(2, "big")
    packet = flow.packet(bytes(transport), extensions, options)
    start = len(packet) - len(transport)
    gso_type = {(4, TCP): 1, (6, TCP): 4}.get((flow.version, flow.protocol), 5)
    if random.random() < 0.3:
        gso_type = random.choice(GSO_TYPES)
    gso_size = random.choice((0, 1, 100, 536, 1400, 1440, 65_535)) if random.random() < 0.9 else 3
    if random.random() < 0.05:
        start += random.choice((-1, 1, 70_000)) & 0xFFFF
    header = b"".join(
        (
            bytes((random.choice((1, 1, 1, 1, 0)), gso_type)),
            bytes(2),
            gso_size.to_bytes(2, "little"),
            (start & 0xFFFF).to_bytes(2, "little"),
            field.to_bytes(2, "little"),
        )
    )
    frame = mangled(random, header + packet, 0.2)
    if random.random() < 0.1:
        return frame[: random.randrange(len(frame))]
    return frame + random.randbytes(random.choice((0, 0, 0, 5)))


def draw_ethernet(random: Random, packet: bytes) -> bytes:
    """Return an Ethernet header for the packet, mostly with its type, often with VLAN tags."""
    kind = b"\x86\xdd" if packet[:1] and packet[0] >> 4 == 6 else b"\x08\x00"
    if random.random() < 0.05:
        kind = random.choice((b"\x08\x06", b"\x86\xdd", b"\x08\x00", b"\x81\x00", b"\x00\x26"))
    tags = random.choice((0, 0, 0, 1, 2, 3))
    tag = b"".join(
        random.choice((b"\x81\x00", b"\x88\xa8")) + bytes((0, random.randrange(2)))
        for _ in range(tags)
    )
    return bytes(random.choices((2, 4), k=12)) + tag + kind


def draw_tap_frame(random: Random) -> bytes:
    """Return a frame as a TAP gives it, from one as a TUN gives it."""
    frame = draw_frame(random)
    link = draw_ethernet(random, frame[10:])
    header = bytearray(frame[:10].ljust(10, b"\0"))
    shift = len(link) if random.random() < 0.97 else random.randrange(30)
    start = int.from_bytes(header[6:8], "little") + shift
    header[6:8] = (start & 0xFFFF).to_bytes(2, "little")
    whole = bytes(header) + link + frame[10:]
    return whole if random.random() < 0.98 else whole[: random.randrange(30)]
