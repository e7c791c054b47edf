"""What a conf means, and the exact words for what is wrong with one."""

from ipaddress import ip_address, ip_interface, ip_network

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, PRIVATE, PSK, WITH_PEER, read
from tests.support.operations import operations
from tunnel.config import (
    AllowedIP,
    ConfigErrors,
    EndpointConfig,
    PrivateKey,
    TunnelConfig,
    TunnelOptions,
)
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
    assert interface.private_key is not None
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


KEY = "must be 44 characters of base64 ending in '='"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("PrivatKey = x", ("PrivatKey is not a key of [Interface]; did you mean PrivateKey?")),
        ("Zzz = x", ("Zzz is not a key of [Interface]; check the spelling, or put # in front")),
        (
            "Endpoint = a:1",
            ("Endpoint is a key of [Peer], not of [Interface]; move the line under [Peer]"),
        ),
        (
            "ListenPort = 70000",
            (
                'ListenPort must be a port from 0 to 65535, not "70000"; write 51820, or remove '
                "the line for any free port"
            ),
        ),
        (
            "ListenPort =",
            (
                "ListenPort is empty: it must be a port from 0 to 65535; write 51820, or remove "
                "the line for any free port"
            ),
        ),
        (
            "FwMark = 0x100000000",
            (
                "FwMark must be a number from 0 to 4294967295, decimal or 0x…, or off, not "
                '"0x100000000"; write 0xca6c, or remove the line for no mark'
            ),
        ),
        (
            "Address = 10.0.0.300/24",
            (
                'Address must be an IPv4 or IPv6 address, not "10.0.0.300/24"; write it as '
                "10.0.0.1/24 or fd00::1/64"
            ),
        ),
        (
            "Address = fe80::1%eth0/64",
            (
                'Address must be an IPv4 or IPv6 address, not "fe80::1%eth0/64"; write it as '
                "10.0.0.1/24 or fd00::1/64"
            ),
        ),
        (
            "Address = 10.0.0.1/33",
            (
                "Address must have a prefix length from 0 to 32 after the slash, not "
                '"10.0.0.1/33"; write it as 10.0.0.1/24 or fd00::1/64'
            ),
        ),
        (
            "Address = 224.0.0.1/32",
            (
                'Address must be an address that a host can have, not "224.0.0.1/32"; write it as'
                " 10.0.0.1/24 or fd00::1/64, with this host's own address"
            ),
        ),
        (
            "Address = 10.0.0.1/24, 10.0.0.1/24",
            ('Address has "10.0.0.1/24" twice, the first time on line 3; remove one of the two'),
        ),
        (
            "MTU = 575",
            (
                'MTU must be a number of bytes from 576 to 65455, not "575"; remove the line to '
                "have it computed from the route to the peer"
            ),
        ),
        (
            "Table = office",
            (
                "Table must be auto, off, the number of a routing table from 1 to 4294967295, or "
                'its name, not "office"; remove the line for auto, write a number, or add the name '
                "to /etc/iproute2/rt_tables"
            ),
        ),
        (
            "DNS = 10.0.0.300",
            (
                'DNS must be the address of a DNS server or a search domain, not "10.0.0.300"; '
                "write it as 10.0.0.53, fd00::53 or corp.example; other scripts in their xn-- "
                "form"
            ),
        ),
        (
            "DNS = a$(reboot)",
            (
                'DNS must be the address of a DNS server or a search domain, not "a$(reboot)"; '
                "write it as 10.0.0.53, fd00::53 or corp.example; other scripts in their xn-- "
                "form"
            ),
        ),
        (
            "SaveConfig = 1",
            ('SaveConfig must be true or false, not "1"; write true, or remove the line for false'),
        ),
        (
            "PostUp = a\x1b[2J",
            (
                'PostUp must be a shell command without control characters, not "a\\x1b[2J"; put '
                "the command into a script and call that"
            ),
        ),
        (
            "#! tunnel: Datapath = rust",
            ('Datapath must be auto, python or native, not "rust"; remove the line for auto'),
        ),
        (
            "#! tunnel: UdpGso = maybe",
            (
                'UdpGso must be on or off, not "maybe"; write on or off, or remove the line for '
                "the default"
            ),
        ),
        (
            "#! tunnel Datapath = python",
            (
                'a line that begins with "#! tunnel" must be "#! tunnel: Key = value"; write it '
                "so, or remove the '!' to make it a comment"
            ),
        ),
        (
            PRIVATE[:20],
            (
                "this line (not shown) has no '=': it must be Key = value, [Section] or # "
                "comment; add what is missing, or put # in front"
            ),
        ),
        (
            PRIVATE,
            (
                "a name of unusual form (not shown) is not a key of [Interface]; check the "
                "spelling, or put # in front"
            ),
        ),
        (
            "[Peeer]",
            (
                '"[Peeer]" is not a section: it must be [Interface], [Peer] or [Tunnel]; did you '
                "mean [Peer]?"
            ),
        ),
        (
            "[x]\nNothing = reported twice",
            (
                '"[x]" is not a section: it must be [Interface], [Peer] or [Tunnel]; check the '
                "spelling"
            ),
        ),
        (
            "[Peer]",
            ("[Peer] has no PublicKey; add the key that `tunnel pubkey` printed on the peer"),
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
            (
                'Endpoint must be host:port, not "vpn.example.com"; add the port, as in '
                "vpn.example.com:51820"
            ),
        ),
        (
            "Endpoint = vpn.example.com:0",
            (
                'Endpoint must be host:port with a port from 1 to 65535, not "vpn.example.com:0";'
                " WireGuard's usual port is 51820"
            ),
        ),
        (
            "Endpoint = 10.0.0:51820",
            (
                'Endpoint must be host:port, not "10.0.0:51820"; an IPv4 address has four numbers'
                " up to 255, as in 192.0.2.1:51820"
            ),
        ),
        (
            "Endpoint = 2001:db8::",
            (
                'Endpoint must be host:port, not "2001:db8::"; write an IPv6 endpoint as '
                "[fd00::1]:51820"
            ),
        ),
        (
            "Endpoint = [vpn.example.com]:51820",
            ('Endpoint has brackets that do not belong there; write "vpn.example.com:51820"'),
        ),
        (
            "Endpoint = [fd00::1]",
            (
                'Endpoint must be host:port, not "[fd00::1]"; write an IPv6 endpoint as '
                "[fd00::1]:51820"
            ),
        ),
        (
            "Endpoint = a$b:51820",
            (
                'Endpoint must be host:port, not "a$b:51820"; a host name has letters, digits, '
                "'-' and '.'; write other scripts in their xn-- form"
            ),
        ),
        *(
            (
                f"Endpoint = {nobody}:51820",
                f'Endpoint must be the address of one host, not "{nobody}:51820"; write the '
                "address or name at which the peer is reached, or remove Endpoint if the peer "
                "sends the first message",
            )
            for nobody in ("0.0.0.0", "[::]", "[::ffff:0.0.0.0]", "224.0.0.1", "255.255.255.255")
        ),
        ("AllowedIPs = 10.0.0.0/8,", ("AllowedIPs has an empty entry; remove the extra comma")),
        (
            "AllowedIPs = 10.0.0.0/255.0.0.0",
            (
                "AllowedIPs must have a prefix length from 0 to 32 after the slash, not "
                '"10.0.0.0/255.0.0.0"; wg takes no netmask here: write 10.0.0.0/8'
            ),
        ),
        (
            "AllowedIPs = lan",
            (
                'AllowedIPs must be IPv4 or IPv6 networks, not "lan"; write 10.0.0.0/24 or '
                "fd00::/64, with commas between"
            ),
        ),
        (
            "PersistentKeepalive = 65536",
            (
                "PersistentKeepalive must be a number of seconds from 0 to 65535, or off, not "
                '"65536"; write 25 if the peer must reach this host through NAT, otherwise remove'
                " the line"
            ),
        ),
        (
            f"PresharedKey = {PSK[:-2]}",
            (
                "PresharedKey must be 44 characters of base64 ending in '=', not 42 characters "
                "(not shown); paste the key that `tunnel genpsk` printed, the same on both sides"
            ),
        ),
        (
            "MTU = 1400",
            ("MTU is a key of [Interface], not of [Peer]; move the line under [Interface]"),
        ),
        ("AllowedIP = ::/0", ("AllowedIP is not a key of [Peer]; did you mean AllowedIPs?")),
        (
            f"[Peer]\nPublicKey = {PEER}",
            (
                "PublicKey is the same as on line 4: a peer may have one section only; merge the "
                "two sections"
            ),
        ),
    ],
)
def test_mistakes_under_peer(line: str, message: str) -> None:
    number = 4 + len(line.splitlines())
    assert errors_of(f"{WITH_PEER}{line}\n") == [f"peer.conf:{number}: {message}"]


def test_a_conf_without_a_private_key() -> None:
    wanted = (
        "[Interface] has no PrivateKey and no PrivateKeyFile; "
        "create a key with `tunnel genkey` and add it"
    )
    assert errors_of("# a comment") == [
        "peer.conf: there is no section [Interface]; "
        "put [Interface] on a line of its own above this host's keys"
    ]
    assert errors_of(" \n") == [
        "peer.conf: the conf is empty; begin it with [Interface] and PrivateKey"
    ]
    assert errors_of("\n[Interface]\n") == [f"peer.conf:2: {wanted}"]


def test_broken_private_keys_are_not_shown() -> None:
    paste = "paste the key that `tunnel genkey` printed"
    assert errors_of(f"[Interface]\nPrivateKey = {PRIVATE[1:]}\n") == [
        f"peer.conf:2: PrivateKey {KEY}, not 43 characters (not shown); {paste}"
    ]
    assert errors_of(f"[Interface]\nPrivateKey = {'A' * 43}=\n") == [
        f"peer.conf:2: PrivateKey is the all-zero key, which is not a private key; {paste}"
    ]


def test_our_own_key_as_a_peer() -> None:
    own = PrivateKey.from_base64(PRIVATE).public_key().to_base64()
    assert errors_of(f"{INTERFACE}[Peer]\nPublicKey = {own}\n") == [
        "peer.conf:4: PublicKey is this host's own: it must be the public key of the other side; "
        "run `tunnel pubkey` with the peer's private key, not with this host's"
    ]


REMEDY = "raise MTU to 1280, or take IPv6 out of Address and AllowedIPs"
FOUR_ALONE = "MTU is 1279, and IPv6 needs at least 1280: the tunnel has IPv4 only"


def test_ipv6_addresses_need_their_mtu() -> None:
    """As with wg-quick, the tunnel has IPv4 then."""
    text = f"{INTERFACE}Address = 10.0.0.1/24, fd00::1/64\nMTU = 1279\n"
    assert warnings_of(read(text)) == [f"peer.conf:4: {FOUR_ALONE}; {REMEDY}"]
    covered = f"{text}[Peer]\nPublicKey = {PEER}\nAllowedIPs = fd00::2/128\n"
    assert warnings_of(read(covered)) == [f"peer.conf:4: {FOUR_ALONE}; {REMEDY}"]
    for fine in ("Address = fd00::1/64\nMTU = 1280\n", "Address = 10.0.0.1/24\nMTU = 1279\n"):
        assert warnings_of(read(INTERFACE + fine)) == []


def test_ipv6_routes_need_their_mtu() -> None:
    """Left out, what they are meant for would leave in clear."""
    text = f"{INTERFACE}MTU = 1279\n%s[Peer]\nPublicKey = {PEER}\nAllowedIPs = ::/0\n"
    for table in ("", "Table = 7\n"):
        assert errors_of(text % table) == [
            f"peer.conf:3: MTU is 1279, but a route to ::/0 needs at least 1280; {REMEDY}"
        ]
    assert warnings_of(read(text % "Table = off\n")) == [f"peer.conf:3: {FOUR_ALONE}; {REMEDY}"]


def test_a_key_before_the_first_section() -> None:
    assert errors_of(f"MTU = 1400\n{INTERFACE}") == [
        "peer.conf:1: MTU stands before the first section; "
        "put [Interface] or [Peer] on a line of its own above it"
    ]


def test_a_nul_character() -> None:
    assert errors_of(f"{INTERFACE}PostUp = a\0b\n") == [
        "peer.conf:3: this line has a NUL character, which no text has; "
        "check that this file is a conf at all"
    ]


def test_every_mistake_is_reported_in_the_order_of_the_lines() -> None:
    lines = errors_of(
        "[Interface]\nMTU = x\nPrivateKey = x\nBad\n[Peer]\nEndpoint = x\n"
        f"[Peer]\nPublicKey = {PEER}\nListenPort = 5\n"
    )
    assert [line.split(":")[1] for line in lines] == ["2", "3", "4", "5", "6", "9"]


def test_of_very_many_mistakes_the_first_hundred_are_reported() -> None:
    lines = errors_of(INTERFACE + "Nope = 1\n" * 1000)
    assert len(lines) == 101
    assert lines[-1] == "… and 900 more"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "AllowedIPs = 10.0.0.5/24",
            (
                '5: AllowedIPs has host bits set in "10.0.0.5/24"; it is taken as 10.0.0.0/24: '
                "write that"
            ),
        ),
        (
            "Endpoint = fd00::1:51820",
            (
                '5: Endpoint has an IPv6 address without brackets, "fd00::1:51820"; it is taken '
                "as [fd00::1]:51820: write that"
            ),
        ),
        (
            "PersistentKeepalive = 5\nPersistentKeepalive = 6",
            (
                "6: PersistentKeepalive is already set on line 5, and only the last counts; "
                "remove the others"
            ),
        ),
        (
            f"AllowedIPs = ::/0\n[Peer]\nPublicKey = {OTHER}\nAllowedIPs = ::/0",
            (
                "7: AllowedIPs has ::/0, which the peer of line 4 has too; the last peer, this "
                "one, gets it: remove it from one of them"
            ),
        ),
        ("[Interface]\nTable =", ("6: Table is empty; remove the line, or add a value")),
        ("[Interface]\nDNS = ,", ("6: DNS is empty; remove the line, or add a value")),
    ],
)
def test_doubts_are_warnings(line: str, message: str) -> None:
    assert warnings_of(read(f"{WITH_PEER}{line}\n")) == [f"peer.conf:{message}"]


def test_empty_hooks_of_generated_confs_are_no_matter() -> None:
    config = read(f"{INTERFACE}PreUp =\nPostUp =\nPreDown =\nPostDown =\n")
    assert config.warnings == ()
    assert config.interface.post_up == ()


def test_the_last_of_several_values_counts() -> None:
    config = read(f"{INTERFACE}MTU = 1300\nMTU = 1400\n")
    assert config.interface.mtu == 1400


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "x" * 16, "naïve", "a\n"])
def test_names_no_interface_can_have(name: str) -> None:
    with pytest.raises(
        ConfigErrors, match=r"interface (must be|is empty: it must be|has at most) 1"
    ):
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
    assert "unix, off or ADDRESS:PORT" in problem.fault


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


@pytest.mark.parametrize("hook", ["PreUp", "PostUp"])
def test_private_key_may_be_left_to_a_hook(hook: str) -> None:
    config = read(f"[Interface]\n{hook} = wg set %i private-key <(pass %i)\n")
    assert config.interface.private_key is None
    assert config.warnings == ()


@pytest.mark.parametrize("line", ["", "PostUp =", "PreDown = wg set %i private-key key"])
def test_private_key_is_required_where_no_hook_can_set_it(line: str) -> None:
    (error,) = errors_of(f"[Interface]\n{line}\n")
    assert "[Interface] has no PrivateKey and no PrivateKeyFile" in error


def test_continued_hook_is_one_error_that_names_continuation() -> None:
    text = (
        "PostUp = iptables -I OUTPUT ! -o %i \\\n"
        "         -m mark ! --mark $(wg show %i fwmark) \\ \r\n"
        "         --dst-type=LOCAL -j REJECT\n"
        "Adress = 10.0.0.1/24\n"
    )
    continued, other = errors_of(f"{INTERFACE}{text}")
    assert continued == (
        "peer.conf:3: PostUp ends in a backslash, but a line of a conf cannot be continued on the "
        "next one; write the whole command on one line, or put it into a script and call that"
    )
    assert "Adress is not a key" in other


def test_escaped_backslash_at_the_end_of_a_hook_continues_nothing() -> None:
    interface = read(f"{INTERFACE}PostUp = echo \\\\\nMTU = 1400\n").interface
    assert (interface.post_up, interface.mtu) == (("echo \\\\",), 1400)
