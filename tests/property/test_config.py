"""Confs of any shape: one kind of error, round trips, comments that survive a save."""

import dataclasses
from ipaddress import IPv4Network, IPv6Network

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.conf_shapes import networks, tunnels
from tunnel.config import (
    ConfigErrors,
    InterfaceConfig,
    TunnelConfig,
    dump,
    merge,
    parse,
    strip,
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


# A busy machine takes its time over whole confs.
@settings(suppress_health_check=[HealthCheck.too_slow])
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
