"""Changes as the UAPI makes them, applied to an engine."""

from __future__ import annotations

import trio

from tunnel.control.uapi_changes import (
    DeviceChange,
)
from tunnel.device import configure
from tunnel.engine import Engine


def apply(engine: Engine, *changes: DeviceChange) -> None:
    trio.run(configure.apply, engine, changes)
