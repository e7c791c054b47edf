"""The picture for a slide: well-formed, with every step, and with hostile text as text."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from tests.support.stack import ETH, TUN, Stack, echo, message
from tunnel.trace.diagram import MAX_COLUMNS, draw
from tunnel.trace.journey import Journey
from tunnel.trace.nftrace import Verdict

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def two_hosts() -> list[Journey]:
    near, far = Stack(), Stack()
    near.cross(1, echo(1), "OUTPUT POSTROUTING", oif=TUN)
    near.sent(echo(1), counter=1)
    near.cross(2, message(7, 1), "OUTPUT POSTROUTING", oif=ETH)
    far.time = near.time
    far.cross(1, message(7, 1), "PREROUTING INPUT", iif=ETH)
    far.received(echo(1), counter=1)
    far.cross(2, echo(1), "PREROUTING INPUT", iif=TUN)
    return [*(j.on("A") for j in near.journeys()), *(j.on("B") for j in far.journeys())]


def test_two_hosts_side_by_side_with_every_step() -> None:
    picture = draw(two_hosts(), "A & B")
    found = texts(picture)
    assert found[0] == "A & B"
    assert "host A: into the tunnel" in found
    assert "host B: out of the tunnel" in found
    for journey in two_hosts():
        for step in journey.steps:
            assert step.place in found
    # Seventeen boxes, fifteen arrows between them and one wire from host to host.
    root = ElementTree.fromstring(picture)
    assert len(list(root.iter(f"{SVG}line"))) == 16


def test_a_death_is_in_the_picture() -> None:
    stack = Stack()
    stack.cross(1, echo(1), "OUTPUT", oif=TUN, verdict=Verdict.DROP)
    found = " ".join(texts(draw(stack.journeys())))
    assert "DROPPED" in found
    assert "died at OUTPUT of the inner packet" in found


def test_text_of_others_cannot_break_out() -> None:
    (first, *_) = two_hosts()
    journey = replace(first, packet="</text><script>alert(1)</script>", host="<b>")
    picture = draw([journey])
    assert "<script>" not in picture
    assert "host <b>: into the tunnel" in texts(picture)


def test_many_journeys_are_bounded_and_none_is_fine() -> None:
    found = texts(draw(two_hosts() * 10))
    assert sum("the tunnel" in text for text in found) == MAX_COLUMNS
    assert texts(draw([])) == ["The way of a packet"]
