"""`tunnel up` without any encryption: what `tunnel bench` compares a tunnel's own loop with.

    python -m tunnel.cli.unencrypted up CONF

It is no command, and no setting has it: it runs in a host of a lab alone, and the log of what it
starts says that nothing is encrypted. Both ends must be its own.
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
        fail("tunnels without encryption are for `tunnel bench`, in the hosts of its labs alone")
    try:
        datapath.disable_encryption()
    except ImportError as error:
        fail(f"the compiled datapath is not installed ({error})")
    make_app("up")(prog_name="tunnel")


if __name__ == "__main__":
    main()
