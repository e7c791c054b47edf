"""`tunnel up` without any encryption: what `tunnel bench` compares a tunnel's own loop with.

    python -m tunnel.cli.unencrypted up CONF

It is not a command, and no setting switches it on: it runs only in a host of a lab, and the log of
the daemon says that nothing is encrypted. Both ends must be started this way.
"""

from __future__ import annotations

import os

from tunnel import datapath
from tunnel.cli.common import fail
from tunnel.cli.main import make_app
from tunnel.lab.host import HOST_VARIABLE


def main() -> None:
    """Be the command line `tunnel` whose tunnels protect nothing."""
    if HOST_VARIABLE not in os.environ:
        fail("tunnels without encryption run only in the hosts of a lab of `tunnel bench`")
    try:
        datapath.disable_encryption()
    except ImportError as error:
        fail(f"the compiled datapath is not installed ({error})")
    make_app("up")(prog_name="tunnel")


if __name__ == "__main__":
    main()
