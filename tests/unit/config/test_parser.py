"""What a conf means, and the exact words for what is wrong with one."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, PRIVATE, PSK, WITH_PEER, read
from tests.support.operations import operations
from tunnel.config import AllowedIP, ConfigErrors, EndpointConfig, TunnelConfig, TunnelOptions
from tunnel.config import parse as parse_conf


def errors_of(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return str(caught.value).splitlines()


def warnings_of(config: TunnelConfig) -> list[str]:
    return [str(warning) for warning in config.warnings]


def test_the_least_conf_has_every_default() -> None:
    config = read(INTERFACE)
    interface = config.interface
    assert (config.name, config.path, config.peers, config.warnings) == ("office", None, (), ())
    assert interface.private_key.to_base64() == PRIVATE
    assert (interface.listen_port, interface.fwmark, interface.mtu) == (0, 0, None)
    assert (interface.addresses, interface.dns, interface.dns_search) == ((), (), ())
    assert (interface.table, interface.save_config) == ("auto", False)
    assert interface.options == TunnelOptions()


def test_values_of_an_interface() -> None:
    interface = read(
        f"{INTERFACE}Address = 10.0.0.5/24,fd00::5/64 10.1.1.1\nTable = off\nFwMark = off\n"
        "DNS = 1.1.1.1,~. fd00::53 corp.example\nSaveConfig = true\nMTU =\n"
    ).interface
    expected = (ip_interface("10.0.0.5/24"), ip_interface("fd00::5/64"), ip_interface("10.1.1.1"))
    assert interface.addresses == expected
    assert (interface.table, interface.fwmark, interface.save_config) == ("off", 0, True)
    assert interface.dns == (ip_address("1.1.1.1"), ip_address("fd00::53"))
    assert interface.dns_search == ("~.", "corp.example")


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("auto", "auto"), ("OFF", "off"), ("7", 7), ("0x10", 16), ("main", 254), ("", "auto")],
)
def test_tables(text: str, meaning: str | int) -> None:
    assert read(f"{INTERFACE}Table = {text}\n").interface.table == meaning


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1:51820", "192.0.2.1", 51820),
        ("[2001:db8::1]:1", "2001:db8::1", 1),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
        ("vpn.example.com:51820", "vpn.example.com", 51820),
        ("vpn.example.com.:51820", "vpn.example.com.", 51820),
        ("my_host-1 : 51820", "my_host-1", 51820),
        ("2001:db8::1:51820", "2001:db8::1", 51820),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    config = read(f"{WITH_PEER}Endpoint = {text}\n")
    assert config.peers[0].endpoint == EndpointConfig(host, port)


def test_an_endpoint_knows_whether_it_is_an_address() -> None:
    assert EndpointConfig("192.0.2.1", 5).address == ip_address("192.0.2.1")
    assert EndpointConfig("fe80::1%eth0", 5).address == ip_address("fe80::1%eth0")
    assert EndpointConfig("vpn.example.com", 5).address is None
    assert str(EndpointConfig("fe80::1%eth0", 5)) == "[fe80::1%eth0]:5"
    assert str(EndpointConfig("vpn.example.com", 5)) == "vpn.example.com:5"


def test_modifiers_of_allowed_ips() -> None:
    peer = read(f"{WITH_PEER}AllowedIPs = 10.0.0.0/8, +fd00::/64\nAllowedIPs=-10.0.0.0/8\n").peers[
        0
    ]
    assert peer.allowed_ips == (
        AllowedIP(ip_network("10.0.0.0/8")),
        AllowedIP(ip_network("fd00::/64"), "+"),
        AllowedIP(ip_network("10.0.0.0/8"), "-"),
    )
    assert peer.networks == (ip_network("fd00::/64"),)


def test_empty_and_zero_values_that_wg_takes() -> None:
    peer = read(
        f"{WITH_PEER}AllowedIPs =\nPersistentKeepalive = OFF\nPresharedKey = {'A' * 43}=\n"
    ).peers[0]
    assert (peer.allowed_ips, peer.persistent_keepalive, peer.preshared_key) == ((), 0, None)


def test_options_in_both_spellings() -> None:
    options = read(
        f"#!tunnel:Datapath=native\n{INTERFACE}  #! Tunnel: UdpGso = off # for the old NIC\n"
        "[Tunnel]\nTunTso = off\n#! tunnels have no options, this is talk\n"
    ).interface.options
    assert options == TunnelOptions(datapath="native", udp_gso=False, tun_tso=False)
    assert (options.use_gso, options.use_gro, options.use_tso, options.use_uso) == (
        False,
        True,
        False,
        True,
    )


def test_a_byte_order_mark_and_carriage_returns_do_no_harm() -> None:
    config = read("\ufeff" + f"{INTERFACE}PostUp = echo x\n".replace("\n", "\r\n"))
    assert config.interface.post_up == ("echo x",)


def test_secrets_are_not_in_the_repr() -> None:
    config = read(f"{WITH_PEER}PresharedKey = {PSK}\n")
    assert PRIVATE not in repr(config)
    assert PSK not in repr(config)


KEY = "44 characters of base64 ending in '='"
NETWORK = "an IPv4 or IPv6 network; write it as 10.0.0.0/24 or fd00::/64, with commas between"
ADDRESS = "an IPv4 or IPv6 address; write it as 10.0.0.1/24 or fd00::1/64"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "PrivatKey = x",
            "PrivatKey: found a key that does not exist, expected a key of [Interface]; "
            "did you mean PrivateKey?",
        ),
        (
            "Zzz = x",
            "Zzz: found a key that does not exist, expected a key of [Interface]; "
            "check the spelling, or put # in front",
        ),
        (
            "Endpoint = a:1",
            "Endpoint: found a key of [Peer] under [Interface], expected a key of [Interface]; "
            "move the line under [Peer]",
        ),
        (
            "ListenPort = 70000",
            'ListenPort: found "70000", expected a port from 0 to 65535; '
            "write 51820, or leave the line out for any port",
        ),
        (
            "ListenPort =",
            "ListenPort: found nothing, expected a port from 0 to 65535; "
            "write 51820, or leave the line out for any port",
        ),
        (
            "FwMark = 0x100000000",
            'FwMark: found "0x100000000", expected a number from 0 to 4294967295, also as 0x…, '
            "or off; write 0xca6c, or leave the line out for no mark",
        ),
        ("Address = 10.0.0.300/24", f'Address: found "10.0.0.300/24", expected {ADDRESS}'),
        ("Address = fe80::1%eth0/64", f'Address: found "fe80::1%eth0/64", expected {ADDRESS}'),
        (
            "Address = 10.0.0.1/33",
            'Address: found "10.0.0.1/33", expected a prefix length from 0 to 32 after the slash; '
            "write it as 10.0.0.1/24 or fd00::1/64",
        ),
        (
            "Address = 224.0.0.1/32",
            'Address: found "224.0.0.1/32", expected an address that a host can have; '
            "write it as 10.0.0.1/24 or fd00::1/64, with this host's own address",
        ),
        (
            "Address = 10.0.0.1/24, 10.0.0.1/24",
            'Address: found "10.0.0.1/24" a second time, the first is on line 3, '
            "expected every address once; remove one of the two",
        ),
        (
            "MTU = 575",
            'MTU: found "575", expected a number of bytes from 576 to 65455; '
            "leave the line out to have it computed from the route to the peer",
        ),
        (
            "Table = office",
            'Table: found "office", expected auto, off, or the number of a routing table from 1 '
            "to 4294967295; leave the line out for auto; names of /etc/iproute2/rt_tables are "
            "not read, write the number",
        ),
        (
            "DNS = 10.0.0.300",
            'DNS: found "10.0.0.300", expected the address of a DNS server, or a search domain; '
            "write it as 10.0.0.53 or fd00::53",
        ),
        (
            "DNS = a$(reboot)",
            'DNS: found "a$(reboot)", expected the address of a DNS server, or a search domain; '
            "write it as 10.0.0.53, fd00::53 or corp.example; other scripts in their xn-- form",
        ),
        ("SaveConfig = 1", 'SaveConfig: found "1", expected true or false; write one of the two'),
        (
            "PostUp = a\x1b[2J",
            r'PostUp: found "a\x1b[2J", expected a shell command without control characters; '
            "put it into a script and call that",
        ),
        (
            "#! tunnel: Datapath = rust",
            'Datapath: found "rust", expected auto, python or native; leave the line out for auto',
        ),
        (
            "#! tunnel: UdpGso = no",
            'UdpGso: found "no", expected on or off; write one of the two; on is the default',
        ),
        (
            "#! tunnel Datapath = python",
            '#! tunnel: found a line of another form, expected "#! tunnel: Key = value"; '
            "write it so, or as a comment without '!'",
        ),
        (
            PRIVATE[:20],
            "found a line without '=' (not shown), expected Key = value, [Section] or # comment; "
            "add what is missing, or put # in front",
        ),
        (
            PRIVATE,
            "(a key of unusual form, not shown): found a key that does not exist, "
            "expected a key of [Interface]; check the spelling, or put # in front",
        ),
        (
            "[Peeer]",
            'found section "[Peeer]", expected [Interface], [Peer] or [Tunnel]; '
            "did you mean [Peer]?",
        ),
        (
            "[x]\nNothing = reported twice",
            'found section "[x]", expected [Interface], [Peer] or [Tunnel]; check the spelling',
        ),
        (
            "[Peer]",
            "PublicKey: found nothing, expected a PublicKey under this [Peer]; "
            "add the key that `tunnel pubkey` printed on the peer",
        ),
    ],
)
def test_mistakes_under_interface(line: str, message: str) -> None:
    assert errors_of(f"{INTERFACE}{line}\n") == [f"peer.conf:3: {message}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "Endpoint = vpn.example.com",
            'Endpoint: found "vpn.example.com", expected host:port; '
            "add the port, as in vpn.example.com:51820",
        ),
        (
            "Endpoint = vpn.example.com:0",
            'Endpoint: found "vpn.example.com:0", expected host:port with a port from 1 to 65535; '
            "WireGuard's usual port is 51820",
        ),
        (
            "Endpoint = 10.0.0:51820",
            'Endpoint: found "10.0.0:51820", expected host:port; '
            "an IPv4 address has four numbers up to 255, as 192.0.2.1:51820",
        ),
        (
            "Endpoint = 2001:db8::",
            'Endpoint: found "2001:db8::", expected host:port; '
            "write an IPv6 endpoint as [fd00::1]:51820",
        ),
        (
            "Endpoint = [vpn.example.com]:51820",
            'Endpoint: found "[vpn.example.com]:51820", expected host:port; '
            "between the brackets stands an IPv6 address, as [fd00::1]",
        ),
        (
            "Endpoint = [fd00::1]",
            'Endpoint: found "[fd00::1]", expected host:port; '
            "write an IPv6 endpoint as [fd00::1]:51820",
        ),
        (
            "Endpoint = a$b:51820",
            'Endpoint: found "a$b:51820", expected host:port; '
            "a host name has letters, digits, '-' and '.'; write other scripts in their xn-- form",
        ),
        ("AllowedIPs = 10.0.0.0/8,", f"AllowedIPs: found nothing, expected {NETWORK}"),
        (
            "AllowedIPs = 10.0.0.0/255.0.0.0",
            'AllowedIPs: found "10.0.0.0/255.0.0.0", expected a prefix length from 0 to 32 after '
            "the slash; write it as 10.0.0.0/24 or fd00::/64, with commas between",
        ),
        ("AllowedIPs = any", f'AllowedIPs: found "any", expected {NETWORK}'),
        (
            "PersistentKeepalive = 65536",
            'PersistentKeepalive: found "65536", expected seconds from 1 to 65535, or off; '
            "write 25 if the peer must reach you through NAT, else leave the line out",
        ),
        (
            f"PresharedKey = {PSK[:-1]}",
            f"PresharedKey: found 43 characters (not shown), expected {KEY}; "
            "paste the key as `tunnel genpsk` printed it, the same on both sides",
        ),
        (
            "MTU = 1400",
            "MTU: found a key of [Interface] under [Peer], expected a key of [Peer]; "
            "move the line under [Interface]",
        ),
        (
            "AllowedIP = ::/0",
            "AllowedIP: found a key that does not exist, expected a key of [Peer]; "
            "did you mean AllowedIPs?",
        ),
        (
            f"[Peer]\nPublicKey = {PEER}",
            "PublicKey: found a peer that line 4 has already, expected every peer once; "
            "join the two sections",
        ),
    ],
)
def test_mistakes_under_peer(line: str, message: str) -> None:
    number = 4 + len(line.splitlines())
    assert errors_of(f"{WITH_PEER}{line}\n") == [f"peer.conf:{number}: {message}"]


def test_a_conf_without_a_private_key() -> None:
    wanted = (
        "PrivateKey: found nothing, expected a PrivateKey or a PrivateKeyFile under [Interface]; "
        "make a key by `tunnel genkey` and add it"
    )
    assert errors_of("") == [f"peer.conf: {wanted}"]
    assert errors_of("\n[Interface]\n") == [f"peer.conf:2: {wanted}"]


def test_broken_private_keys_are_not_shown() -> None:
    paste = "paste the key as `tunnel genkey` printed it"
    assert errors_of(f"[Interface]\nPrivateKey = {PRIVATE[1:]}\n") == [
        f"peer.conf:2: PrivateKey: found 43 characters (not shown), expected {KEY}; {paste}"
    ]
    assert errors_of(f"[Interface]\nPrivateKey = {'A' * 43}=\n") == [
        "peer.conf:2: PrivateKey: found the all-zero key, which is no key, "
        f"expected a private key; {paste}"
    ]


def test_our_own_key_as_a_peer() -> None:
    own = read(INTERFACE).interface.private_key.public_key().to_base64()
    assert errors_of(f"{INTERFACE}[Peer]\nPublicKey = {own}\n") == [
        "peer.conf:4: PublicKey: found this host's own public key, expected the public key of the "
        "other side; run `tunnel pubkey` on the peer's private key, not on this one"
    ]


def test_ipv6_needs_its_mtu() -> None:
    assert errors_of(f"{INTERFACE}Address = fd00::1/64\nMTU = 1279\n") == [
        'peer.conf:4: MTU: found "1279" with an IPv6 address, expected at least 1280, which IPv6 '
        "needs; raise MTU to 1280, or remove the IPv6 address"
    ]
    read(f"{INTERFACE}Address = fd00::1/64\nMTU = 1280\n")
    read(f"{INTERFACE}Address = 10.0.0.1/24\nMTU = 1279\n")


def test_a_key_before_the_first_section() -> None:
    assert errors_of(f"MTU = 1400\n{INTERFACE}") == [
        "peer.conf:1: MTU: found a key before the first section, expected a section such as "
        "[Interface] above it; put [Interface] or [Peer] on a line of its own above"
    ]


def test_a_nul_character() -> None:
    assert errors_of(f"{INTERFACE}PostUp = a\0b\n") == [
        "peer.conf:3: found a NUL character, expected plain text; "
        "check that this file is a conf at all"
    ]


def test_every_mistake_is_reported_in_the_order_of_the_lines() -> None:
    lines = errors_of(
        "[Interface]\nMTU = x\nPrivateKey = x\nBad\n[Peer]\nEndpoint = x\n"
        f"[Peer]\nPublicKey = {PEER}\nListenPort = 5\n"
    )
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5", "6", "9"]


def test_of_very_many_mistakes_the_first_hundred_are_told() -> None:
    lines = errors_of(INTERFACE + "Nope = 1\n" * 1000)
    assert len(lines) == 101
    assert lines[-1] == "… and 900 more"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "AllowedIPs = 10.0.0.5/24",
            '5: AllowedIPs: found "10.0.0.5/24", expected a network without host bits; '
            "it is taken as 10.0.0.0/24",
        ),
        (
            "Endpoint = fd00::1:51820",
            '5: Endpoint: found "fd00::1:51820", expected an IPv6 address in brackets; '
            "it is taken as [fd00::1]:51820",
        ),
        (
            "PersistentKeepalive = 5\nPersistentKeepalive = 6",
            "6: PersistentKeepalive: found a second value, the first is on line 5, expected one; "
            "the last one counts; remove the others",
        ),
        (
            f"AllowedIPs = ::/0\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = ::/0",
            "7: AllowedIPs: found ::/0, which the peer of line 4 has too, expected every network "
            "at one peer; this peer gets it, being the last; remove it from one of them",
        ),
        (
            "AllowedIPs = ::/0\n[Interface]\nMTU = 1000",
            '7: MTU: found "1000" with IPv6 networks among AllowedIPs, expected at least 1280, '
            "which IPv6 needs; no IPv6 packet will pass",
        ),
        (
            "[Interface]\nTable =",
            "6: Table: found nothing, expected a value; remove the line, or fill it in",
        ),
        (
            "[Interface]\nDNS = ,",
            "6: DNS: found nothing, expected a value; remove the line, or fill it in",
        ),
        (
            "[Interface]\nPostUp =",
            "6: PostUp: found nothing, expected a command; remove the line, or fill it in",
        ),
    ],
)
def test_doubts_are_warnings(line: str, message: str) -> None:
    assert warnings_of(read(f"{WITH_PEER}{line}\n")) == [f"peer.conf:{message}"]


def test_the_last_of_several_values_counts() -> None:
    config = read(f"{INTERFACE}MTU = 1300\nMTU = 1400\n")
    assert config.interface.mtu == 1400


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 16, "naïve", "a\n"])
def test_names_no_interface_can_have(name: str) -> None:
    with pytest.raises(ConfigErrors, match="expected an interface name of 1 to 15 letters"):
        parse_conf(INTERFACE, name=name)


def test_a_key_in_the_wrong_place_is_not_echoed() -> None:
    text = f"{INTERFACE}Table = {PRIVATE}\nMTU = {PRIVATE}\nDNS = {PRIVATE}\n{PRIVATE}=1\n"
    text += f"[{PRIVATE}]\n[Peer]\nEndpoint = {PRIVATE}\nPresharedKeyFile = {PRIVATE}\n"
    assert PRIVATE[:12] not in "\n".join(errors_of(text))


def test_networks_cost_the_same_each_however_many_there_are() -> None:
    def load(count: int) -> int:
        items = [f"10.{i >> 8 & 255}.{i & 255}.{i >> 16}/32" for i in range(count)]
        text = f"{WITH_PEER}AllowedIPs = {', '.join(items)}\n"
        found: list[TunnelConfig] = []
        spent = operations(lambda: found.append(read(text)))
        assert len(found[0].peers[0].networks) == count
        return spent

    assert load(80_000) < 9 * load(10_000)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("unix", "unix"),
        ("OFF", "off"),
        ("127.0.0.1:9586", "127.0.0.1:9586"),
        ("[::1]:9586", "[::1]:9586"),
    ],
)
def test_places_of_metrics(text: str, shown: str) -> None:
    for spelling in (f"[Tunnel]\nMetrics = {text}\n", f"#! tunnel: Metrics = {text}\n"):
        assert str(read(INTERFACE + spelling).interface.options.metrics) == shown


@pytest.mark.parametrize("text", ["", "9586", "localhost:9586", "1.2.3.4", "/run/x"])
def test_no_place_for_metrics(text: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        read(f"{INTERFACE}[Tunnel]\nMetrics = {text}\n")
    (problem,) = caught.value.problems
    assert (problem.line, problem.key) == (4, "Metrics")
    assert "unix, off or ADDRESS:PORT" in problem.expected


def test_friendly_names_are_those_of_comments() -> None:
    config = read(f"# friendly_name = nobody\n{WITH_PEER}#friendly_name=the roof # of B\n")
    assert config.peers[0].friendly_name == "the roof # of B"
    assert config == read(WITH_PEER)


@pytest.mark.parametrize(
    ("hook", "meant"),
    [
        ("PostUp = ip route del 10.0.0.0/24 dev %i", True),
        ("PreUp = ip -6 r flush dev %i", True),
        ("PostUp = route del -net 10.0.0.0/24", True),
        ("PostUp = ip rule add table 7; iptables -A FORWARD -i %i -j ACCEPT", False),
        ("PostDown = ip route add 10.0.0.0/24 dev eth0", False),
    ],
)
def test_hooks_that_see_to_routes_are_known(hook: str, meant: bool) -> None:
    assert read(f"{INTERFACE}{hook}\n").interface.hooks_change_routes is meant
