"""The command `tunnel-wg`: a userspace WireGuard daemon for wg-quick and for hand work.

    WG_QUICK_USERSPACE_IMPLEMENTATION=tunnel-wg wg-quick up wg0

    tunnel-wg wg0 && wg setconf wg0 wg0.conf && ip address add … && ip link set wg0 up

The program that starts it waits for it, so this file loads no more than it needs.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence

from tunnel.cli.startup import prepared
from tunnel.errors import TunnelError
from tunnel.log import output

LEVELS = {
    "verbose": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "error": logging.ERROR,
    "silent": logging.CRITICAL + 1,
}
"""LOG_LEVEL, as wireguard-go names them, and what Python calls them."""

SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})

ENVIRONMENT = """environment:
  LOG_LEVEL=verbose|debug|info|error|silent
                            what to log on standard error (default: error; in
                            the background nothing unless it is set)
  WG_PROCESS_FOREGROUND=1   the same as --foreground
  WG_TUN_FD, WG_UAPI_FD     descriptors of an attached TUN device and of a
                            listening unix socket to use
"""


def run() -> None:
    """What the console script does."""
    with prepared():
        sys.exit(main(sys.argv[1:], os.environ))


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Start the daemon; the exit status.

    In the background it is 0 as soon as the interface exists and `wg` can connect.
    """
    options = make_parser().parse_args(arguments)
    foreground = options.foreground or environment.get("WG_PROCESS_FOREGROUND") == "1"
    level = environment.get("LOG_LEVEL", "")
    output.log_to_stream()
    logging.getLogger("tunnel").setLevel(LEVELS.get(level, logging.ERROR))
    import trio

    from tunnel.daemon.gc_tuning import avoid_pauses
    from tunnel.device import userspace
    from tunnel.linux.memory import release_unused

    # From here on there is something to undo: signals wait until it can be done.
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        device, served = userspace.open_device(options.name, environment)
    except TunnelError as error:
        sys.stderr.write(f"tunnel-wg: {error}\n")
        return 1
    if not foreground:
        # All that can go wrong is behind us, and no thread has been started yet.
        _go_into_background(silent=LEVELS.get(level, 0) in (0, LEVELS["silent"]))

    avoid_pauses()

    def ready() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        release_unused()

    try:
        trio.run(userspace.run, device, served, ready)
    finally:
        # Before Python reports an error.
        output.flush()
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The command line, with its help."""
    parser = argparse.ArgumentParser(
        prog="tunnel-wg",
        description="Create a WireGuard interface in user space, for wg(8) to configure.",
        epilog=ENVIRONMENT,
        formatter_class=_Formatter,
    )
    parser.add_argument(
        "-f", "--foreground", action="store_true", help="stay in the foreground until stopped"
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        help="print version, commit, datapath, cipher and Python, and exit",
    )
    parser.add_argument("name", metavar="NAME", help="the interface, for example wg0")
    return parser


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide on every terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=78)


class _Version(argparse.Action):
    """Looks for what to print only when it is asked for."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        from tunnel.cli.version import version_text

        sys.stdout.write(version_text(parser.prog) + "\n")
        parser.exit()


def _go_into_background(*, silent: bool) -> None:
    """Let the parent go, and be a daemon: own session, root folder, no terminal."""
    sys.stderr.flush()
    if os.fork():
        # Without any clean-up: what is open belongs to the child now.
        os._exit(0)
    os.setsid()
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2) if silent else (0,):
        os.dup2(null, descriptor)
    os.close(null)


if __name__ == "__main__":
    run()
