"""The choice of the MTU, as wg-quick(8) makes it."""

import pytest

from tunnel.host.mtu import choose_mtu


@pytest.mark.parametrize(
    ("endpoints", "default_route", "expected"),
    [
        ([], None, 1420),
        ([], 1492, 1412),
        ([None], 1492, 1412),
        ([1500], 1400, 1420),
        ([1500, 1300, None], 1400, 1220),
        ([9000], 1500, 8920),
        ([0], None, 1420),
    ],
)
def test_choice(endpoints: list[int | None], default_route: int | None, expected: int) -> None:
    assert choose_mtu(endpoints, lambda: default_route) == expected
