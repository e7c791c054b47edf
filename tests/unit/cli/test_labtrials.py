"""What `tunnel lab --topology` reports of trials."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, cast

import pytest

from tunnel.cli import labtrials
from tunnel.lab import Host, Lab
from tunnel.lab.building import Built
from tunnel.lab.peers import End, OurEnd
from tunnel.lab.plan import Blueprint, Trial, example_key
from tunnel.lab.plans import PAIR


class FakeHost:
    """A host on which every command ends with `status` and prints `output`."""

    netns = "tl-1-A"

    def __init__(self, status: int, output: str) -> None:
        self.status, self.output = status, output
        self.typed: list[Sequence[str]] = []

    def run(self, words: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.typed.append(words)
        return subprocess.CompletedProcess(words, self.status, self.output, "")


class FakeLab:
    id = "1"


def built(host: FakeHost, *trials: Trial) -> Built:
    plan = Blueprint(
        "one", "One", "", PAIR.places, PAIR.networks, PAIR.with_keys(example_key).sides, trials
    )
    ends: dict[str, End] = {"A": OurEnd.__new__(OurEnd)}
    return Built(cast(Lab, FakeLab()), plan, {"A": cast(Host, host)}, ends)


@pytest.mark.parametrize(
    ("status", "output", "fails", "passed"),
    [
        (0, "1 received", False, True),
        (0, "0 received", False, False),
        (1, "1 received", False, False),
        (1, "1 received", True, True),
        (0, "1 received", True, False),
    ],
)
def test_status_and_output_both_count(
    status: int, output: str, fails: bool, passed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial("A", "true", "nothing", "1 received", fails=fails)
    assert labtrials.run(built(FakeHost(status, output), trial), as_json=True) is passed
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["trials"][0] == {
        "host": "A",
        "command": "true",
        "shows": "nothing",
        "passed": passed,
        "output": output,
    }


def test_what_went_otherwise_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    trials = [Trial("A", "true", "nothing", word) for word in ("x", "y")]
    assert not labtrials.run(built(FakeHost(0, "x\n"), *trials), as_json=False)
    shown = capsys.readouterr().out
    assert " ✓ nothing\n    A# true\n    x\n" in shown
    assert shown.endswith("1 of 2 did not show what is described (✗).\n")


def test_a_missing_program_is_named_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    trial = Trial("A", "no-such-program -x", "nothing", "x")
    assert labtrials.run(built(FakeHost(0, ""), trial), as_json=False)
    assert "not tried: the program no-such-program is missing" in capsys.readouterr().out


def test_our_own_command_is_this_program() -> None:
    host = FakeHost(0, "")
    trial = Trial("A", "tunnel trace wg0 -- tunnel lab --enter tunnel -- true", "nothing", "x")
    built(host, trial).attempt(trial)
    (typed,) = host.typed
    assert list(typed).count("-m") == 2
    assert "--enter tunnel -- true" in " ".join(typed)
