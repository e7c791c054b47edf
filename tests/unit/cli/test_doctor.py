"""Which tunnels and which confs the doctor is to look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.doctor.test_checks import STATUS
from tunnel.cli import common, doctor
from tunnel.control import json_socket
from tunnel.observe.status import TunnelStatus


class FakeClient:
    """Says that wg0 is up, from the file `conf`."""

    conf = ""

    def __init__(self, name: str) -> None:
        assert name == "wg0"

    def __enter__(self) -> FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def status(self) -> TunnelStatus:
        return TunnelStatus.from_json(STATUS.to_json() | {"conf": self.conf})


@pytest.mark.parametrize("named", ["wg0", None])
def test_the_conf_is_the_one_that_the_daemon_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, named: str | None
) -> None:
    monkeypatch.setattr(json_socket, "running_names", lambda: ["wg0"])
    monkeypatch.setattr(common, "TunnelClient", FakeClient)
    conf = tmp_path / "office.conf"
    monkeypatch.setattr(FakeClient, "conf", str(conf))
    # It was removed meanwhile: then there is none.
    assert list(doctor._meant(named)) == [("wg0", None)]
    conf.touch()
    assert list(doctor._meant(named)) == [("wg0", str(conf))]
