from __future__ import annotations

import pytest
import trio

from tests.support.confs import INTERFACE, read
from tunnel.control.json_protocol import ControlError
from tunnel.daemon.attach import Attachment
from tunnel.daemon.control import methods, streams
from tunnel.daemon.daemon import Daemon


@pytest.mark.parametrize("name", ["secrets", "paths"])
@pytest.mark.parametrize("value", ["false", 1, None, [True]])
def test_a_flag_of_the_wrong_type_is_refused(name: str, value: object) -> None:
    daemon = Daemon(read(INTERFACE))
    status = methods(daemon, Attachment(daemon))["status"]
    with pytest.raises(ControlError, match=f"{name} is true or false") as refused:
        trio.run(status, {name: value})
    assert refused.value.code == "syntax"


def test_who_followed_an_earlier_daemon_gets_the_beginning_of_this_one() -> None:
    daemon = Daemon(read(INTERFACE))
    events = streams(daemon)["events"]

    async def followed(**params: bool) -> list[str]:
        with events(params) as found:
            daemon.feed.publish("port")
            return [(await anext(found)).type for _ in range(1 + params.get("again", False))]

    async def main() -> None:
        with events({"again": True}) as early:
            daemon.feed.begin("restarted", restarts=1)
            assert (await anext(early)).type == "restarted", "it was not up yet"
        assert await followed(again=True) == ["restarted", "port"]
        assert await followed() == ["port"]

    trio.run(main)
