"""The record on disk: whole at any time, and read back as it was written."""

import errno
import os
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest

from tunnel.host.errors import HostError
from tunnel.host.record import (
    DownHooks,
    Record,
    delete_record,
    keep_hooks,
    keep_rest,
    load_record,
    other_records,
    parse,
    record_path,
    render,
    save_record,
)
from tunnel.host.state import Address, Dns, Route, desired_state
from tunnel.linux.netns import namespace_id


def full(interface: str = "tun0") -> Record:
    state = desired_state(
        interface,
        [ip_interface("10.9.0.1/24"), ip_interface("fd00::1/64")],
        [ip_network("0.0.0.0/0"), ip_network("::/0"), ip_network("10.20.0.0/16")],
        mtu=1420,
        dns=[ip_address("10.9.0.53"), ip_address("fd00::53")],
        dns_search=["lan"],
    )
    return Record(interface, 7, 4026531840, state.items(), (("net.a", "0"),), "resolvconf")


def test_round_trip(tmp_path: Path) -> None:
    record = full()
    assert parse(render(record)) == record
    save_record(record, tmp_path / "new")
    assert load_record("tun0", tmp_path / "new") == record
    assert record_path("tun0", tmp_path / "new").stat().st_mode & 0o077 == 0
    delete_record("tun0", tmp_path / "new")
    delete_record("tun0", tmp_path / "new")
    assert load_record("tun0", tmp_path / "new") is None


def test_a_port_of_a_bridge_round_trips() -> None:
    built = desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1400)
    built = replace(built, bridge="br0", link_local=True)
    record = Record("tun0", 7, 1, built.items())
    assert parse(render(record)) == record


def test_others(tmp_path: Path) -> None:
    for name in ("tun0", "tun1", "a.b"):
        save_record(full(name), tmp_path)
    (tmp_path / "broken.state").write_text("{")
    assert [record.interface for record in other_records("tun0", tmp_path)] == ["a.b", "tun1"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "{}", '{"version": 2}', "\x00", '{"version": 1, "interface": "tun0"}'],
)
def test_nonsense_is_named(tmp_path: Path, text: str) -> None:
    record_path("tun0", tmp_path).write_text(text)
    with pytest.raises(HostError, match="read state file") as caught:
        load_record("tun0", tmp_path)
    assert caught.value.remedy == "delete the file"


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_failing_disk_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    old = Record("tun0", 1, 2, (Address(ip_interface("10.9.0.1/24")),))
    save_record(old, tmp_path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(HostError, match="No space left") as caught:
            save_record(full(), tmp_path)
    assert "make room" in caught.value.remedy
    assert load_record("tun0", tmp_path) == old
    assert [path.name for path in tmp_path.iterdir()] == ["tun0.state"]


def test_what_is_there_needs_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a daemon that goes on where a killed one has ended, with /run full."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # A whole number is read as another kind of number.
    record = replace(full(), hooks=DownHooks(seconds=90))
    save_record(record, tmp_path)
    monkeypatch.setattr(os, "replace", refuse)
    save_record(record, tmp_path)


def test_plain_values_in_the_file() -> None:
    items = (Route(ip_network("fd00::/16"), 5), Dns((ip_address("::1"),)))
    text = render(Record("tun0", 1, 2, items))
    assert '"destination": "fd00::/16"' in text
    assert parse(text).items == items


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_what_has_the_name_of_the_record_is_named_and_not_waited_for(
    tmp_path: Path, kind: str
) -> None:
    path = record_path("tun0", tmp_path)
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(HostError, match=r"read state file .*tun0.state.*\(move away"):
        load_record("tun0", tmp_path)
    if kind == "folder":
        with pytest.raises(HostError, match=r"write state file .*tun0.state.*\(move away"):
            save_record(full(), tmp_path)


def test_hooks_stay_on_record_until_they_are_struck(tmp_path: Path) -> None:
    hooks = DownHooks(("one",), ("two", "three"), 90, save_config=True, unsure=True, begun=True)
    record = replace(full(), hooks=hooks, servers="192.0.2.1")
    assert parse(render(record)) == record
    save_record(record, tmp_path)
    keep_hooks("tun0", replace(hooks, pre_down=()), tmp_path)
    keep_rest(replace(record, items=(), hooks=replace(hooks, pre_down=())), tmp_path)
    found = load_record("tun0", tmp_path)
    assert found is not None
    assert (found.items, found.hooks.post_down) == ((), ("two", "three"))
    keep_hooks("tun0", DownHooks(save_config=True), tmp_path)
    assert load_record("tun0", tmp_path) is None
    # Hooks of a tunnel of which nothing else was done yet: it is just coming up.
    keep_hooks("tun0", hooks, tmp_path)
    assert load_record("tun0", tmp_path) == Record("tun0", 0, namespace_id(), hooks=hooks)
    keep_hooks("tun0", DownHooks(), tmp_path)
    assert load_record("tun0", tmp_path) is None
