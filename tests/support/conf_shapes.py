"""Confs of any shape, for hypothesis."""

import string
from ipaddress import IPv4Interface, IPv6Interface

from hypothesis import strategies as st

from tunnel.config import (
    AllowedIP,
    EndpointConfig,
    InterfaceConfig,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    PublicKey,
    TunnelConfig,
    TunnelOptions,
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
