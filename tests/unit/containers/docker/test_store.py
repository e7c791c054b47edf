"""The state on disk: what is written is read again, and what is damaged is named."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tests.support.docker_driver import END, NETWORK
from tunnel.containers.docker.store import (
    EndpointRecord,
    NetworkRecord,
    PluginState,
    PoolRecord,
    Store,
)
from tunnel.containers.errors import ContainerError
from tunnel.host.container_gates import PublishedPort

STATE = PluginState(
    {
        NETWORK: NetworkRecord(
            "office",
            (ip_network("10.90.0.0/24"), ip_network("fd90::/112")),
            (ip_interface("10.90.0.1/24"), ip_interface("fd90::1/112")),
            True,
            1420,
            (ip_network("10.90.0.128/25"),),
            "br0",
            (4000, 4001),
            {
                END: EndpointRecord(
                    (ip_interface("10.90.0.2/24"),),
                    True,
                    (
                        PublishedPort("tcp", None, 8080, ip_address("10.90.0.2"), 80),
                        PublishedPort("udp", ip_address("::1"), 53, ip_address("fd90::2"), 53),
                    ),
                )
            },
        )
    },
    {
        "office/10.90.0.0/24": PoolRecord(
            "office",
            ip_network("10.90.0.0/24"),
            ip_network("10.90.0.0/26"),
            frozenset({ip_address("10.90.0.2")}),
        )
    },
)


def test_all_is_read_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "made" / "when needed")
    assert store.load() == PluginState()
    store.save(STATE)
    assert store.load() == STATE
    assert store.path.stat().st_mode & 0o777 == 0o600
    assert store.path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "change",
    [
        ("{", "["),
        ('"10.90.0.0/24"', '"10.90.0.1/24"'),
        ('"conf"', '"fonc"'),
        ('"networks"', '"netzwerke"'),
        ('"joined": true', '"joined": tr'),
        ('"outer"', '"outre"'),
    ],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, change: tuple[str, str]) -> None:
    store = Store(tmp_path)
    store.save(STATE)
    text = store.path.read_text().replace(*change)
    store.path.write_text(text)
    with pytest.raises(ContainerError, match=r"networks\.json is damaged .*move it away"):
        store.load()
    assert store.path.read_text() == text


def test_a_file_of_another_version_is_not_taken_for_ours(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.save(STATE)
    store.path.write_text(store.path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ContainerError, match="another version"):
        store.load()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file" / "folder")
    with pytest.raises(ContainerError, match=r"cannot be written: .*nothing was changed"):
        store.save(STATE)
