"""The internet checksum (RFC 1071) at the speed of CPython's long integers.

One's complement addition of 16-bit words is addition modulo 65,535, because 2^16 = 1 (mod 65,535).
So the bytes are read as one large number and its residue taken, without a loop over words. The
number is read little-endian, since CPython does that faster; the residue's two bytes are then
swapped, which is a multiplication by 256 (RFC 1071, section 2 B: byte order independence).

A residue of 0 stands for 0xffff: only a sum of nothing but zero bytes folds to 0.
"""

from typing import Final

_FOLD_1: Final = 5_760
_FOLD_2: Final = 2_880
_FOLD_3: Final = 1_440
_MASK_1: Final = (1 << _FOLD_1) - 1
_MASK_2: Final = (1 << _FOLD_2) - 1
_MASK_3: Final = (1 << _FOLD_3) - 1


def residue(data: bytes) -> int:
    """Return the sum of the 16-bit words of `data` modulo 65,535, with the bytes swapped.

    Multiply by 256 for the sum in network order. An odd last byte counts as if a zero followed.
    """
    number = int.from_bytes(data, "little")
    # Adding the upper part to the lower one keeps the residue (the widths are multiples of 16) and
    # is much faster than dividing. The widths halve a full-sized packet's 1,420 bytes three times.
    number = (number >> _FOLD_1) + (number & _MASK_1)
    number = (number >> _FOLD_2) + (number & _MASK_2)
    number = (number >> _FOLD_3) + (number & _MASK_3)
    return number % 65_535


def short_residue(data: bytes) -> int:
    """Return what `residue` does; faster for less than about 200 bytes."""
    return int.from_bytes(data, "little") % 65_535


def folded(data: bytes) -> int:
    """Return the one's complement sum of the words of `data` in network order, 0xffff for 0."""
    return (residue(data) << 8) % 65_535 or 65_535


def checksum(data: bytes) -> int:
    """Return the internet checksum of `data`, 0xffff instead of 0.

    Both are the same number in one's complement; UDP keeps 0 for "no checksum" (RFC 768).
    """
    return -(residue(data) << 8) % 65_535 or 65_535


def replaced(checksum: int, old: int, new: int) -> int:
    """Return `checksum` after one 16-bit word of what it covers has changed (RFC 1624, eqn. 3).

    A checksum that was wrong stays wrong by the same amount.
    """
    total = (checksum ^ 0xFFFF) + (old ^ 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
