"""The program `tunnel-cni`: a CNI plugin, which container runtimes call by its name in CNI_PATH."""

from __future__ import annotations

import json
import os
import sys

from tunnel.cli.startup import prepared
from tunnel.containers.cni import plugin
from tunnel.containers.cni.errors import CniCode, CniError
from tunnel.containers.cni.request import parse_request, version_of


def run() -> None:
    """What the console script does."""
    with prepared():
        sys.exit(main())


def main() -> int:
    """Answer one call on standard output; the exit status."""
    text = ""
    try:
        if os.environ.get("CNI_COMMAND") == "VERSION":
            print(json.dumps(plugin.supported()))  # noqa: T201
            return 0
        try:
            text = sys.stdin.read()
        except (OSError, UnicodeDecodeError) as error:
            raise CniError(CniCode.IO_FAILURE, f"standard input: {error}") from error
        result = plugin.answer(parse_request(os.environ, text))
    except CniError as error:
        print(json.dumps(error.report(version_of(text))))  # noqa: T201
        return 1
    if result is not None:
        print(json.dumps(result))  # noqa: T201
    return 0
