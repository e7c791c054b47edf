"""What a daemon leaves to the one that goes on in its place."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tunnel.daemon.succession import Life


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("life")
    yield descriptor
    os.close(descriptor)


def test_a_life_goes_on(memory: int) -> None:
    Life(memory, "basis", 1234.5).write(ended=7.25)
    life, ended = Life.go_on(memory)
    assert (life.basis, life.since, life.restarts, ended) == ("basis", 1234.5, 1, 7.25)
    # Of one that was killed after it, nothing of the end before is left.
    life, ended = Life.go_on(memory)
    assert (life.restarts, ended) == (2, 0.0)


def test_one_that_is_killed_as_it_writes_leaves_a_whole_life(
    memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(memory, "basis", 1234.5)

    def die(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", die)
        with pytest.raises(KeyboardInterrupt):
            life.write(ended=7.25)
    assert Life.go_on(memory)[0].basis == "basis"
