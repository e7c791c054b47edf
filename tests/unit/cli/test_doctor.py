"""Which tunnels and which confs the doctor is to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fake_client import runs
from tunnel.cli import doctor


@pytest.mark.parametrize("named", ["wg0", None])
def test_the_conf_is_the_one_that_the_daemon_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    conf = tmp_path / "office.conf"
    runs(monkeypatch, "wg0", conf)
    # It was removed meanwhile: then there is none.
    assert list(doctor._meant(named)) == [("wg0", None)]
    conf.touch()
    assert list(doctor._meant(named)) == [("wg0", str(conf))]
