"""Confs of any shape: one kind of error, round trips, comments that survive a save."""

import dataclasses
import string
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunnel.config import (
    AllowedIP,
    ConfigErrors,
    EndpointConfig,
    InterfaceConfig,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    PublicKey,
    TunnelConfig,
    TunnelOptions,
    dump,
    merge,
    parse,
    strip,
)
from tunnel.config.values import is_continued

keys32 = st.binary(min_size=32, max_size=32)
ipv4_interfaces = st.builds(
    lambda number, prefix: IPv4Interface((number, prefix)),
    st.integers(1, 0xDFFFFFFF),
    st.integers(0, 32),
)
ipv6_interfaces = st.builds(
    lambda number, prefix: IPv6Interface((number, prefix)),
    st.integers(1, (0xFE << 120) - 1),
    st.integers(0, 128),
)
interfaces = ipv4_interfaces | ipv6_interfaces
networks = st.builds(
    lambda interface: interface.network,
    st.builds(lambda n, p: IPv4Interface((n, p)), st.integers(0, 2**32 - 1), st.integers(0, 32))
    | st.builds(
        lambda n, p: IPv6Interface((n, p)), st.integers(0, 2**128 - 1), st.integers(0, 128)
    ),
)
ports = st.integers(1, 65535)
labels = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=12)
names = st.lists(labels, min_size=1, max_size=3).map(lambda parts: "x" + ".".join(parts))
hosts = interfaces.map(lambda interface: str(interface.ip)) | names
printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
hooks = (
    st.lists(printable, min_size=1, max_size=3)
    .map(" ".join)
    .filter(lambda command: not is_continued(command))
)
hook_lists = st.lists(hooks, max_size=3).map(tuple)

tunnel_options = st.builds(
    TunnelOptions,
    datapath=st.sampled_from(["auto", "python", "native"]),
    tun_offload=st.booleans(),
    tun_tso=st.booleans(),
    tun_uso=st.booleans(),
    udp_offload=st.booleans(),
    udp_gso=st.booleans(),
    udp_gro=st.booleans(),
    log_level=st.sampled_from(["debug", "info", "warning", "error"]),
    metrics=st.sampled_from(["unix", "off", EndpointConfig("::1", 9586)]),
)
interface_configs = st.builds(
    InterfaceConfig,
    private_key=keys32.map(PrivateKey.from_random),
    listen_port=st.integers(0, 65535),
    fwmark=st.integers(0, 2**32 - 1),
    addresses=st.lists(interfaces, max_size=4, unique=True).map(tuple),
    mtu=st.none() | st.integers(1280, 65455),
    table=st.sampled_from(["auto", "off"]) | st.integers(1, 2**32 - 1),
    dns_entries=st.lists(interfaces.map(lambda i: i.ip) | names, max_size=6, unique=True).map(
        tuple
    ),
    pre_up=hook_lists,
    post_up=hook_lists,
    pre_down=hook_lists,
    post_down=hook_lists,
    save_config=st.booleans(),
    options=tunnel_options,
)


def peer_configs(modifiers: list[str]) -> st.SearchStrategy[PeerConfig]:
    return st.builds(
        PeerConfig,
        public_key=keys32.map(PublicKey.from_bytes),
        preshared_key=st.none() | keys32.filter(any).map(PresharedKey.from_bytes),
        allowed_ips=st.lists(
            st.builds(AllowedIP, networks, st.sampled_from(modifiers)), max_size=12
        ).map(tuple),
        endpoint=st.none() | st.builds(EndpointConfig, hosts, ports),
        persistent_keepalive=st.integers(0, 65535),
    )


def tunnels(modifiers: list[str]) -> st.SearchStrategy[TunnelConfig]:
    return st.builds(
        TunnelConfig,
        name=st.just("office"),
        interface=interface_configs,
        peers=st.lists(
            peer_configs(modifiers), max_size=4, unique_by=lambda peer: peer.public_key
        ).map(tuple),
    )


KEY = "EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
FRAGMENTS = (
    "[Interface] [Peer] [Tunnel] [ ] = # #! #!tunnel: , / % 0x ² ٣ PrivateKey PrivateKeyFile "
    "PublicKey PresharedKey Endpoint AllowedIPs MTU Address DNS Table PostUp FwMark ListenPort "
    f"PersistentKeepalive off 10.0.0.1/24 fd00::1 {KEY}"
).split()
fragments = st.sampled_from([*FRAGMENTS, "\n", "\r", "\0", " ", "\udcfc", ";", "//", "<x>"])


def errors_of(text: str) -> str:
    """What parse says of a text, empty if it takes it; anything but ConfigErrors passes through."""
    try:
        parse(text, name="office", folder="/nonexistent")
    except ConfigErrors as errors:
        return str(errors)
    return ""


@given(st.text() | st.lists(fragments | st.text(max_size=3), max_size=40).map("".join))
def test_parse_raises_nothing_but_its_own_error(text: str) -> None:
    told = errors_of(text)
    assert KEY[:16] not in told
    assert all(line.isprintable() for line in told.split("\n"))


@given(tunnels(["", "+", "-"]))
def test_dump_and_parse_are_inverse(config: TunnelConfig) -> None:
    assert parse(dump(config), name="office") == config


@given(tunnels(["", "+", "-"]))
def test_strip_keeps_all_that_wg_knows(config: TunnelConfig) -> None:
    stripped = parse(strip(config), name="office")
    assert stripped.peers == config.peers
    assert stripped.interface == InterfaceConfig(
        private_key=config.interface.private_key,
        listen_port=config.interface.listen_port,
        fwmark=config.interface.fwmark,
    )


def meaning(config: TunnelConfig) -> tuple[object, ...]:
    """A conf with its lists as sets, as save understands them."""
    interface = config.interface
    bare = dataclasses.replace(interface, addresses=(), dns_entries=())
    lists = (set(interface.addresses), set(interface.dns_entries))
    peers = {
        peer.public_key: (dataclasses.replace(peer, allowed_ips=()), set(peer.networks))
        for peer in config.peers
    }
    return bare, lists, peers


def commented(text: str) -> str:
    """Every line that is no hook with a comment behind and one of its own before it."""
    lines = []
    for number, line in enumerate(text.splitlines()):
        lines.append(f"# before {number}" if line else "")
        hook = line.startswith(("PreUp", "PostUp", "PreDown", "PostDown"))
        lines.append(line if hook or not line else f"{line}  # behind {number}")
    return "\n".join(lines) + "\n"


# Two whole confs an example: a busy machine takes its time over them.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(tunnels([""]), tunnels([""]), st.sets(st.integers(0, 3)), st.booleans())
def test_save_means_the_running_state_and_keeps_comments(
    old: TunnelConfig, new: TunnelConfig, staying: set[int], carriage_returns: bool
) -> None:
    kept = tuple(
        dataclasses.replace(
            new.peers[number] if number < len(new.peers) else peer, public_key=peer.public_key
        )
        for number, peer in enumerate(old.peers)
        if number in staying
    )
    known = {peer.public_key for peer in kept}
    fresh = tuple(peer for peer in new.peers if peer.public_key not in known)
    running = dataclasses.replace(new, peers=kept + fresh)
    text = commented(dump(old))
    if carriage_returns:
        text = text.replace("\n", "\r\n")
    merged = merge(text, running)
    assert meaning(parse(merged, name="office")) == meaning(running)
    if len(kept) == len(old.peers):
        for line in text.splitlines():
            if "#" in line and not line.startswith(("PreUp", "PostUp", "PreDown", "PostDown")):
                assert line[line.rindex("#") :] in merged
    assert merge(merged, running) == merged


@given(networks)
def test_a_network_is_what_ipaddress_says(network: IPv4Network | IPv6Network) -> None:
    text = "[Interface]\nPrivateKey = EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE=\n[Peer]\n"
    text += f"PublicKey = {'A' * 43}=\nAllowedIPs = {network}\n"
    assert parse(text, name="office").peers[0].networks == (network,)
