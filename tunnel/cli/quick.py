"""The command `tunnel-wg-quick`: wg-quick(8) without wireguard-tools, for `tunnel-wg` and others.

tunnel-wg-quick up wg0
WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go tunnel-wg-quick up ./wg1.conf
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from tunnel import config
from tunnel.cli.startup import prepared
from tunnel.errors import TunnelError
from tunnel.log import redact

PROGRAM = "tunnel-wg-quick"

USAGE = f"""Usage: {PROGRAM} [ up | down | save | strip ] [ CONFIG_FILE | INTERFACE ]
       {PROGRAM} --version

  CONFIG_FILE is a configuration file, whose filename is the interface name
  followed by `.conf'. Otherwise, INTERFACE is an interface name, with
  configuration found at /etc/tunnel/INTERFACE.conf or
  /etc/wireguard/INTERFACE.conf. The format is that of wg-quick(8).

  WG_QUICK_USERSPACE_IMPLEMENTATION names the program that carries the packets
  (default: tunnel-wg). WG_ENDPOINT_RESOLUTION_RETRIES is the number of further
  attempts to look up the name of an endpoint, or infinity.
"""

COMMANDS = frozenset({"up", "down", "save", "strip"})


def run() -> None:
    """What the console script does."""
    with prepared():
        _run()


def _run() -> None:
    arguments = sys.argv[1:]
    # As wg-quick does it: what is installed beside this program is found.
    beside = os.path.dirname(os.path.realpath(sys.argv[0]))
    os.environ["PATH"] = f"{beside}:{os.environ.get('PATH', os.defpath)}"
    if _is_complete(arguments) and os.geteuid() != 0:
        prompt = f"{PROGRAM} must be run as root. Please enter the password for %u to continue: "
        try:
            os.execvp("sudo", ["sudo", "-p", prompt, "--", sys.executable, *sys.orig_argv[1:]])
        except OSError as error:
            complain(f"must be run as root, and sudo cannot be: {error.strerror}")
            sys.exit(1)
    sys.exit(main(arguments, os.environ))


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Do what the command line says; the exit status: 0, or 1 after any failure."""
    if len(arguments) == 1 and arguments[0] in ("-h", "--help", "help"):
        sys.stderr.write(USAGE)
        return 0
    if list(arguments) == ["--version"]:
        from tunnel.cli.version import version_text

        sys.stdout.write(version_text(PROGRAM) + "\n")
        return 0
    if not _is_complete(arguments):
        sys.stderr.write(USAGE)
        return 1
    command, name = arguments
    try:
        path = config.find(name)
        # Hooks and the program may run elsewhere.
        loaded = config.load(path.absolute())
    except config.ConfigErrors as errors:
        complain(errors)
        if command != "down":
            return 1
        # What is up goes down without its conf, by what is on record.
        return _act(command, os.path.basename(name).removesuffix(".conf"), None, environment)
    for warning in loaded.warnings:
        echo(f"Warning: {warning}")
    if command == "strip":
        sys.stdout.write(config.strip(loaded))
        return 0
    return _act(command, loaded.name, loaded, environment)


def _act(
    command: str,
    name: str,
    loaded: config.TunnelConfig | None,
    environment: Mapping[str, str],
) -> int:
    import trio

    from tunnel.wg_quick import wg_quick

    program = environment.get("WG_QUICK_USERSPACE_IMPLEMENTATION") or "tunnel-wg"
    try:
        if command == "down" or loaded is None:
            trio.run(wg_quick.down, name, loaded, echo)
        elif command == "up":
            retries = environment.get("WG_ENDPOINT_RESOLUTION_RETRIES", "")
            trio.run(wg_quick.up, loaded, program, echo, retries)
        else:
            trio.run(wg_quick.save, loaded, echo)
    except TunnelError as error:
        complain(error)
        for note in getattr(error, "__notes__", ()):
            complain(note)
        return 1
    return 0


def _is_complete(arguments: Sequence[str]) -> bool:
    return len(arguments) == 2 and arguments[0] in COMMANDS


def echo(text: str) -> None:
    """Print a step, or what a hook said, to standard error; keys hidden."""
    for line in redact.redact(text).split("\n"):
        sys.stderr.write(redact.printable(line) + "\n")


def complain(message: object) -> None:
    """Print what went wrong, with our name before it as wg-quick does."""
    echo(f"{PROGRAM}: {message}")


if __name__ == "__main__":
    run()
