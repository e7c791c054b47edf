"""python -m tests.support.as_root ARGUMENT…: pytest with these arguments, for any user.

As an ordinary user it runs as root of user, network and mount namespaces of its own, where the
kernel allows those and /dev/net/tun is open, as `tunnel lab` does. Else it runs as it is, and the
tests that need root are skipped.
"""

from __future__ import annotations

import getpass
import os
import sys
from typing import NoReturn

from tunnel.lab import rootless
from tunnel.lab.errors import LabUnavailableError


def main() -> NoReturn:
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    if rootless.is_needed():
        # pytest calls its folder by this name; the one of "root" may belong to the machine's root.
        os.environ["LOGNAME"] = getpass.getuser()
        try:
            # Only root of the namespace can set its loopback up, and tests use it.
            rootless.enter_user_namespace(
                ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]
            )
        except LabUnavailableError as error:
            print(f"tests that need root are skipped: {error}", file=sys.stderr)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
