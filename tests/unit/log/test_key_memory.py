"""Keys that were told are known again, however many there are."""

from __future__ import annotations

from tunnel.log import key_memory
from tunnel.log.key_memory import KeyMemory


def keys(count: int, *, start: int = 0) -> list[bytes]:
    return [number.to_bytes(32, "big") for number in range(start, start + count)]


def test_more_keys_than_are_kept_are_all_known() -> None:
    memory = KeyMemory()
    told = keys(key_memory.LATEST + 5000)
    for key in told:
        memory.add(key)
    assert len(memory) == key_memory.LATEST
    assert all(key in memory for key in told)


def test_others_are_taken_for_one_of_them_hardly_ever() -> None:
    memory = KeyMemory(latest=10)
    for key in keys(50_000):
        memory.add(key)
    # Of so few in so many bits it is one in a hundred million.
    assert sum(key in memory for key in keys(20_000, start=1 << 200)) < 5


def test_memory_is_bounded_and_forgets_the_oldest_first() -> None:
    memory = KeyMemory(latest=10, older=100)
    told = keys(5000)
    for key in told:
        memory.add(key)
    assert len(memory) == 10
    assert len(memory._filters) == 2
    assert all(key in memory for key in told[-110:])
    assert sum(key in memory for key in told[:1000]) < 5


def test_a_key_told_again_and_again_pushes_nothing_out() -> None:
    memory = KeyMemory(latest=1, older=100)
    told = keys(90)
    for key in told:
        memory.add(key)
    first, second = keys(2, start=5000)
    for _ in range(500):
        memory.add(first)
        memory.add(second)
    assert len(memory._filters) == 1
    assert all(key in memory for key in [*told, first, second])
