"""An end of `tunnel pair` that means harm: the one that asks, and the one that answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel.pair.ends import EndLostError, PairEnd
from tunnel.pair.messages import PairError, Proof, message_untrusted
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


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("listen", {"port": 10**30}),
        ("listen", {"port": -1}),
        ("heard", {"token": 5, "seconds": -1e300}),
        ("heard", {"token": "x", "seconds": "x"}),
        ("knock", {"endpoint": 5, "port": 1, "token": "x"}),
        ("knock", {"endpoint": "127.0.0.1", "port": 10**30, "token": "x"}),
        ("look", {"name": "x" * 5000, "space": 5, "outside": "1.2.3.4"}),
        ("look", {"name": 5, "space": [], "outside": "1.2.3.4"}),
        ("look", {"name": "office", "space": [10**300], "outside": []}),
        ("write", {"conf": 5}),
        ("prove", {"name": {}, "address": 10**100, "seconds": 10**300}),
        ("undo", {"self": 1}),
    ],
)
def test_a_request_with_a_value_that_cannot_be_is_answered(
    method: str, more: dict[str, object]
) -> None:
    asked = [json.dumps({"id": number, "do": method, **more}) for number in (1, 2)]
    done = subprocess.run(
        AGENT, input="\n".join(asked) + "\n", capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()[1:]] == [1, 2]


@pytest.mark.parametrize(
    "line", ["no JSON", "[1]", "1" * 5000, "[" * 100_000, '{"seconds": 1e999}']
)
def test_what_is_no_request_ends_an_agent_in_one_line(line: str) -> None:
    done = subprocess.run(AGENT, input=f"{line}\n", capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.startswith("tunnel: unexpected line: ")
    assert done.stderr.count("\n") == 1


def test_an_integer_that_no_float_can_hold_is_refused() -> None:
    with pytest.raises(PairError):
        message_untrusted(Proof, {"handshake": True, "ping": 10**400})
    assert message_untrusted(Proof, {"handshake": True, "ping": 1}).ping == 1


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
