"""Run one of the machine's programs, and turn its failure into a HostError."""

import subprocess
from collections.abc import Sequence

from tunnel.host.errors import HostError

_TIMEOUT = 20.0

INSTALL_NFT = "apt-get install nftables"


def run_program(
    step: str,
    subject: str,
    argv: Sequence[str],
    text: str = "",
    *,
    install: str,
    remedy: str = "",
    said: int = 1,
) -> str:
    """What `argv` printed, given `text` on its standard input.

    `install` is the remedy when the program is missing, `remedy` when it fails. Of what it
    then says, `said` lines are shown.
    """
    try:
        done = subprocess.run(
            argv,
            input=text,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(step, subject, f"{argv[0]} is not installed", install) from error
    except subprocess.TimeoutExpired:
        raise HostError(step, subject, f"no answer in {_TIMEOUT:g} s", remedy) from None
    except OSError as error:
        raise HostError(step, subject, str(error), remedy) from error
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        reason = "; ".join(lines[:said]) or f"{argv[0]} ended with {done.returncode}"
        raise HostError(step, subject, reason, remedy)
    return done.stdout


def list_ruleset() -> str:
    """All nftables rules of this network namespace, with handles. Raises HostError."""
    # Terse: without the elements of sets, of which there may be half a million. Not as JSON: that
    # of nft 1.0.6 ends in the middle where a table has an owner, as our trace table does.
    argv = ["nft", "-a", "-y", "-t", "list", "ruleset"]
    return run_program("list", "nftables rules", argv, install=INSTALL_NFT)
