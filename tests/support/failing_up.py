"""Run a tunnel that fails, or is told to stop, at one step of its coming up.

python -m tests.support.failing_up CONF STEP fail|stop
"""

from __future__ import annotations

import sys
from typing import Any

import trio

from tunnel import config, host
from tunnel.daemon import host_state, run
from tunnel.daemon.daemon import Daemon
from tunnel.device import sync
from tunnel.engine import Engine
from tunnel.errors import TunnelError
from tunnel.host import HostError
from tunnel.io.tun import Tun
from tunnel.io.udp import Udp

STEPS: dict[str, tuple[Any, str]] = {
    "find link": (host, "describe_link"),
    "resolve": (run, "resolve_some"),
    "compute": (host_state, "compute"),
    "udp": (Udp, "open"),
    "tun": (Tun, "open"),
    "PreUp": (run, "_run_hooks"),
    "peers": (sync, "apply"),
    "host": (host, "apply"),
    "engine": (Engine, "run"),
    "PostUp": (run, "_run_hooks"),
}


def main(conf: str, step: str, how: str) -> int:
    """Give back the exit status: 3 when it failed as wanted."""
    running = Daemon(config.load(conf))
    owner, name = STEPS[step]
    original = getattr(owner, name)

    def broken(*args: Any, **keywords: Any) -> Any:
        if name == "_run_hooks" and args[1] != step:
            return original(*args, **keywords)
        if how == "fail":
            raise HostError("inject", step, "a failure")
        trio_stop()
        return original(*args, **keywords)

    def trio_stop() -> None:
        try:
            running.stop()
        except RuntimeError:  # in a worker thread
            trio.from_thread.run_sync(running.stop)

    setattr(owner, name, broken)

    def ready() -> None:
        print("ready", flush=True)

    try:
        trio.run(lambda: run.run(running, ready=ready))
    except TunnelError as error:
        print(f"as wanted: {error}", flush=True)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
