"""Confs through each format and back: what comes back is what was said to be carried."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_interface, ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.conf_shapes import interface_configs, peer_configs
from tunnel import convert
from tunnel.config import AllowedIP, InterfaceConfig, TunnelConfig, parse
from tunnel.config.keys import keys_of
from tunnel.convert.routes import routes_of

BOTH = (ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64"))
"""Addresses of both versions: a connection of NetworkManager has a route for those alone."""

EVERYWHERE = tuple(AllowedIP(ip_network(each)) for each in ("0.0.0.0/0", "::/0"))


def sent_everywhere(config: TunnelConfig, defaults: set[AllowedIP]) -> TunnelConfig:
    """The conf with these default routes in AllowedIPs of its last peer."""
    if not config.peers:
        return config
    last = config.peers[-1]
    last = dataclasses.replace(last, allowed_ips=(*last.allowed_ips, *sorted(defaults, key=str)))
    return dataclasses.replace(config, peers=(*config.peers[:-1], last))


plain_confs = st.builds(
    TunnelConfig,
    name=st.just("wg7"),
    interface=interface_configs.map(
        lambda interface: dataclasses.replace(
            interface,
            addresses=tuple(dict.fromkeys((*BOTH, *interface.addresses))),
            # No file says it: an empty one means the default of 255 tables is main.
            table="auto" if interface.table == 254 else interface.table,
        )
    ),
    peers=st.lists(peer_configs([""]), max_size=3, unique_by=lambda p: p.public_key).map(tuple),
)
confs = st.builds(sent_everywhere, plain_confs, st.sets(st.sampled_from(EVERYWHERE)))


def meaning(config: TunnelConfig, keys: set[str]) -> dict[str, object]:
    """What the keys of a conf mean, lists as sets."""
    found: dict[str, object] = {
        key.name: frozenset(value) if key.split is not None else value
        for key in keys_of(InterfaceConfig).values()
        if key.name in keys and key.name not in ("Table", "PostUp")
        for value in [getattr(config.interface, key.field)]
    }
    found["peers"] = [
        dataclasses.replace(
            peer,
            preshared_key_file=None,
            allowed_ips=tuple(AllowedIP(n) for n in sorted(peer.networks, key=str)),
        )
        for peer in config.peers
    ]
    return found


def routes(config: TunnelConfig) -> set[tuple[str, int | None]]:
    """The routes of a conf, those by its commands too."""
    found = {(str(route.network), route.table) for route in routes_of(config)}
    for command in config.interface.post_up:
        words = command.split()
        if words[0] == "ip" and words[2:4] == ["route", "add"]:
            table = int(words[8]) if "table" in words else None
            found.add((words[4], table))
    return found


@pytest.mark.parametrize("form", convert.FORMATS.values(), ids=convert.FORMATS)
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(config=confs)
def test_what_is_carried_comes_back(form: convert.Format, config: TunnelConfig) -> None:
    hooks = config.interface.post_up if "PostUp" in form.keys else ()
    config = dataclasses.replace(
        config, interface=dataclasses.replace(config.interface, post_up=hooks)
    )
    written = convert.write(config, form)
    sources = [convert.ForeignFile(each.name, each.text) for each in written.outputs]
    back = convert.read(sources, name="wg7")
    assert back.form is form
    assert back.lost == ()
    assert parse(back.text, name="wg7") == back.config
    assert meaning(back.config, set(form.keys)) == meaning(config, set(form.keys))
    left_out = {each.what.removeprefix("the route to ") for each in written.lost}
    assert routes(back.config) == {each for each in routes(config) if each[0] not in left_out}
    # And what is not carried was said.
    named = {each.what for each in written.lost}
    for section in (config.interface, config.interface.options):
        for key in keys_of(type(section)).values():
            if getattr(section, key.field) != key.default and key.name not in form.keys:
                assert key.is_file or key.name in named
