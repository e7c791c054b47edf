"""What `tunnel pair` makes of a destination, of what is free, and of what is installed here."""

from __future__ import annotations

import io
import platform
import zipfile
from ipaddress import ip_network
from pathlib import Path

import pytest

from tunnel import datapath
from tunnel.config.problems import Mistake
from tunnel.pair import choosing
from tunnel.pair.installing import wheels
from tunnel.pair.pairing import derived_name


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        ("office", "office"),
        ("admin@office.example.org", "office"),
        ("ssh://admin@office.example.org:2222", "office"),
        ("a-very-long-host-name.example.org", "a-very-long-hos"),
        ("root@192.0.2.7", ""),
        ("root@fd00::1", ""),
        ("ssh://root@[fd00::1]:22", ""),
        ("fe80::1%eth0", ""),
        ("böse", ""),
        ("", ""),
    ],
)
def test_the_name_is_that_of_the_host(destination: str, name: str) -> None:
    assert derived_name(destination) == name


def test_halves_of_a_default_route_take_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = [ip_network(each) for each in ("0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "fc00::/7")]
    monkeypatch.setattr(choosing, "networks_in_use", lambda: tuple(routes))
    monkeypatch.setattr(choosing, "folders", tuple)
    assert choosing.taken_networks() == routes[2:]


def test_a_prefix_for_two_may_be_small() -> None:
    given = choosing.given_networks(["10.1.2.0/30", "fd00::/64"], least=4)
    assert [str(each) for each in given] == ["10.1.2.0/30", "fd00::/64"]
    with pytest.raises(Mistake) as caught:
        choosing.given_networks(["10.1.2.0/31"], least=4)
    assert caught.value.remedy == "use a /30 or a larger one"


@pytest.mark.parametrize("machine", [platform.machine(), "of-another-kind"])
def test_the_program_is_a_wheel_that_fits_the_other_machine(machine: str) -> None:
    made = dict(wheels(machine))
    (own,) = [name for name in made if name.startswith("tunnel_vpn-")]
    assert {"trio", "cryptography", "typer"} <= {name.partition("-")[0] for name in made}
    for name, data in made.items():
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None, name
            names = archive.namelist()
        (record,) = [each for each in names if each.endswith(".dist-info/RECORD")]
        assert record.split("/")[0].startswith(name.partition("-")[0])
        assert not [each for each in names if each.startswith("..") or "__pycache__" in each]
    with zipfile.ZipFile(io.BytesIO(made[own])) as archive:
        names = archive.namelist()
        compiled = [name for name in names if name.endswith(".so")]
        if machine != platform.machine():
            assert own.endswith("-py3-none-any.whl")
            assert compiled == []
            if "native" in datapath.available():
                stand_in = archive.read("tunnel/datapath/_native.py").decode()
                assert platform.machine() in stand_in
        else:
            assert bool(compiled) is own.endswith(f"-cp311-abi3-linux_{machine}.whl")
    root = Path(choosing.__file__).parents[2]
    assert "tunnel/systemd/tunnel@.service" in names
    for package in ("crypto", "tunnel"):
        sources = {p.relative_to(root).as_posix() for p in (root / package).rglob("*.py")}
        assert sources <= set(names)
