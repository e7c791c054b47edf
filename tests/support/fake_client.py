"""A tunnel that seems to run, for commands that ask its daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.doctor_facts import STATUS
from tunnel.cli import common
from tunnel.control import run_folder
from tunnel.control.messages.status import TunnelStatus


def runs(monkeypatch: pytest.MonkeyPatch, tunnel: str, conf: Path) -> None:
    """The only tunnel that runs is `tunnel`, from the file `conf`."""

    class FakeClient:
        def __init__(self, name: str) -> None:
            assert name == tunnel

        def __enter__(self) -> FakeClient:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def status(self) -> TunnelStatus:
            return TunnelStatus.from_json(STATUS.to_json() | {"conf": str(conf)})

    monkeypatch.setattr(run_folder, "running_names", lambda: [tunnel])
    monkeypatch.setattr(common, "TunnelClient", FakeClient)
