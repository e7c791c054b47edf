"""The options of `tunnel lab` that make its wire a bad one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import typer
from typer.testing import CliRunner

from tunnel.cli.labtrials import show_plan
from tunnel.cli.labwire import WireOptions
from tunnel.cli.main import make_app
from tunnel.lab.drawing import WIDTH, draw
from tunnel.lab.plan import BadWire
from tunnel.lab.plans import PLANS
from tunnel.lab.weather import Faults

ALL = Faults(
    delay=0.04,
    jitter=0.005,
    loss=0.05,
    duplicate=0.01,
    corrupt=0.005,
    reorder=0.01,
    rebind=30.0,
)


def test_all_of_them() -> None:
    options = WireOptions("5%", "40ms", "5000us", "1%", "1 %", "0.5%", "0.5min", seed="3")
    assert options.faults() == ALL
    assert WireOptions().faults() is None
    assert WireOptions(loss="0%").faults() == Faults()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (WireOptions(loss="5"), "--loss 5: write a percentage from 0% to 100%, as in --loss 5%"),
        (WireOptions(loss="101%"), "--loss 101%: write a percentage from 0% to 100%"),
        (WireOptions(reorder="-1%"), "--reorder -1%: write a percentage"),
        (WireOptions(corrupt="nan%"), "--corrupt nan%: write a percentage"),
        (
            WireOptions(delay="40"),
            "--delay 40: write a time in us, ms, s or min, as in --delay",
        ),
        (WireOptions(jitter="5%"), "--jitter 5%: write a time in us, ms, s or min, as in --jitter"),
        (
            WireOptions(rebind="30"),
            "--rebind 30: write a time in us, ms, s or min, as in --rebind",
        ),
        (WireOptions(delay="3s"), "--delay 3s: at most 2s, as a handshake"),
        (WireOptions(rebind="10ms"), "--rebind 10ms: at least 1s"),
        (WireOptions(loss=""), "--loss '': write a percentage from 0% to 100%"),
        (WireOptions(delay=""), "--delay '': write a time in us, ms, s or min"),
        (WireOptions(loss="5%", seed="abc"), "--seed abc: write a whole number"),
        (WireOptions(loss="5%", seed=""), "--seed '': write a whole number"),
        (WireOptions(seed="1"), "--seed goes with a bad wire, as in --loss 5% --seed 1"),
    ],
)
def test_what_is_wrong_names_the_option_and_an_example(
    options: WireOptions, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as left:
        options.faults()
    assert left.value.exit_code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--confs"], ["--down", "1a2b3c"], ["--enter", "A"]])
def test_a_wire_needs_a_lab_that_is_built(words: list[str]) -> None:
    found = CliRunner().invoke(make_app(), ["lab", "--loss", "5%", *words])
    assert found.exit_code == 2
    assert "--loss: for a lab that is built; leave out --confs, --enter and --down" in found.stderr


@pytest.mark.parametrize("name", PLANS)
def test_it_is_in_the_picture_of_every_topology(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = PLANS[name].on_wire(BadWire(ALL, 7))
    lines = draw(plan)
    assert max(map(len, lines)) <= WIDTH
    words = " ".join(" ".join(lines).split())
    for part in ("loss 5%", "delay 40ms", "jitter 5ms", "corrupt 0.5%", "rebind 30s", "seed 7"):
        assert part in words
    assert draw(replace(plan, wire=None)) == draw(PLANS[name])
    show_plan(plan)
    assert "bad wire: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "host"), [("pair", "A"), ("nat", "router"), ("hub", "a"), ("gateway", "laptop")]
)
def test_the_port_that_changes_is_one_that_peers_learn(name: str, host: str) -> None:
    plan = PLANS[name].on_wire(BadWire(Faults(rebind=30.0), 7))
    assert plan.rebound() == host
    # It speaks each second, or its peers would not find it again.
    assert all(side.keepalive == 1 for side in plan.sides if side.endpoint is None)
    assert PLANS[name].on_wire(BadWire(Faults(loss=0.1), 7)).sides == PLANS[name].sides
