"""Confs written whole and stripped."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, PEER, PRIVATE, read
from tunnel.config import ConfigErrors, EndpointConfig, TunnelConfig, dump, load, strip

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def full() -> TunnelConfig:
    return load(GOLDEN / "full.conf")


def test_dump(full: TunnelConfig) -> None:
    assert dump(full) == (GOLDEN / "full.dump").read_text()
    assert read(dump(full)).interface == full.interface
    assert read(dump(full)).peers == full.peers


def test_strip(full: TunnelConfig) -> None:
    assert strip(full) == (GOLDEN / "full.strip").read_text()


@pytest.mark.foreign("wg-quick", "wg")
@pytest.mark.root
def test_strip_says_what_wg_quick_strip_says(tmp_path: Path) -> None:
    """Read by our parser, both outputs mean the same."""
    assert shutil.which("wg-quick")
    path = tmp_path / "full.conf"
    text = (GOLDEN / "full.conf").read_text().replace("[Tunnel]\nUdpOffload = off\n", "")
    path.write_text(text)
    theirs = subprocess.run(
        ["wg-quick", "strip", str(path)], capture_output=True, text=True, check=True
    ).stdout
    ours, read_back = read(strip(load(path))), read(theirs)
    assert read_back.peers == ours.peers
    assert read_back.interface.private_key == ours.interface.private_key
    assert read_back.interface.listen_port == ours.interface.listen_port
    assert read_back.interface.fwmark == ours.interface.fwmark


def test_keys_from_files_are_named_by_dump_and_written_out_by_strip(tmp_path: Path) -> None:
    (tmp_path / "own.key").write_text(PRIVATE)
    path = tmp_path / "a.conf"
    path.write_text(
        f"[Interface]\nPrivateKeyFile = own.key\n[Peer]\nPublicKey = {PEER}\n"
        "PresharedKeyFile = own.key\n"
    )
    config = load(path)
    assert "PrivateKeyFile = own.key" in dump(config)
    assert "PresharedKeyFile = own.key" in dump(config)
    assert PRIVATE not in dump(config)
    assert strip(config).count(PRIVATE) == 2
    assert "File" not in strip(config)


def test_a_value_with_a_line_break_never_becomes_a_hook() -> None:
    config = read(f"{INTERFACE}[Peer]\nPublicKey = {PEER}\n")
    peer = dataclasses.replace(
        config.peers[0], endpoint=EndpointConfig("a\n[Interface]\nPostUp = reboot", 1)
    )
    evil = dataclasses.replace(config, peers=(peer,))
    for write in (dump, strip):
        with pytest.raises(ConfigErrors) as caught:
            write(evil)
        assert str(caught.value) == (
            r'office: Endpoint must fit on one line of a conf, and "a\n[Interface]\nPostUp = '
            "reboot:1\" does not; remove control characters, '#' and white space around it"
        )
