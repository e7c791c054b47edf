"""The datapath in Python: complete, the oracle of the tests, and what runs without a compiler.

One session of a pair of transport keys: seal frames into datagrams, open datagrams into frames.
`interface.Session` says exactly what each function does.
"""

import hmac
import os
from collections.abc import Sequence
from hashlib import blake2s
from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from tunnel.datapath import ethernet, ip
from tunnel.datapath.coalesce import Coalescer
from tunnel.datapath.drops import DatapathDrop
from tunnel.datapath.errors import PacketRefusedError, SessionExhausted
from tunnel.datapath.interface import (
    MAX_BATCH_SEGMENTS,
    MAX_DATAGRAM,
    MESSAGE_OVERHEAD,
    REJECT_AFTER_MESSAGES,
    SEND_BLOCK,
    Batch,
    Offload,
    Opened,
    Place,
    ReadableBuffer,
    Sealed,
    most_tails,
)
from tunnel.datapath.replay import ReplayWindow
from tunnel.datapath.split import split_ethernet_untrusted, split_untrusted

_KEY_LEN: Final = 32
_HEADER_LEN: Final = 16
_TRANSPORT: Final = 4
"""Message type and three reserved zero bytes, read as one little-endian number."""

_MAC_LEN: Final = 16
_SHORTEST_MESSAGE: Final = 8 + 2 * _MAC_LEN
"""Type, sender and the two MACs: no handshake message is shorter."""

_HEADER: Final = Struct("<IIQ")
"""Type, receiver index, counter (whitepaper, section 5.4.6)."""
_NONCE: Final = Struct("<4xQ")

_WORD: Final = Struct("<QQ")
"""A count in a ledger, and the same masked."""

_ETHERIP_VERSION: Final = 3

Pump: Final = None
"""The engine takes each step itself."""


class _Batches:
    """Groups datagrams that follow each other in a buffer into batches."""

    __slots__ = ("_count", "_short_tails", "_start", "_stride", "done", "ecn", "end")

    def __init__(self, start: int, *, short_tails: bool) -> None:
        self.done: list[Batch] = []
        self.end = self._start = start
        self.ecn = 0
        self._count = self._stride = 0
        self._short_tails = short_tails

    def take(self, length: int, ecn: int, times: int) -> int:
        """Append datagrams of one length. Returns how many of them went on with the batch; with 0
        it is to be closed first.
        """
        if not self._count:
            self._stride, self.ecn = length, ecn
        elif length > self._stride or ecn != self.ecn:
            return 0
        count, size = MAX_BATCH_SEGMENTS - self._count, MAX_DATAGRAM - self.end + self._start
        if length < self._stride:
            times = 1
        elif self._short_tails and (self._count or times > 1):
            count, size = count - 1, size - MESSAGE_OVERHEAD
        taken = min(times, count, size // length)
        if not self._count:
            # Alone it needs no tail.
            taken = max(1, taken)
        if taken:
            self._count += taken
            self.end += taken * length
            if length < self._stride:
                self.close()
        return taken

    @property
    def needs_tail(self) -> bool:
        """Whether the current batch must not end as it is."""
        return self._short_tails and self._count > 1

    def close(self) -> None:
        """End the current batch, if there is one."""
        if self._count:
            self.done.append(Batch(self._start, self.end, self._stride, self.ecn))
            self._start, self._count = self.end, 0


class ReferenceLedger:
    """A file in which sessions note their counters; see `interface.Ledger`."""

    __slots__ = ("_fd", "block")

    def __init__(self, fd: int, block: int = SEND_BLOCK) -> None:
        if block < 1:
            raise ValueError("a block has at least one counter")
        self.block = block
        self._fd = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

    def note(self, offset: int, mask: int, count: int) -> bool:
        """Write a word; whether that was done."""
        try:
            return os.pwrite(self._fd, _WORD.pack(count, count ^ mask), offset) == _WORD.size
        except OSError:
            return False


class ReferenceSession:
    """One session's pair of transport keys; see `interface.Session`, which this implements."""

    __slots__ = (
        "_decrypt",
        "_encrypt",
        "_ethernet",
        "_limit",
        "_local_index",
        "_place",
        "_remote_index",
        "_reserved",
        "_sent",
        "_short_tails",
        "_window",
    )

    def __init__(
        self,
        send_key: bytes,
        receive_key: bytes,
        local_index: int,
        remote_index: int,
        *,
        initial_counter: int = 0,
        received: int = 0,
        ledger: Place | None = None,
        ethernet: bool = False,
        short_tails: bool = False,
    ) -> None:
        if len(send_key) != _KEY_LEN or len(receive_key) != _KEY_LEN:
            raise ValueError("a transport key has 32 bytes")
        if not (0 <= local_index < 2**32 and 0 <= remote_index < 2**32):
            raise ValueError("a receiver index has 32 bits")
        if not all(0 <= one <= REJECT_AFTER_MESSAGES for one in (initial_counter, received)):
            raise ValueError("the counter starts between 0 and the message limit")
        self._encrypt = ChaCha20Poly1305(send_key).encrypt
        self._decrypt = ChaCha20Poly1305(receive_key).decrypt
        self._ethernet = ethernet
        self._short_tails = short_tails
        self._local_index = local_index
        self._remote_index = remote_index
        self._sent = initial_counter
        self._limit = self._reserved = REJECT_AFTER_MESSAGES
        self._place: tuple[ReferenceLedger, int, int] | None = None
        if ledger is not None:
            if not isinstance(ledger[0], ReferenceLedger):
                raise TypeError("the ledger is another datapath's")
            self._place = (ledger[0], ledger[1], ledger[2])
            self._reserved = initial_counter
        self._window = ReplayWindow(received)

    @property
    def send_counter(self) -> int:
        """Messages sealed so far, which is also the counter of the next one."""
        return self._sent

    @property
    def local_index(self) -> int:
        """Receiver index of the datagrams that `open` takes."""
        return self._local_index

    @property
    def remote_index(self) -> int:
        """Receiver index written into sealed datagrams."""
        return self._remote_index

    def hand_over(self) -> None:
        """Seal nothing more, and note in the ledger how far it came."""
        self._limit = self._reserved = self._sent
        if self._place is not None:
            ledger, offset, mask = self._place
            # Where that fails, the block stays reserved.
            ledger.note(offset, mask, self._sent)

    def forget_ledger(self) -> None:
        """Note nothing more: the place is another's."""
        self._place = None
        self._reserved = self._limit

    def _reserve(self, messages: int) -> bool:
        """Whether the next `messages` counters may be used. They are noted in the ledger first."""
        if self._sent + messages <= self._reserved:
            return True
        if self._place is None or self._sent + messages > self._limit:
            return False
        ledger, offset, mask = self._place
        reserved = min(self._sent + max(messages, ledger.block), self._limit)
        if not ledger.note(offset, mask, reserved):
            return False
        self._reserved = reserved
        return True

    def seal(
        self,
        frames: ReadableBuffer,
        spans: Sequence[tuple[int, int]],
        mtu: int,
        out: bytearray,
        start: int = 0,
    ) -> Sealed:
        """Turn frames into sealed datagrams, split and checksummed."""
        limit = len(out)
        if not 0 <= start <= limit:
            raise ValueError("start lies outside the output buffer")
        size = len(frames)
        for first, last in spans:
            if not 0 <= first <= last <= size:
                raise ValueError("a span lies outside the frames' buffer")

        view = memoryview(frames)
        split = split_ethernet_untrusted if self._ethernet else split_untrusted
        batches = _Batches(start, short_tails=self._short_tails)
        pieces: list[bytes] = []
        drops: dict[str, int] = {}
        consumed = packets = 0
        for first, last in spans:
            try:
                segments, ecn = split(view[first:last], mtu)
            except PacketRefusedError as refused:
                drops[refused.drop] = drops.get(refused.drop, 0) + 1
                consumed += 1
                continue
            count = len(segments)
            stride = len(segments[0]) + MESSAGE_OVERHEAD
            length = len(segments[-1]) + MESSAGE_OVERHEAD
            tails = most_tails(count, stride) if self._short_tails else 0
            needed = (count - 1) * stride + length + tails * MESSAGE_OVERHEAD
            if batches.end + needed > limit:
                break
            if not self._reserve(count + tails):
                if consumed:
                    break
                raise SessionExhausted("the session reached its message limit")
            before = self._sent
            if length == stride:
                self._seal_batches(pieces, segments, batches, ecn)
            else:
                self._seal_batches(pieces, segments[:-1], batches, ecn)
                self._seal_batches(pieces, segments[-1:], batches, ecn)
            consumed += 1
            packets += self._sent - before
        packets += self._end_batch(pieces, batches)
        out[start : batches.end] = b"".join(pieces)
        return Sealed(batches.done, consumed, packets, drops)

    def _seal_batches(
        self, pieces: list[bytes], packets: list[bytes], batches: _Batches, ecn: int
    ) -> None:
        """Seal packets of one length into the batches, of which each gets its tail."""
        done = 0
        while done < len(packets):
            length = len(packets[done]) + MESSAGE_OVERHEAD
            taken = batches.take(length, ecn, len(packets) - done)
            if taken:
                self._seal_into(pieces, packets[done : done + taken])
                done += taken
            else:
                self._end_batch(pieces, batches)

    def _end_batch(self, pieces: list[bytes], batches: _Batches) -> int:
        """Close the current batch; returns how many tails it got, 0 or 1."""
        tails = int(batches.needs_tail)
        if tails:
            self._seal_into(pieces, [b""])
            batches.take(MESSAGE_OVERHEAD, batches.ecn, 1)
        batches.close()
        return tails

    def _seal_into(self, pieces: list[bytes], packets: list[bytes]) -> None:
        """Append header and ciphertext of each packet to `pieces`."""
        first = self._sent
        if first + len(packets) > self._reserved:
            raise SessionExhausted("counters that are not reserved must not be used")
        # Counters are spent before they are used: whatever interrupts the loop, none comes twice.
        self._sent = first + len(packets)
        header, nonce, encrypt = _HEADER.pack, _NONCE.pack, self._encrypt
        index = self._remote_index
        for counter, packet in enumerate(packets, first):
            pieces.append(header(_TRANSPORT, index, counter))
            pieces.append(encrypt(nonce(counter), packet, None))

    def seal_keepalive(self) -> bytes:
        """Seal an empty message: 32 bytes. Raises SessionExhausted at the message limit."""
        if not self._reserve(1):
            raise SessionExhausted("the session reached its message limit")
        pieces: list[bytes] = []
        self._seal_into(pieces, [b""])
        return b"".join(pieces)

    def open(
        self,
        datagrams: ReadableBuffer,
        start: int,
        end: int,
        stride: int,
        out: bytearray,
        *,
        coalesce: Offload = Offload.ALL,
        outer_ecn: int = 0,
    ) -> Opened:
        """Authenticate, decrypt, check for replay, trim and coalesce a batch of datagrams."""
        if not 0 <= start <= end <= len(datagrams):
            raise ValueError("the batch lies outside its buffer")
        if stride < 1:
            raise ValueError("the stride of a batch is at least 1")
        size = end - start
        if len(out) < size:
            raise ValueError("the output buffer is shorter than the batch")
        # One copy up front: slices of bytes are cheaper than those of a memoryview.
        batch = bytes(memoryview(datagrams)[start:end])
        local_index, window, decrypt = self._local_index, self._window, self._decrypt
        is_new, mark, nonce = window.is_new, window.mark, _NONCE.pack
        coalescer = Coalescer(coalesce)
        add = coalescer.add
        drops: dict[str, int] = {}
        before = window.greatest
        packets = keepalives = wire_bytes = payload_bytes = 0
        at = 0
        while at < size:
            following = min(at + stride, size)
            if following - at < MESSAGE_OVERHEAD:
                break
            kind, index, counter = _HEADER.unpack_from(batch, at)
            if kind != _TRANSPORT or index != local_index:
                break
            datagram_at, at = at, following
            try:
                if counter >= REJECT_AFTER_MESSAGES:
                    raise PacketRefusedError(DatapathDrop.COUNTER_LIMIT)
                if counter <= window.greatest and not is_new(counter):
                    raise PacketRefusedError(DatapathDrop.REPLAY)
                plain = decrypt(nonce(counter), batch[datagram_at + _HEADER_LEN : following], None)
                mark(counter)
                packets += 1
                wire_bytes += following - datagram_at
                if not plain:
                    keepalives += 1
                    continue
                link = b""
                if self._ethernet:
                    link, plain = ethernet.decapsulated_untrusted(plain)
                elif plain[0] >> 4 == _ETHERIP_VERSION:
                    raise PacketRefusedError(DatapathDrop.ETHERNET)
                else:
                    length = ip.length_untrusted(plain)
                    if length < len(plain):
                        plain = plain[:length]
                if outer_ecn and plain:
                    plain = ip.decapsulated(plain, outer_ecn)
            except InvalidTag:
                drops[DatapathDrop.AUTHENTICATION] = drops.get(DatapathDrop.AUTHENTICATION, 0) + 1
            except PacketRefusedError as refused:
                drops[refused.drop] = drops.get(refused.drop, 0) + 1
            else:
                payload_bytes += len(link) + len(plain)
                add(plain, link)
        if self._place is not None and window.greatest > before:
            ledger, offset, mask = self._place
            ledger.note(offset + _WORD.size, mask, window.greatest + 1)
        frames = coalescer.finish(out)
        return Opened(frames, at, packets, keepalives, wire_bytes, payload_bytes, drops)


Session = ReferenceSession
"""Under this name a datapath offers it."""

Ledger = ReferenceLedger

Identity = None
"""Handshakes in Python are those of `crypto`, which belongs to the protocol."""


def use_cipher(_: str | None, /) -> str:
    """Name the cipher in use; there is no other."""
    return "OpenSSL"


def check_mac1(
    key: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, /
) -> bytes:
    """Tell which datagrams of a batch have a right mac1; see `interface.MacCheck`."""
    if len(key) != _KEY_LEN:
        raise ValueError("the key of mac1 has 32 bytes")
    return _check_macs(key, datagrams, start, end, stride, after=2 * _MAC_LEN)


def check_mac2(
    cookie: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, /
) -> bytes:
    """Tell which datagrams of a batch have a right mac2; see `interface.MacCheck`."""
    if len(cookie) != _MAC_LEN:
        raise ValueError("a cookie has 16 bytes")
    return _check_macs(cookie, datagrams, start, end, stride, after=_MAC_LEN)


def _check_macs(
    key: bytes, datagrams: ReadableBuffer, start: int, end: int, stride: int, *, after: int
) -> bytes:
    """Check the MAC that begins `after` bytes before the end of each datagram."""
    view = memoryview(datagrams)
    if not 0 <= start <= end <= len(view):
        raise ValueError("the batch lies outside its buffer")
    if stride < 1:
        raise ValueError("the stride of a batch is at least 1")
    right = bytearray()
    for at in range(start, end, stride):
        ends = min(at + stride, end)
        if ends - at < _SHORTEST_MESSAGE:
            right.append(0)
            continue
        mac = ends - after
        expected = blake2s(view[at:mac], digest_size=_MAC_LEN, key=key).digest()
        right.append(hmac.compare_digest(expected, view[mac : mac + _MAC_LEN]))
    return bytes(right)
