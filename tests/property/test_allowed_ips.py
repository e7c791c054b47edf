"""The longest prefix match against an oracle that looks at every prefix there is."""

import random
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.operations import Operations
from tunnel.protocol import AllowedIPs, Network, pack

PEERS = "abcde"


class Oracle:
    """A list of prefixes; slow and obvious."""

    def __init__(self) -> None:
        self.owners: dict[Network, str] = {}

    def insert(self, network: Network, peer: str) -> None:
        self.owners[network] = peer

    def remove(self, network: Network, peer: str) -> bool:
        if self.owners.get(network) != peer:
            return False
        del self.owners[network]
        return True

    def remove_peer(self, peer: str) -> int:
        mine = self.of(peer)
        for network in mine:
            del self.owners[network]
        return len(mine)

    def of(self, peer: str) -> list[Network]:
        mine = [network for network, owner in self.owners.items() if owner == peer]
        return sorted(mine, key=lambda n: (n.version, int(n.network_address), n.prefixlen))

    def lookup(self, address: bytes) -> str | None:
        where = ip_address(address)
        covering = [n for n in self.owners if n.version == where.version and where in n]
        longest = max(covering, key=lambda n: n.prefixlen, default=None)
        return None if longest is None else self.owners[longest]


# Few distinct bits, so that prefixes nest and collide.
v4_bytes = st.lists(st.sampled_from([0, 1, 10, 128, 255]), min_size=4, max_size=4).map(bytes)
v6_bytes = st.lists(st.sampled_from([0, 1, 0xFD, 0xFF]), min_size=16, max_size=16).map(bytes)
networks: st.SearchStrategy[Network] = st.one_of(
    st.builds(lambda a, n: IPv4Network((a, n), strict=False), v4_bytes, st.integers(0, 32)),
    st.builds(lambda a, n: IPv6Network((a, n), strict=False), v6_bytes, st.integers(0, 128)),
)
peers = st.sampled_from(PEERS)
changes = st.one_of(
    st.tuples(st.just("insert"), networks, peers),
    st.tuples(st.just("remove"), networks, peers),
    st.tuples(st.just("remove_peer"), networks, peers),
    st.tuples(st.just("remove_known"), st.integers(0, 100), peers),
)


@given(st.lists(changes, max_size=40), st.lists(st.one_of(v4_bytes, v6_bytes), max_size=20))
@settings(max_examples=300, deadline=None)
def test_agrees_with_the_oracle(
    history: list[tuple[str, Network | int, str]], addresses: list[bytes]
) -> None:
    fast: AllowedIPs[str] = AllowedIPs()
    slow = Oracle()
    for what, network, peer in history:
        if isinstance(network, int):
            if not slow.owners:
                continue
            network, peer = list(slow.owners.items())[network % len(slow.owners)]
            what = "remove"
        if what == "insert":
            fast.insert(network, peer)
            slow.insert(network, peer)
        elif what == "remove":
            assert fast.remove(network, peer) == slow.remove(network, peer)
        else:
            assert fast.remove_peer(peer) == slow.remove_peer(peer)
        # In between, so that what is remembered must be forgotten again.
        for address in addresses[:5]:
            assert fast.lookup(address) == slow.lookup(address)
    for address in addresses:
        assert fast.lookup(address) == slow.lookup(address)
        assert fast.lookup(address) == slow.lookup(address)
    assert len(fast) == len(slow.owners)
    for peer in PEERS:
        assert fast.of(peer) == slow.of(peer)
        assert fast.count_of(peer) == len(slow.of(peer))
        for network, owner in slow.owners.items():
            packed = pack(network.version, int(network.network_address), network.prefixlen)
            assert fast.has_packed(packed, peer) == (owner == peer)
    for peer in PEERS:
        fast.remove_peer(peer)
    assert not len(fast)
    for address in addresses:
        assert fast.lookup(address) is None


@pytest.mark.parametrize("seed", range(3))
def test_networks_come_back_in_the_order_they_came(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunnel.protocol.allowed_ips._PART", 3)
    draw = random.Random(seed)
    allowed: AllowedIPs[str] = AllowedIPs()
    order: dict[str, dict[int, None]] = {"a": {}, "b": {}}
    for _ in range(600):
        peer, other = draw.sample("ab", 2)
        network = pack(4, draw.randrange(40) << 24, 8)
        if draw.random() < 0.6:
            allowed.insert_packed(network, peer)
            order[other].pop(network, None)
            order[peer][network] = None
        else:
            assert allowed.remove_packed(network, peer) == (network in order[peer])
            order[peer].pop(network, None)
        for name, networks in order.items():
            assert list(allowed.packed_of(name)) == list(networks)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_the_oracle_on_many_prefixes(seed: int) -> None:
    draw = random.Random(seed)
    fast: AllowedIPs[str] = AllowedIPs()
    slow = Oracle()
    for _ in range(400):
        version = draw.choice((4, 6))
        length = draw.randrange(33 if version == 4 else 129)
        raw = draw.randbytes(4 if version == 4 else 16)
        if draw.random() < 0.5:
            raw = raw[:1] + bytes(len(raw) - 1)
        network = ip_network((raw, length), strict=False)
        peer = draw.choice(PEERS)
        fast.insert(network, peer)
        slow.insert(network, peer)
    for _ in range(300):
        base = draw.choice(list(slow.owners))
        offset = draw.getrandbits(base.max_prefixlen - base.prefixlen)
        address = (base.network_address + offset).packed
        assert fast.lookup(address) == slow.lookup(address)


def test_families_do_not_mix() -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    allowed.insert(ip_network("0.0.0.0/0"), "a")
    assert allowed.lookup(IPv4Address("198.51.100.7").packed) == "a"
    assert allowed.lookup(IPv6Address("::ffff:198.51.100.7").packed) is None
    allowed.insert(ip_network("::/0"), "b")
    assert allowed.lookup(IPv6Address("2001:db8::1").packed) == "b"


def test_bytes_of_no_address_belong_to_nobody() -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    allowed.insert(ip_network("0.0.0.0/0"), "a")
    allowed.insert(ip_network("::/0"), "a")
    for length in (0, 3, 5, 15, 17):
        assert allowed.lookup(bytes(length)) is None


def test_moving_a_prefix_leaves_the_first_peer_the_rest() -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    allowed.insert(ip_network("10.0.0.0/8"), "a")
    allowed.insert(ip_network("10.1.0.0/16"), "a")
    allowed.insert(ip_network("10.1.0.0/16"), "b")
    assert allowed.of("a") == [ip_network("10.0.0.0/8")]
    assert allowed.of("b") == [ip_network("10.1.0.0/16")]
    assert allowed.lookup(IPv4Address("10.1.2.3").packed) == "b"
    assert not allowed.remove(ip_network("10.1.0.0/16"), "a")
    assert allowed.remove(ip_network("10.1.0.0/16"), "b")
    assert allowed.lookup(IPv4Address("10.1.2.3").packed) == "a"


def test_memory_of_answers_is_bounded() -> None:
    allowed: AllowedIPs[str] = AllowedIPs()
    allowed.insert(ip_network("10.0.0.0/8"), "a")
    for number in range(20_000):
        allowed.lookup((0x0A000000 + number).to_bytes(4, "big"))
    assert len(allowed._cache) <= 4096


def test_a_hundred_thousand_prefixes() -> None:
    draw = random.Random(1)
    v4 = [IPv4Network((draw.getrandbits(24) << 8, 24)) for _ in range(50_000)]
    v6 = [IPv6Network((draw.getrandbits(48) << 80, 48)) for _ in range(50_000)]
    allowed: AllowedIPs[str] = AllowedIPs()
    loads: list[Iterable[Network]] = [v4, v6]
    with Operations() as loading:
        for load in loads:
            for number, network in enumerate(load):
                allowed.insert(network, PEERS[number % 5])
    addresses = [network.network_address.packed for network in (v4 + v6)[::7]]
    with Operations() as searching:
        for address in addresses:
            allowed.lookup(address)
    # Calls for one network and for one address: what grows with the table would show.
    assert loading.count / 100_000 < 40
    assert searching.count / len(addresses) < 40
    assert len(allowed) == len(set(v4)) + len(set(v6))
