"""What a fuzz target is, and what must hold of each: `check` runs one input and asserts it.

An input is read or refused. What refuses it raises one exception, which is documented, or counts a
drop. Nothing else comes out, nothing has changed where it was refused, and the work is bounded: it
is counted in calls of functions, so that it is the same on every machine.
"""

from __future__ import annotations

import contextlib
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.operations import Operations
from tunnel.errors import TunnelError

CORPUS = Path(__file__).parent.parent.parent / "corpus"
MAX_INPUT = 1 << 16
"""Bytes of the longest input that is tried."""


def no_state() -> object:
    """The state of a target that has none."""
    return None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One way in. `run` is given the bytes; it raises `refusal`, or else nothing.

    `reads` are the modules whose reading of those bytes is tried. `state` is what must be the same
    after an input that was refused. `base` and `per_byte` bound the calls that an input may take,
    `room` and `room_per_byte` the bytes of memory that are in use at a time. `words` are pieces
    that make an input of random bytes look right.
    """

    name: str
    reads: tuple[str, ...]
    run: Callable[[bytes], None]
    refusal: type[Exception] | None = None
    state: Callable[[], object] = no_state
    base: int = 2_000
    per_byte: float = 20
    room: int = 1 << 20
    room_per_byte: int = 200
    words: tuple[bytes, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its corpus is."""
        return CORPUS / self.name

    def corpus(self) -> dict[str, bytes]:
        """The inputs that are kept, by their names."""
        return {path.name: path.read_bytes() for path in sorted(self.folder.iterdir())}


def check(target: Target, data: bytes, *, counted: bool = True) -> bool:
    """Run one input and assert what must hold; False if it was refused by the exception.

    Its work is bounded if it is `counted`.
    """
    before = target.state()
    was_read = True
    work = Operations()
    with work if counted else contextlib.nullcontext():
        try:
            target.run(data)
        except Exception as error:
            if target.refusal is None or not isinstance(error, target.refusal):
                raise
            was_read = False
    if not was_read:
        assert target.state() == before, "something has changed, though the input was refused"
    bound = target.base + target.per_byte * len(data)
    assert work.count <= bound, f"{work.count} calls for {len(data)} bytes, more than {bound:.0f}"
    return was_read


def check_memory(target: Target, data: bytes) -> None:
    """Run one input and assert that the memory in use meanwhile stayed within its bound."""
    tracemalloc.start()
    try:
        with contextlib.suppress(target.refusal or TunnelError):
            target.run(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    bound = target.room + target.room_per_byte * len(data)
    assert peak <= bound, f"{peak} bytes in use for {len(data)} bytes, more than {bound}"
