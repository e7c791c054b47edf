"""Rates out of looks, and the picture of them at several widths."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from tests.support.statuses import STATUS
from tunnel.cli.top.command import TypedFilter, _Screen
from tunnel.cli.top.poll import Looker
from tunnel.cli.top.view import ORDERS, History, age, picture, rate, sparkline
from tunnel.control.messages.status import TunnelStatus


def later(*, rx_bytes: int) -> TunnelStatus:
    """STATUS with another counter of its peer."""
    peer = dataclasses.replace(STATUS.peers[0], rx_bytes=rx_bytes)
    return dataclasses.replace(STATUS, peers=(peer,))


def shown(history: History, width: int, height: int | None = None) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False)
    console.print(picture([STATUS], history, width, height, now=1075.4))
    return out.getvalue().splitlines()


def test_rates_are_those_between_two_looks() -> None:
    history = History()
    history.add([STATUS], 10.0)
    history.add([later(rx_bytes=1536 + 1000)], 12.0)
    assert list(history.received["wg0", "PEER="]) == [500.0]
    assert list(history.sent["wg0", ""]) == [0.0]


def test_a_new_daemon_counts_from_zero() -> None:
    history = History()
    history.add([STATUS], 10.0)
    history.add([dataclasses.replace(later(rx_bytes=0), pid=43)], 11.0)
    assert history.received == {}


def test_drops_and_cpu_are_those_of_the_last_interval() -> None:
    history = History()
    history.add([STATUS], 10.0)
    more = dataclasses.replace(STATUS, drops={"replay": 1, "no_peer": 15}, cpu_seconds=1.0)
    history.add([more], 12.0)
    assert history.new_drops["wg0"] == {"no_peer": 3}
    assert history.cpu["wg0"] == 0.5


def test_removed_peers_are_forgotten() -> None:
    history = History()
    history.add([STATUS], 1.0)
    history.add([STATUS], 2.0)
    history.add([dataclasses.replace(STATUS, peers=())], 3.0)
    assert list(history.received) == [("wg0", "")]


@pytest.mark.parametrize("width", [20, 40, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    history = History()
    for second in range(90):
        history.add([later(rx_bytes=second * second * 1000)], float(second))
    assert max(map(len, shown(history, width))) <= width


def test_a_narrow_terminal_cuts_the_key_and_no_figure() -> None:
    history = History()
    history.add([STATUS], 1.0)
    history.add([later(rx_bytes=100_000)], 2.0)
    lines = shown(history, 72)
    assert any(line.endswith("PATH MTU") for line in lines)
    assert any("787.7 kbit/s" in line and "PEER=" in line for line in lines)


@pytest.mark.parametrize("height", [8, 24])
def test_many_peers_fit_the_screen(height: int) -> None:
    peers = tuple(dataclasses.replace(STATUS.peers[0], public_key=f"{n}=") for n in range(1000))
    out = io.StringIO()
    console = Console(file=out, width=80)
    many = dataclasses.replace(STATUS, peers=peers)
    console.print(picture([many], History(), 80, height, now=1075.4))
    lines = out.getvalue().splitlines()
    assert len(lines) <= height
    assert any("of 1000, all of them: 1.46 MiB in, 97.66 KiB out" in line for line in lines)


def listed(order: str = "rate", first: int = 0) -> tuple[list[str], str]:
    """The names of the peers in the picture, and what stands below them."""
    peers = tuple(
        dataclasses.replace(
            STATUS.peers[0],
            public_key=f"{number}=",
            name=f"peer {99 - number:02}" if number else "",
            latest_handshake=1000.0 + 7 * number % 50,
            rx_bytes=11 * number % 50,
        )
        for number in range(50)
    )
    out = io.StringIO()
    many = dataclasses.replace(STATUS, peers=peers)
    view = picture([many], History(), 80, 24, now=1075.4, order=order, first=first)
    Console(file=out, width=80).print(view)
    lines = out.getvalue().splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("PEER"))
    end = next(number for number, line in enumerate(lines) if line.startswith("peers "))
    return [line[:8].strip() for line in lines[begin + 1 : end]], lines[end]


def test_peers_are_sorted_and_scrolled() -> None:
    names, below = listed("name")
    assert names[:3] == ["peer 50", "peer 51", "peer 52"]
    assert below.startswith(f"peers 1 to {len(names)} of 50, all of them: ")
    further, below = listed("name", first=2)
    assert further[0] == "peer 52"
    assert below.startswith(f"peers 3 to {len(names) + 2} of 50, ")
    last, below = listed("name", first=1000)
    assert last[-1] == "0=", "without a name, by its key"
    assert below.startswith(f"peers {51 - len(names)} to 50 of 50, ")
    assert listed("handshake")[0][0] == "peer 92", "7 seconds times 7"
    assert listed("transfer")[0][0] == "peer 90", "11 bytes times 9 leave 49"


def test_keys_sort_and_scroll() -> None:
    looker = Looker({})
    screen = _Screen(looker, 1.0)
    screen._obey(b"ss")
    assert ORDERS[screen._order] == "handshake"
    screen._obey(b"ss")
    assert screen._order == 0
    looker._statuses["wg0"] = dataclasses.replace(STATUS, peers=STATUS.peers * 30)
    for keys, first in ((b"\x1b[B\x1b[Bj", 3), (b"\x1b[6~", 13), (b"k\x1b[A", 11)):
        screen._obey(keys)
        assert screen._first == first
    screen._obey(b"\x1b[6~" * 9)
    assert screen._first == 30
    screen._obey(b"\x1b[5~" * 9)
    assert screen._first == 0


def test_a_filter_shows_the_peers_that_match_and_their_sum() -> None:
    (peer,) = STATUS.peers
    peers = [
        dataclasses.replace(peer, public_key=f"KEY{n}=", name=name, connected=up, rx_bytes=1024)
        for n, (name, up) in enumerate([("Laptop", True), ("phone", False), ("tablet", False)])
    ]
    status = dataclasses.replace(STATUS, peers=tuple(peers))

    def names(wanted: str) -> list[str]:
        out = io.StringIO()
        console = Console(file=out, width=100, highlight=False)
        view = picture([status], History(), 100, 30, now=1075.4, wanted=wanted)
        console.print(view)
        shown = out.getvalue()
        if len(found := [each.name for each in peers if each.name in shown]) < len(peers):
            amount = f"{len(found)}.00 KiB" if found else "0 B"
            assert f"{len(found)} of 3 peers, all of them: {amount} in" in shown
            assert f"only {wanted!r}" in shown
        return found

    assert names("") == ["Laptop", "phone", "tablet"]
    assert names("lap") == ["Laptop"]
    assert names("t") == ["Laptop", "tablet"]
    assert names("key1") == ["phone"]
    assert names("conn") == ["Laptop"]
    assert names("disconnected") == ["phone", "tablet"]
    assert names("2001:db8::2") == names("10.77.0.2/32") == ["Laptop", "phone", "tablet"]
    assert names("nobody") == []


def test_a_filter_is_typed_like_a_search_and_its_letters_are_no_keys() -> None:
    typed = TypedFilter()
    assert typed.take(b"s/quit") == b"s"
    assert (typed.text, typed.is_typed) == ("quit", True)
    assert typed.take(b"\x7f\x7f\xc3") == b""
    assert typed.text == "qu"
    assert typed.take(b"\xa9e\n") == b""
    assert (typed.text, typed.is_typed) == ("qu\u00e9e", False)
    assert typed.take(b"\x1b[Bq") == b"\x1b[Bq"
    assert typed.text == "qu\u00e9e"
    assert typed.take(b"\x1b") == b""
    assert typed.text == ""
    assert typed.take(b"/" + b"a" * 100) == b""
    assert len(typed.text) == 64
    assert typed.take(b"\x1b[A") == b""
    assert (typed.text, typed.is_typed) == ("", False)
    assert typed.take(b"/q\x03") == b"\x03"


def test_words() -> None:
    assert [rate(v) for v in (0, 100, 125_000, 1.25e9)] == [
        "0 bit/s",
        "800 bit/s",
        "1.0 Mbit/s",
        "10.0 Gbit/s",
    ]
    assert [age(v) for v in (-1, 59, 125, 12000, 400000)] == ["0s", "59s", "2m05s", "3h20m", "4d"]


def test_sparkline() -> None:
    assert sparkline([0, 1, 2, 4], 6) == "  ▁▃▅█"
    assert sparkline([0, 0], 2) == "▁▁"
    assert sparkline([1] * 9, 3) == "███"
    assert sparkline([], 2) == "  "


def test_problems_stand_below_within_the_height() -> None:
    out = io.StringIO()
    console = Console(file=out, width=40)
    problems = ["wg1 has gone down", "wg2\x1b[2J " + "x" * 50]
    console.print(picture([STATUS], History(), 40, 10, now=1075.4, problems=problems))
    lines = out.getvalue().splitlines()
    assert lines[-3].strip() == "wg1 has gone down"
    assert "\x1b" not in out.getvalue()
    assert len(lines) <= 10
    assert max(map(len, lines)) <= 40
