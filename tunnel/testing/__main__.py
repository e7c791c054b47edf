"""python -m tunnel.testing COMMAND…: run a command that may make hosts, for any user.

As root it runs as it is; as an ordinary user, as root of user, network and mount namespaces of its
own. `pytest` means that of this Python.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from tunnel.lab import rootless
from tunnel.lab.errors import LabUnavailableError


def become(command: Sequence[str]) -> NoReturn:
    """Become a command that may make hosts. Raises LabUnavailableError and OSError."""
    if rootless.is_needed():
        # pytest calls its folder by this name; the one of "root" may belong to the machine's root.
        os.environ["LOGNAME"] = getpass.getuser()
        # Only root of the namespace can set its loopback up, and tests use it.
        script = 'ip link set lo up && exec "$@"'
        rootless.enter_user_namespace(["sh", "-c", script, "sh", *command])
    os.execvp(command[0], [*command])


def main(words: Sequence[str]) -> NoReturn:
    """Become the command of the command line."""
    if not words:
        sys.exit("usage: python -m tunnel.testing COMMAND…")
    command = [sys.executable, "-m", *words] if words[0] == "pytest" else [*words]
    try:
        become(command)
    except LabUnavailableError as error:
        sys.exit(f"tunnel.testing: {error}")
    except OSError as error:
        sys.exit(f"tunnel.testing: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
