"""docs/conf.md is the table of keys, and the table holds what it says."""

from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, PEER, read
from tunnel.config import dump, values
from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.model import SECTIONS
from tunnel.config.options import TunnelOptions
from tunnel.config.reference import page

DOC = Path(__file__).parents[3] / "docs" / "conf.md"

KEYS = [(title, key) for title, section in SECTIONS.items() for key in keys_of(section).values()]


NEEDS = {"Bridge": "Mode = tap\n"}
"""Keys that mean nothing without another."""


def test_the_page_is_made_from_the_table() -> None:
    assert DOC.read_text() == page(), "run python -m tunnel.config.reference > docs/conf.md"


@pytest.mark.parametrize(("title", "key"), KEYS, ids=[f"{title}.{key.name}" for title, key in KEYS])
def test_examples_are_read_and_written_back(title: str, key: ConfKey) -> None:
    if key.is_file:
        return  # tests of key files are in test_files.py
    line = f"{key.name} = {key.example}\n"
    sections = {
        "Interface": f"[Interface]\n{line}" + ("" if "Private" in line else INTERFACE),
        "Peer": INTERFACE + f"[Peer]\n{line}" + ("" if "Public" in line else f"PublicKey={PEER}\n"),
        "Tunnel": f"{INTERFACE}[Tunnel]\n{NEEDS.get(key.name, '')}{line}"
        f"[Peer]\n# friendly_name = laptop\nPublicKey = {PEER}\nAllowedIPs = 10.0.0.0/24\n",
    }
    config = read(sections[title])
    assert config.warnings == ()
    assert line in dump(config)


def test_what_is_on_or_off_is_written_in_these_words() -> None:
    switches = [key for key in keys_of(TunnelOptions).values() if key.read is values.switch]
    assert len(switches) > 5
    for key in switches:
        assert (key.write(True), key.write(False)) == ("on", "off"), key.name
        assert key.example in ("on", "off"), key.name
