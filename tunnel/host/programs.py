"""Run one of the machine's programs, and turn its failure into a HostError."""

import subprocess
from collections.abc import Sequence

from tunnel.host.errors import HostError

_TIMEOUT = 20.0


def run_program(
    step: str, subject: str, argv: Sequence[str], text: str, *, install: str, remedy: str = ""
) -> str:
    """What `argv` printed, given `text` on its standard input.

    `install` is the remedy when the program is missing, `remedy` when it fails.
    """
    try:
        done = subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise HostError(step, subject, f"{argv[0]} is not installed", install) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(step, subject, str(error), remedy) from error
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines() or [f"{argv[0]} ended with {done.returncode}"]
        raise HostError(step, subject, reason[0], remedy)
    return done.stdout
