"""What a program does with `tunnel.open`: python -m tests.support.open_program CONF PEER

Brings up CONF, changes its MTU, follows the file again, saves, and waits until the interface is
deleted from outside. Prints one line of JSON for each step.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import trio

import tunnel
from tunnel import config
from tunnel.errors import TunnelError


def say(step: str, found: Any) -> None:
    print(json.dumps({step: found}), flush=True)


async def main(conf: str, peer: str) -> None:
    read = config.load(conf)
    wanted = replace(read, interface=replace(read.interface, mtu=1380))
    async with tunnel.open(conf) as t:
        say("name", t.name)
        with t.events() as events:
            say("diff", [str(change) for change in await t.diff(wanted)])
            say("reload", [str(change) for change in await t.reload(wanted)])
            say("mtu", [t.config.interface.mtu, (await t.status()).mtu])
            async for event in events:
                if isinstance(event, tunnel.events.Reloaded):
                    say("event", [change.to_json() for change in event.changes])
                    break
        say("again", [str(change) for change in await t.reload()])
        say("unchanged", await t.save())
        await trio.run_process(["wg", "set", t.name, "peer", peer, "remove"])
        say("saved", await t.save())
        await trio.run_process(["ip", "link", "delete", t.name])
        await t.wait_closed()
        say("closed", True)
        try:
            await t.status()
        except TunnelError as error:
            say("error", error.code)


async def fails(conf: str) -> None:
    """The error of the body, not a group around it, and nothing stays."""
    try:
        async with tunnel.open(conf):
            raise LookupError("in the body")
    except LookupError as error:
        say("body", str(error))


if __name__ == "__main__":
    trio.run(fails, sys.argv[1])
    trio.run(main, sys.argv[1], sys.argv[2])
