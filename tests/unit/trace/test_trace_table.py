"""What a trace says when nft refuses its table."""

from __future__ import annotations

import pytest

from tunnel.trace.trace_table import _reason


@pytest.mark.parametrize(
    ("printed", "said"),
    [
        ("netlink: Error: cache initialization failed: Operation not permitted", "(sudo)"),
        ("Error: syntax error, unexpected owner\nflags owner;", "nftables 1.0 and Linux 5.12"),
        ("Error: Could not process rule: No space left", "nft refused: Error: Could not process"),
        ("", "it said nothing"),
    ],
)
def test_a_refusal_names_the_remedy_that_fits(printed: str, said: str) -> None:
    assert said in _reason(printed)
