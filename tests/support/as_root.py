"""python -m tests.support.as_root ARGUMENT…: pytest with these arguments, for any user.

As an ordinary user it runs as root of user, network and mount namespaces of its own, where the
kernel allows those and /dev/net/tun is open, as `tunnel lab` does. Else it runs as it is, and the
tests that need root are skipped.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from tunnel.lab.errors import LabUnavailableError
from tunnel.testing.__main__ import become


def main() -> NoReturn:
    command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
    try:
        become(command)
    except LabUnavailableError as error:
        print(f"tests that need root are skipped: {error}", file=sys.stderr)
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
