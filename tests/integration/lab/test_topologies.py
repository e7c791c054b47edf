"""The topologies of `tunnel lab`: what there is to try goes as described, with published confs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.support.docker import PROGRAMS
from tests.support.examples import PUBLISHED, read_confs
from tests.support.ordinary_user import OPEN_TUN, ordinary_user
from tunnel.lab import Lab, state
from tunnel.lab.building import build
from tunnel.lab.namespace import start_time
from tunnel.lab.plan import example_key
from tunnel.lab.plans import PLANS

pytestmark = [pytest.mark.root]


def runs(name: str) -> None:
    plan = PLANS[name].with_keys(example_key)
    confs = read_confs(plan) if PLANS[name] in PUBLISHED else None
    with Lab() as lab:
        built = build(lab, plan, confs=confs)
        built.up()
        for trial in plan.trials:
            outcome = built.attempt(trial, columns=80)
            assert outcome.passed, f"{trial.host}# {trial.command}\n{outcome.output}"


@pytest.mark.foreign("curl")
@pytest.mark.parametrize("name", [name for name in PLANS if name != "docker"])
def test_all_that_there_is_to_try_goes_as_described(name: str) -> None:
    runs(name)


@pytest.mark.real_root
@pytest.mark.slow
@pytest.mark.foreign("curl", *PROGRAMS)
def test_containers_of_two_docker_engines_reach_each_other() -> None:
    runs("docker")


WORDS = [sys.executable, "-m", "tunnel", "lab", "--topology", "hub"]


@pytest.mark.real_root
def test_an_ordinary_user_sees_the_picture_and_what_was_tried() -> None:
    with ordinary_user() as user:
        result = subprocess.run(
            user.command(WORDS, prepare=OPEN_TUN.format(mode=666)),
            env={**os.environ, **user.environment, "COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert list(user.directory.glob("tunnel-lab-*/*.json")) == []
    assert result.returncode == 0, result.stdout + result.stderr
    assert max(map(len, result.stdout.splitlines())) <= 80
    position = 0
    for part in ("│ wg0 10.77.0.1 │", "✓ from spoke to spoke", "a# ping -c 1 10.77.0.3", "1 rec"):
        position = result.stdout.index(part, position)
    assert "✗" not in result.stdout


def test_the_end_by_the_keyboard_leaves_nothing() -> None:
    started = subprocess.Popen(WORDS, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    with started.stderr as said:
        assert any("starting tunnel on b" in line for line in said)
        (standing,) = [found for found in state.read_all() if found.owner == started.pid]
        started.send_signal(signal.SIGINT)
        said.read()
    assert started.wait(30) != 0
    assert standing.id not in [found.id for found in state.read_all()]
    assert [start_time(pid) for pid, _ in standing.holders.values()] == [None] * 4
