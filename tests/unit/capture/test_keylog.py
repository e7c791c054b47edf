"""Keys are handed out while somebody subscribes, and at no other time."""

from __future__ import annotations

from typing import cast

import trio

from tests.support.protocol_pair import Pair
from tunnel.capture.keylog import KeyLog
from tunnel.control.broadcast import Subscription
from tunnel.control.messages.events import TunnelEvent
from tunnel.engine import Engine


class Driver:
    """As much of an engine as a KeyLog knows."""

    def __init__(self, pair: Pair) -> None:
        self.interface = pair.a.interface


async def _take(subscription: Subscription) -> TunnelEvent:
    with trio.fail_after(1):
        return await anext(subscription)


async def _main() -> None:
    pair = Pair()
    engine = cast(Engine, Driver(pair))
    context = pair.a.interface._context
    keys = KeyLog(engine)
    listening = [context.on_ephemeral is not None]
    with keys.subscribe() as first:
        with keys.subscribe() as second:
            pair.connect()
            told = await _take(first)
            assert (await _take(second)).details == told.details
        listening.append(context.on_ephemeral is not None)
    listening.append(context.on_ephemeral is not None)
    assert listening == [False, True, False]
    private_key = pair.a.interface.private_key
    assert private_key is not None
    assert told.type == "ephemeral"
    assert told.details["private_key"] == private_key.to_base64()
    assert told.details["peer"] == pair.ab.public_key.to_base64()
    assert told.details["preshared_key"] is None
    assert len(told.details["ephemeral_key"]) == 44


def test_subscribers_are_told_and_the_last_to_leave_turns_it_off() -> None:
    trio.run(_main)
