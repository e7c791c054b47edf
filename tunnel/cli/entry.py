"""Where the command `tunnel` begins: as little is loaded as the command line at hand needs."""

from __future__ import annotations

import sys

from tunnel.cli.startup import prepared


def run() -> None:
    """The console script's entry point."""
    with prepared():
        # In here, as ^C may come while it is loaded.
        from tunnel.cli.main import make_app

        app = make_app(*sys.argv[1:2])
        app(prog_name="tunnel")
