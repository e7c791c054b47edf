"""Named counters: every packet that does not arrive is counted under the reason it was dropped for.

Each room names its own reasons (`protocol.Drop`, `datapath.Drop`, `io.Drop`); here they meet as
plain strings, because what is printed, scraped or asserted is a name and a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

R = TypeVar("R", bound=str)


class Counters:
    """Packets dropped, by reason.

    `drops` only ever grows; a reason that never happened has no entry.
    """

    __slots__ = ("drops",)

    def __init__(self) -> None:
        self.drops: dict[str, int] = {}

    def drop(self, reason: str, packets: int = 1) -> None:
        """Count `packets` dropped for `reason`."""
        name = str(reason)
        self.drops[name] = self.drops.get(name, 0) + packets

    def drop_all(self, drops: Mapping[R, int]) -> None:
        """Count a whole table of drops, as one batch of the data path returns it."""
        for reason, packets in drops.items():
            self.drop(reason, packets)
