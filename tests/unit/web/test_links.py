"""Confs that wait to be fetched once."""

from __future__ import annotations

import pytest

from tests.support.web_client import Clock
from tunnel.web.errors import WebError
from tunnel.web.links import HELD, LONGEST, Links
from tunnel.web.messages import Handout


@pytest.fixture
def clock() -> Clock:
    return Clock()


def handout(name: str = "phone") -> Handout:
    return Handout(name, f"{name}.conf", "[Interface]", ("1",), "", "a notice")


def test_a_link_opens_once(clock: Clock) -> None:
    links = Links(clock)
    held = links.hold("peer", handout())
    token, until, _ = links.make(held.id, 3600)
    assert until == clock.now + 3600 == links.until("peer")
    found = links.take(token)
    assert (found.conf, found.id, found.notice) == ("[Interface]", "", "")
    assert links.until("peer") == 0.0
    with pytest.raises(WebError, match="was used"):
        links.take(token)
    with pytest.raises(WebError, match="no longer kept"):
        links.make(held.id, 3600)


def test_nothing_waits_beyond_its_time(clock: Clock) -> None:
    links = Links(clock)
    held = links.hold("peer", handout())
    token, _, _ = links.make(held.id, 60)
    held = links.hold("other", handout())
    clock.now += 60
    with pytest.raises(WebError):
        links.take(token)
    clock.now += HELD
    with pytest.raises(WebError):
        links.make(held.id, 60)


@pytest.mark.parametrize("seconds", [-1, 0, 59, LONGEST + 1])
def test_a_time_out_of_bounds_makes_no_link(clock: Clock, seconds: int) -> None:
    links = Links(clock)
    held = links.hold("peer", handout())
    with pytest.raises(WebError, match="at least a minute"):
        links.make(held.id, seconds)
    links.make(held.id, 60)


def test_new_keys_or_a_removed_peer_withdraw_its_link(clock: Clock) -> None:
    links = Links(clock)
    token, _, _ = links.make(links.hold("peer", handout()).id, 60)
    kept, _, _ = links.make(links.hold("other", handout("other")).id, 60)
    links.forget("peer")
    with pytest.raises(WebError):
        links.take(token)
    assert links.take(kept).name == "other"


def test_they_are_bounded(clock: Clock) -> None:
    links = Links(clock)
    tokens = [links.make(links.hold(str(n), handout()).id, 60)[0] for n in range(257)]
    with pytest.raises(WebError):
        links.take(tokens[0])
    assert links.take(tokens[1]).name == "phone"
