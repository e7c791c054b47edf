"""The switch against slow and obvious code, whatever the peers send."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.support.frames import BROADCAST, mac, of_ipv4
from tunnel.switch import AGEING_TIME, LOOKED_AT, EthernetSwitch, Frame, SwitchDrop
from tunnel.switch.mac_table import REFRESH, MacTable

PEERS = "abcd"
ROOM = 4
Step = tuple[str, int, str, float]


@st.composite
def steps(draw: DrawFn) -> list[Step]:
    """What happens to an address (by number), at a peer, so many seconds after the last step."""
    kinds = st.sampled_from(("learn", "learn", "learn", "lookup", "forget", "forget_peer"))
    times = st.sampled_from((0.0, REFRESH / 4, REFRESH, 40.0, AGEING_TIME))
    return draw(
        st.lists(st.tuples(kinds, st.integers(0, 7), st.sampled_from(PEERS), times), max_size=80)
    )


@given(steps())
def test_a_table_is_what_a_list_of_sightings_says(made: list[Step]) -> None:
    """The same answers as of a list of (address, peer, time), and never more than the room."""
    table: MacTable[str] = MacTable()
    seen: list[tuple[bytes, str, float]] = []
    now = 0.0
    for kind, number, peer, later in made:
        now += later
        address = mac(number)
        known = next(((at, when) for each, at, when in seen if each == address), None)
        if kind == "learn":
            table.learn(address, peer, now, ROOM)
            if known is None or known[0] != peer or now - known[1] >= REFRESH:
                seen = [entry for entry in seen if entry[0] != address]
                seen.append((address, peer, now))
                if known is None or known[0] != peer:
                    mine = [entry for entry in seen if entry[1] == peer]
                    old = [entry for entry in mine if entry[2] + AGEING_TIME <= now]
                    gone = mine[: max(0, len(mine) - ROOM, len(old))]
                    seen = [entry for entry in seen if entry not in gone]
        elif kind == "lookup":
            is_young = known is not None and known[1] + AGEING_TIME > now
            assert table.lookup(address, now) == (known[0] if known and is_young else None)
            if known and not is_young:
                seen = [entry for entry in seen if entry[0] != address]
        elif kind == "forget":
            table.forget(address)
            seen = [entry for entry in seen if entry[0] != address]
        else:
            table.forget_peer(peer)
            seen = [entry for entry in seen if entry[1] != peer]
        for each in PEERS:
            assert sum(entry[1] == each for entry in seen) <= ROOM
        assert len(table) == len(seen)
    for each in PEERS:
        young = [entry for entry in seen if entry[1] == each and entry[2] + AGEING_TIME > now]
        assert table.count_of(each, now) == len(young)


@given(
    st.lists(st.tuples(st.sampled_from(PEERS), st.integers(0, 9), st.integers(0, 3)), max_size=40),
    st.integers(0, 9),
    st.sampled_from((None, *PEERS)),
)
def test_frames_go_to_peers_that_are_there_and_to_one_where_the_station_is(
    heard: list[tuple[str, int, int]], number: int, removed: str | None
) -> None:
    peers = dict.fromkeys(PEERS)
    switch: EthernetSwitch[str] = EthernetSwitch(
        peers=lambda: peers, owner=lambda _: None, is_bound=lambda _: False
    )
    places: dict[tuple[int, int], str] = {}
    for peer, station, vlan in heard:
        frame = of_ipv4(mac(station), BROADCAST, ("10.0.0.1", "10.0.0.2"), vlan)
        assert switch.receive(peer, frame, 0.0) is None
        places[station, vlan] = peer
    if removed:
        del peers[removed]
        switch.forget(removed)
        places = {place: peer for place, peer in places.items() if peer != removed}
    for vlan in range(4):
        frame = of_ipv4(mac(99), mac(number), ("10.0.0.1", "10.0.0.2"), vlan)
        place = places.get((number, vlan))
        expected = [place] if place else list(peers)
        assert list(switch.destinations(frame, 0.0)) == expected


@given(st.binary(min_size=14, max_size=LOOKED_AT), st.booleans(), st.booleans())
@settings(max_examples=500)
def test_any_bytes_are_judged(data: bytes, tagged: bool, bound: bool) -> None:
    """Nothing raises; and what a bound peer may send claims no address that is not its own."""
    if tagged:
        data = (data[:12] + b"\x81\0\0\7" + data[12:])[:LOOKED_AT]
    frame = Frame(data)
    switch: EthernetSwitch[str] = EthernetSwitch(
        peers=lambda: "a",
        owner=lambda address: "a" if address[0] & 1 else None,
        is_bound=lambda _: bound,
    )
    if switch.source_allowed("a", frame) and bound:
        assert frame.claims is not None
        assert all(address[0] & 1 for address in frame.claims)
    switch.receive("a", frame, 0.0)
    found = switch.destinations(frame, 0.0)
    assert isinstance(found, SwitchDrop) or list(found) == ["a"]
