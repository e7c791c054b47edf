"""A changed conf, applied to the tunnel that runs from it."""

from __future__ import annotations

from pathlib import Path

from tunnel.control import run_folder
from tunnel.control.client import TunnelClient
from tunnel.control.json_protocol import ControlError
from tunnel.errors import TunnelError

NOT_RUNNING = "not_running"
OTHER_CONF = "other_conf"


class NotAppliedError(TunnelError):
    """The tunnel goes on as it was. `code` says why, `running` is the conf it runs from, if known.

    `code` is `not_running`, `other_conf`, or that of a refusal.
    """

    def __init__(self, code: str, message: str, running: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.running = running


def apply_conf(conf: Path) -> None:
    """Reload the tunnel that runs from the conf. Blocks. Raises NotAppliedError."""
    name = conf.name.removesuffix(".conf")
    if name not in run_folder.running_names():
        raise NotAppliedError(NOT_RUNNING, f"{name} is not running: tunnel up {conf}")
    try:
        with TunnelClient(name) as client:
            running = client.status().conf
            if running and not conf.samefile(running):
                message = f"{name} runs from {running}, and stays as it is"
                raise NotAppliedError(OTHER_CONF, message, running)
            client.reload()
    except (ControlError, OSError) as error:
        code = error.code if isinstance(error, ControlError) else "host"
        raise NotAppliedError(code, f"{name} could not be reloaded: {error}") from None
