"""Which offloads are asked for, by conf and by environment."""

from __future__ import annotations

import pytest

from tunnel.config import TunnelOptions
from tunnel.device.features import ENVIRONMENT_VARIABLE, choose
from tunnel.errors import DaemonError
from tunnel.io.tun import ALL_OFFLOADS, TSO, USO, TunOffload


def test_all_are_asked_for_unless_switched_off() -> None:
    assert choose(environment={}) == (ALL_OFFLOADS, True, True)
    assert choose(environment={ENVIRONMENT_VARIABLE: ""}) == (ALL_OFFLOADS, True, True)


@pytest.mark.parametrize(
    ("text", "tun", "gso", "gro"),
    [
        ("tso", TunOffload.CSUM | USO, True, True),
        ("uso", TunOffload.CSUM | TSO, True, True),
        ("gso", ALL_OFFLOADS, False, True),
        ("GRO , tso", TunOffload.CSUM | USO, True, False),
        ("all", TunOffload.CSUM, False, False),
    ],
)
def test_the_environment_switches_off(text: str, tun: TunOffload, gso: bool, gro: bool) -> None:
    assert choose(environment={ENVIRONMENT_VARIABLE: text}) == (tun, gso, gro)


def test_conf_and_environment_add_up() -> None:
    options = TunnelOptions(tun_tso=False)
    assert choose(options, {ENVIRONMENT_VARIABLE: "gro"}) == (TunOffload.CSUM | USO, True, False)


def test_an_unknown_name_is_refused_with_the_place_and_the_names() -> None:
    with pytest.raises(DaemonError, match=r"TUNNEL_OFFLOADS_OFF: found 'lro'.*tso, uso, gso, gro"):
        choose(environment={ENVIRONMENT_VARIABLE: "tso,lro"})
