"""Where the commands begin. It loads nothing before it has seen to ^C, and then as little as the
command line at hand needs.
"""

from __future__ import annotations

import signal
import sys


def run() -> None:
    """`tunnel`."""
    _end_at_interrupts()
    from tunnel.cli.startup import prepared

    with prepared():
        if sys.argv[1:3] == ["up", "--successor"]:
            from tunnel.cli.serving import succeed

            sys.exit(succeed(sys.argv[3:]))
        # In here, as ^C may come while it is loaded.
        from tunnel.cli.main import make_app

        app = make_app(*sys.argv[1:2])
        app(prog_name="tunnel")


def run_wg() -> None:
    """`tunnel-wg`."""
    _end_at_interrupts()
    from tunnel.cli import wg

    wg.run()


def run_quick() -> None:
    """`tunnel-wg-quick`."""
    _end_at_interrupts()
    from tunnel.cli import quick

    quick.run()


def run_cni() -> None:
    """`tunnel-cni`."""
    _end_at_interrupts()
    from tunnel.cli import cni

    cni.run()


def _end_at_interrupts() -> None:
    """Have ^C end the process as it ends others, without a traceback, while there is nothing to
    undo: until `prepared` catches it. Where it is ignored, it stays so.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
