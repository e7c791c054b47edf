"""Inputs made of those in a corpus: cut, joined, repeated, with bytes and words exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from tests.support.fuzz.target import MAX_INPUT

EDGES = (0, 1, 4, 0x7F, 0x80, 0xFE, 0xFF)
"""Bytes at which something often ends."""


def mutated(random: Random, corpus: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """An input, most often near one of the corpus."""
    data = bytearray(random.choice(corpus)) if corpus and random.random() < 0.95 else bytearray()
    for _ in range(random.choice((0, 1, 1, 1, 2, 4, 8))):
        _change(random, data, corpus, words)
    return bytes(data[:MAX_INPUT])


def _change(
    random: Random, data: bytearray, corpus: Sequence[bytes], words: Sequence[bytes]
) -> None:
    """One change, in place."""
    at = random.randint(0, len(data))
    end = min(len(data), at + random.choice((1, 1, 2, 4, 16, 1000)))
    match random.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1 if data:
            data[at % len(data)] = random.choice(EDGES)
        case 2:
            del data[at:end]
        case 3:
            data[at:at] = random.randbytes(random.choice((1, 2, 8, 40)))
        case 4 if words:
            data[at : random.choice((at, end))] = random.choice(words)
        case 5 if corpus:
            other = random.choice(corpus)
            start = random.randint(0, len(other))
            data[at:] = other[start:]
        case 6:
            data[at:at] = data[at:end] * random.choice((1, 2, 50))
        case _:
            del data[at:]
