"""A few rules of `tests/conformance`, asked of the program itself with both datapaths.

All rules are asked of the engine, in virtual time, in tests/sim/test_judge.py.
"""

from __future__ import annotations

import pytest

from tests.conformance.__main__ import main
from tunnel import datapath

pytestmark = pytest.mark.root

CASES = (
    "responder-waits",
    "preshared-key-required",
    "padding",
    "replay-window-of-linux",
    "nested-allowed-ips",
    "roaming-by-data",
    "ecn-inwards",
)


@pytest.mark.parametrize("path", datapath.available())
def test_our_program_keeps_the_rules(
    script: str, path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNNEL_DATAPATH", path)
    patterns = [word for case in CASES for word in ("--case", case)]
    assert main(["--program", script, *patterns]) == 0, capsys.readouterr().out
