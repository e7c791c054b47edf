"""docs/containers.md: what it shows of a Docker host is what a real one prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docker import PROGRAMS, engine
from tests.support.typed import check_document, terminals
from tunnel.lab import Lab
from tunnel.lab.building import build
from tunnel.lab.plans import PAIR

pytestmark = [pytest.mark.root, pytest.mark.real_root, pytest.mark.slow]

DOCUMENT = Path(__file__).parents[3] / "docs" / "containers.md"


@pytest.mark.foreign("curl", *PROGRAMS)
def test_the_document_shows_what_an_engine_builds(lab: Lab, tmp_path: Path) -> None:
    built = build(lab, PAIR.with_keys())
    built.up()
    with engine(built.hosts["A"]), terminals(built.hosts, tmp_path) as typed:
        check_document(DOCUMENT, typed, "What a container engine builds by itself")
