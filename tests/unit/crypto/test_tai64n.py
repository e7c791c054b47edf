"""TAI64N: known bytes, order, whitening, hostile bytes."""

import pytest

from crypto import tai64n

SECOND = 1_000_000_000


def test_known_times() -> None:
    assert tai64n.encode(0).hex() == "400000000000000a00000000"
    # wireguard-go's base for 2020-01-01T00:00:00Z: 2^62 + 10 + 1577836800
    assert tai64n.encode(1_577_836_800 * SECOND).hex() == "400000005e0be10a00000000"
    assert tai64n.encode(-1).hex() == "40000000000000093b000000"


def test_fraction_is_whitened_to_two_to_the_24_nanoseconds() -> None:
    step = 1 << 24
    assert tai64n.encode(step - 1) == tai64n.encode(0)
    assert tai64n.encode(step) > tai64n.encode(step - 1)
    for unix_ns in range(0, SECOND, 9_999_991):
        assert int.from_bytes(tai64n.encode(unix_ns)[8:], "big") % step == 0
        assert 0 <= unix_ns - tai64n.decode(tai64n.encode(unix_ns)) < step


def test_bytes_compare_as_times_do() -> None:
    times = sorted([0, 1 << 24, SECOND - 1, SECOND, 7 * SECOND, 1 << 60, -SECOND, -(1 << 62)])
    encoded = [tai64n.encode(t) for t in times]
    assert encoded == sorted(encoded)
    assert len(set(encoded)) == len(times)


@pytest.mark.parametrize("raw", [bytes(12), b"\xff" * 12, bytes(8) + b"\xff" * 4])
def test_any_twelve_bytes_decode(raw: bytes) -> None:
    assert isinstance(tai64n.decode(raw), int)


@pytest.mark.parametrize("length", [0, 8, 11, 13])
def test_other_lengths_do_not(length: int) -> None:
    with pytest.raises(ValueError, match=f"found {length}"):
        tai64n.decode(bytes(length))


@pytest.mark.parametrize("unix_ns", [-(1 << 200), 1 << 200, (1 << 62) * SECOND])
def test_times_out_of_range_are_refused(unix_ns: int) -> None:
    with pytest.raises(ValueError, match="cannot hold"):
        tai64n.encode(unix_ns)
