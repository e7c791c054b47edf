"""Fixtures of more than one room's tests."""

from __future__ import annotations

import pytest

from tests.support.engines import Sides, joined, make_side


@pytest.fixture
def sides() -> Sides:
    """Two engines that know each other; what one sends, the other receives."""
    return joined(make_side(1), make_side(2))
