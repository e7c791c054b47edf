"""Where the command `tunnel` begins: as little is loaded as the command line at hand needs."""

from __future__ import annotations

import sys

from tunnel.cli.startup import prepared

LIFE = frozenset({"up", "down", "show", "run"})
"""The commands of `life.py`, which scripts and units call and wait for."""


def run() -> None:
    """The console script's entry point."""
    with prepared():
        if len(sys.argv) > 1 and sys.argv[1] in LIFE:
            from tunnel.cli.life import app
        else:
            from tunnel.cli.main import app
        app(prog_name="tunnel")
