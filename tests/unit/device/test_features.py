"""Which offloads are asked for, by conf, by environment and by the kernel's version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.config import TunnelOptions
from tunnel.config.values import auto_switch
from tunnel.device.features import ENVIRONMENT_VARIABLE, choose
from tunnel.errors import DaemonError
from tunnel.io import gso
from tunnel.io.tun import ALL_OFFLOADS, TSO, USO, TunOffload


def test_all_are_asked_for_unless_switched_off() -> None:
    assert choose(environment={}, version="6.1.0") == (ALL_OFFLOADS, True, True, False)
    assert choose(environment={ENVIRONMENT_VARIABLE: ""}, version="6.1.0").gso


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
    chosen = choose(environment={ENVIRONMENT_VARIABLE: text}, version="7.0.2")
    # Without batches there is nothing to end.
    assert chosen == (tun, gso, gro, gso)


def test_conf_and_environment_add_up() -> None:
    options = TunnelOptions(tun_tso=False)
    chosen = choose(options, {ENVIRONMENT_VARIABLE: "gro"}, version="6.1.0")
    assert chosen == (TunOffload.CSUM | USO, True, False, False)


@pytest.mark.parametrize(
    ("version", "damages"),
    [
        ("6.19.14", False),
        ("6.17.0-41-generic", False),
        ("7.0.0-rc1", True),
        ("7.0.0-14-generic", True),
        ("7.0.2-6-pve", True),
        ("7.0", True),
        ("7.1.4", True),
        ("7.1.5", False),
        ("7.1.10-arch1-1", False),
        ("7.2.0", False),
        ("10.0.1", False),
        ("strange", False),
    ],
)
def test_short_tails_are_for_kernels_that_damage_equal_batches(version: str, damages: bool) -> None:
    for option, wanted in (("auto", damages), ("on", True), ("off", False)):
        options = TunnelOptions(udp_short_tail=auto_switch(option))
        assert choose(options, {}, version=version).short_tails is wanted


def test_ubuntu_names_the_version_that_its_kernel_was_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signature = tmp_path / "version_signature"
    monkeypatch.setattr(gso, "_SIGNATURE", signature)
    assert gso.kernel_version() == os.uname().release
    signature.write_text("Ubuntu 7.1.0-14.14-generic 7.1.6\n")
    assert gso.kernel_version() == "7.1.6"
    signature.write_text("of another kind\n" * 2)
    assert gso.kernel_version() == os.uname().release


def test_an_unknown_name_is_refused_with_the_place_and_the_names() -> None:
    with pytest.raises(DaemonError, match=r"TUNNEL_OFFLOADS_OFF: found 'lro'.*tso, uso, gso, gro"):
        choose(environment={ENVIRONMENT_VARIABLE: "tso,lro"})
