"""An end of `tunnel pair` that means harm: the one that asks, and the one that answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.pair.ends import EndLostError, PairEnd
from tunnel.pair.messages import PairError
from tunnel.pair.pairing import _short, _texts
from tunnel.pair.ssh import Ssh

AGENT = [sys.executable, "-m", "tunnel", "pair", "--remote"]
BABBLER = """
import os
os.read(0, 1)
while True:
    os.write(1, b'{"id": 0}\\n' * 6000)
"""


@pytest.mark.parametrize(
    ("method", "more"),
    [("up", {}), ("examine", {}), ("prove", {"address": "192.0.2.1", "seconds": 1})],
)
def test_only_what_was_written_here_is_brought_up_and_examined(
    tmp_path: Path, method: str, more: dict[str, object]
) -> None:
    (tmp_path / "theirs.conf").write_text("no conf\n")
    asked = {"id": 1, "do": method, "name": f"../../../../..{tmp_path}/theirs", **more}
    done = subprocess.run(
        AGENT, input=f"{json.dumps(asked)}\n", capture_output=True, text=True, timeout=60
    )
    _, answer = map(json.loads, done.stdout.splitlines())
    assert "was written" in answer["error"]
    assert done.returncode == 0, done.stderr


def test_an_end_that_never_stops_talking_is_given_up() -> None:
    end = PairEnd("babbler", [sys.executable, "-c", BABBLER])
    try:
        with pytest.raises(EndLostError, match="no answer"):
            end.ask("undo", patience=0.5)
    finally:
        end.close()


def test_an_answer_of_another_kind_is_an_error() -> None:
    assert _texts(["a\x1b[2J"]) != ["a\x1b[2J"]
    for wrong in (5, "text", {"a": 1}, None):
        with pytest.raises(PairError):
            _texts(wrong)


@pytest.mark.parametrize("folder", ["/usr/bin", "/opt/x"])
def test_the_path_of_a_program_cannot_rule_the_terminal(folder: str) -> None:
    assert "\x1b" not in _short(f"{folder}/a\x1b[2J")


@pytest.mark.foreign("ssh")
def test_nor_can_the_reason_why_a_command_failed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ssh, "command", lambda _, words: ["sh", "-c", *words])
    with Ssh("nowhere.invalid") as ssh, pytest.raises(PairError) as caught:
        ssh.output(["printf '\\033[2J' >&2; exit 1"])
    assert "\x1b" not in str(caught.value)
    assert "[2J" in str(caught.value)
