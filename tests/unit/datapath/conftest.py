"""The same suite for every datapath that can be imported here; packets and frames to feed them."""

from __future__ import annotations

import pytest

from tests.support.datapaths import A_KEY, B_KEY, MakePair, Pair, every_datapath
from tunnel import datapath


@pytest.fixture(params=every_datapath(), ids=lambda one: "-".join(filter(None, one)))
def make_pair(request: pytest.FixtureRequest) -> MakePair:
    def make(counter: int = 0) -> Pair:
        factory = datapath.load(*request.param).session
        return Pair(
            factory(A_KEY, B_KEY, 1, 2, initial_counter=counter),
            factory(B_KEY, A_KEY, 2, 1),
        )

    return make


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    return make_pair()
