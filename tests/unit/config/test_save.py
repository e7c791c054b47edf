"""The running state brought into a conf, whose comments and order stay."""

import contextlib
import dataclasses
import errno
import os
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, PRIVATE, PSK, read
from tunnel.config import (
    AllowedIP,
    ConfigErrors,
    EndpointConfig,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    Problem,
    PublicKey,
    TunnelConfig,
    load,
    merge,
    save,
)
from tunnel.config.save import line_changes, write

CONF = f"""\
# The office
[Interface]  # ours
PrivateKey = {PRIVATE}
Address = 10.0.0.1/24, fd00::1/64   # both families
Address = 10.1.0.1/24
MTU = 1400  # the provider's DSL
PostUp = echo up # part of the hook

# Alice
[Peer]
PublicKey = {PEER}  # laptop
AllowedIPs = 10.0.0.2/32  # v4
AllowedIPs = fd00::2/128, 10.9.0.0/16

# Bob
[Peer]
PublicKey = {OTHER}
Endpoint = vpn.example.com:51820
"""


def change(config: TunnelConfig, **changes: Any) -> TunnelConfig:
    return dataclasses.replace(config, interface=dataclasses.replace(config.interface, **changes))


def change_peer(config: TunnelConfig, number: int, **changes: Any) -> TunnelConfig:
    peers = list(config.peers)
    peers[number] = dataclasses.replace(peers[number], **changes)
    return dataclasses.replace(config, peers=tuple(peers))


def diff(before: str, after: str) -> list[str]:
    """The lines that went (-) and came (+)."""
    old, new = before.split("\n"), after.split("\n")
    gone = [f"-{line}" for line in old if line not in new]
    return gone + [f"+{line}" for line in new if line not in old]


def check(running: TunnelConfig, *expected: str, conf: str = CONF) -> str:
    merged = merge(conf, running)
    assert diff(conf, merged) == list(expected)
    again = read(merged)
    assert set(again.interface.addresses) == set(running.interface.addresses)
    assert [set(peer.networks) for peer in again.peers] == [
        set(peer.networks) for peer in running.peers
    ]
    assert merge(merged, running) == merged
    return merged


def test_what_did_not_change_stays_to_the_byte() -> None:
    assert merge(CONF, read(CONF)) == CONF
    windows = "\ufeff" + CONF.replace("\n", "\r\n")
    assert merge(windows, read(CONF)) == windows


def test_values_change_where_they_stand() -> None:
    running = change(read(CONF), mtu=1300, fwmark=0xCA6C, listen_port=51820)
    check(
        running,
        "-MTU = 1400  # the provider's DSL",
        "+MTU = 1300  # the provider's DSL",
        "+ListenPort = 51820",
        "+FwMark = 0xca6c",
    )


def test_a_value_that_is_gone_leaves_its_comment() -> None:
    check(
        change(read(CONF), mtu=None),
        "-MTU = 1400  # the provider's DSL",
        "+# the provider's DSL",
    )


def test_lists_lose_and_gain_items() -> None:
    addresses = (ip_interface("10.0.0.1/24"), ip_interface("10.1.0.1/24"), ip_interface("10.7.0.1"))
    check(
        change(read(CONF), addresses=addresses),
        "-Address = 10.0.0.1/24, fd00::1/64   # both families",
        "-Address = 10.1.0.1/24",
        "+Address = 10.0.0.1/24   # both families",
        "+Address = 10.1.0.1/24, 10.7.0.1/32",
    )
    networks = (AllowedIP(ip_network("10.9.0.0/16")),)
    check(
        change_peer(read(CONF), 0, allowed_ips=networks),
        "-AllowedIPs = 10.0.0.2/32  # v4",
        "-AllowedIPs = fd00::2/128, 10.9.0.0/16",
        "+# v4",
        "+AllowedIPs = 10.9.0.0/16",
    )
    check(
        change(read(CONF), dns_entries=(ip_address("10.0.0.53"), "corp.example")),
        "+DNS = 10.0.0.53, corp.example",
    )


def test_a_peer_changes() -> None:
    running = change_peer(
        read(CONF),
        1,
        endpoint=EndpointConfig("2001:db8::1", 5),
        preshared_key=PresharedKey.from_base64(PSK),
        persistent_keepalive=25,
    )
    check(
        running,
        "-Endpoint = vpn.example.com:51820",
        "+Endpoint = [2001:db8::1]:5",
        f"+PresharedKey = {PSK}",
        "+PersistentKeepalive = 25",
    )


def test_peers_come_and_go() -> None:
    config = read(CONF)
    new = PeerConfig(PublicKey.from_base64(PSK), allowed_ips=(AllowedIP(ip_network("::/0")),))
    running = dataclasses.replace(config, peers=(config.peers[1], new))
    merged = check(
        running,
        "-# Alice",
        f"-PublicKey = {PEER}  # laptop",
        "-AllowedIPs = 10.0.0.2/32  # v4",
        "-AllowedIPs = fd00::2/128, 10.9.0.0/16",
        f"+PublicKey = {PSK}",
        "+AllowedIPs = ::/0",
    )
    assert "part of the hook\n\n# Bob\n[Peer]\n" in merged
    assert merged.endswith(f"51820\n\n[Peer]\nPublicKey = {PSK}\nAllowedIPs = ::/0\n")


def test_what_no_conf_may_say_stays_as_it_was() -> None:
    running = change(
        read(CONF),
        mtu=65535,
        addresses=(*read(CONF).interface.addresses, ip_interface("224.0.0.5/32")),
        listen_port=7,
    )
    running = change_peer(running, 1, endpoint=EndpointConfig("192.0.2.1", 0))
    new = PeerConfig(PublicKey.from_base64(PSK), endpoint=EndpointConfig("192.0.2.2", 0))
    running = dataclasses.replace(running, peers=(*running.peers, new))
    notes: list[str] = []
    merged = merge(CONF, running, note=lambda problem: notes.append(str(problem)))
    assert diff(CONF, merged) == ["+ListenPort = 7", f"+PublicKey = {PSK}"]
    assert read(merged).interface.mtu == 1400
    assert notes[1] == (
        'conf: the MTU in use, "65535", cannot be saved: it must be a number of bytes from 576 to '
        '65455, not "65535"; the conf keeps its own value there'
    )
    assert [note.split(" ")[2] for note in notes] == ["Address", "MTU", "Endpoint", "Endpoint"]


def test_what_cannot_be_read_back_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF)
    config = read(CONF)
    assert config.interface.private_key is not None
    ourselves = PeerConfig(config.interface.private_key.public_key())
    with pytest.raises(ConfigErrors, match="PublicKey is this host's own"):
        save(path, dataclasses.replace(config, peers=(ourselves,)))
    assert path.read_text() == CONF


def test_options_stand_in_a_spelling_wg_quick_ignores() -> None:
    config = read(CONF)
    options = dataclasses.replace(config.interface.options, datapath="python", udp_gso=False)
    merged = check(
        change(config, options=options), "+#! tunnel: Datapath = python", "+#! tunnel: UdpGso = off"
    )
    assert read(merged).interface.options == options
    assert diff(merged, merge(merged, config)) == [
        "-#! tunnel: Datapath = python",
        "-#! tunnel: UdpGso = off",
    ]


def test_a_new_private_key_replaces_the_file_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(PRIVATE)
    path = tmp_path / "a.conf"
    path.write_text("[Interface]\nPrivateKeyFile = k\n")
    running = load(path)
    assert save(path, running) == ()
    key = PrivateKey.from_base64(PSK)
    assert save(path, change(running, private_key=key))
    assert path.read_text() == f"[Interface]\nPrivateKey = {key.to_base64()}\n"


def test_text_without_a_last_line_break() -> None:
    conf = f"[Interface]\nPrivateKey = {PRIVATE}"
    assert merge(conf, change(read(conf), mtu=1400)) == conf + "\nMTU = 1400"
    windows = conf.replace("\n", "\r\n")
    assert merge(windows, change(read(conf), mtu=1400)) == windows + "\r\nMTU = 1400\r"


def test_a_broken_conf_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF + "Nonsense\n")
    with pytest.raises(ConfigErrors, match="has no '='"):
        save(path, read(CONF))
    assert path.read_text() == CONF + "Nonsense\n"
    with pytest.raises(ConfigErrors, match="does not exist"):
        save(tmp_path / "gone.conf", read(CONF))


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o400])
def test_the_file_is_replaced_and_its_mode_stays(tmp_path: Path, mode: int) -> None:
    real = tmp_path / "real.conf"
    real.write_text(CONF)
    real.chmod(mode)
    tmp_path.chmod(0o755)
    link = tmp_path / "office.conf"
    link.symlink_to(real)
    notes: list[Problem] = []
    assert save(link, change(read(CONF), mtu=1300), note=notes.append)
    assert link.is_symlink()
    assert "MTU = 1300" in real.read_text()
    assert real.stat().st_mode & 0o7777 == mode
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["office.conf", "real.conf"]
    warning = (
        f"{link}: every user may open this file, which holds secrets: only its owner should; "
        f"run chmod 600 {link}"
    )
    assert [str(note) for note in notes] == ([warning] if mode & 0o007 else [])


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    write(tmp_path / "new.conf", CONF)
    assert (tmp_path / "new.conf").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640])
def test_no_secret_goes_into_a_file_that_was_open_without_any(tmp_path: Path, mode: int) -> None:
    (tmp_path / "k").write_text(PRIVATE)
    (tmp_path / "k").chmod(0o600)
    path = tmp_path / "a.conf"
    path.write_text(f"[Interface]\nPrivateKeyFile = k\n[Peer]\nPublicKey = {PEER}\n")
    path.chmod(mode)
    running = load(path)
    notes: list[Problem] = []
    assert save(path, change(running, mtu=1300), note=notes.append)
    assert path.stat().st_mode & 0o777 == mode
    assert notes == []
    secret = change_peer(load(path), 0, preshared_key=PresharedKey.from_base64(PSK))
    assert save(path, secret, note=notes.append)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [str(note) for note in notes] == [
        f"{path}: others could open this file, and now it holds secrets; "
        "its mode is 600 from this save on: open it again if they may have the secrets"
    ]


@pytest.mark.real_root
def test_owner_and_group_stay(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF)
    os.chown(path, 12345, 54321)
    path.chmod(0o640)
    assert save(path, change(read(CONF), mtu=1300))
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (12345, 54321, 0o640)


ACL = "system.posix_acl_access"


@pytest.mark.real_root
def test_an_access_list_stays_and_opens_the_file_to_no_one_else(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF)
    # Owner rw, user 1 r, group none, mask r, others none. In the mode the mask is the group's.
    entries = [(1, 6, -1), (2, 4, 1), (4, 0, -1), (16, 4, -1), (32, 0, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(path, ACL, acl)
    except OSError as error:
        pytest.skip(f"no access lists on this disk: {error}")
    assert path.stat().st_mode & 0o777 == 0o640
    assert save(path, change(read(CONF), mtu=1300))
    assert os.getxattr(path, ACL) == acl


@pytest.mark.real_root
@pytest.mark.parametrize("keep_mode", [True, False])
def test_the_folders_default_list_opens_the_file_to_no_one(tmp_path: Path, keep_mode: bool) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF)
    path.chmod(0o640)
    # Every new file in here is open to user 1 and group 2, as far as its mask lets them.
    entries = [(1, 7, -1), (2, 4, 1), (4, 5, -1), (8, 4, 2), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    try:
        os.setxattr(tmp_path, "system.posix_acl_default", acl)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        pytest.skip(f"no access lists on this disk: {error}")
    write(path, CONF + "# new\n", keep_mode=keep_mode)
    assert path.stat().st_mode & 0o777 == (0o640 if keep_mode else 0o600)
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr(path, ACL)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", tmp_path], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.root
def test_a_full_disk_leaves_the_old_file_whole(small_disk: Path) -> None:
    path = small_disk / "office.conf"
    path.write_text(CONF)
    filler = os.open(small_disk / "filler", os.O_CREAT | os.O_WRONLY)
    with contextlib.suppress(OSError):
        while os.write(filler, bytes(4096)):
            pass
    os.close(filler)
    with pytest.raises(ConfigErrors) as caught:
        save(path, change(read(CONF), mtu=1300))
    assert str(caught.value) == (
        f"{path}: the file could not be replaced (No space left on device), and is as it was; "
        "fix the cause and save again"
    )
    assert path.read_text() == CONF
    assert sorted(entry.name for entry in small_disk.iterdir()) == ["filler", "office.conf"]


def test_line_changes_name_each_line_by_its_number() -> None:
    old = "[Interface]\nMTU = 1420\n# kept\n\n[Peer]\n"
    new = "[Interface]\nMTU = 1400\nFwMark = 1\n# kept\n\n[Peer]\nAllowedIPs = ::/0\n"
    assert [(c.sign, c.number, c.text) for c in line_changes(old, new)] == [
        ("-", 2, "MTU = 1420"),
        ("+", 2, "MTU = 1400"),
        ("+", 3, "FwMark = 1"),
        ("+", 7, "AllowedIPs = ::/0"),
    ]
    assert line_changes(old, old) == ()


def test_a_file_that_was_edited_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(CONF)
    path.chmod(0o640)
    running = change(load(path), mtu=1300)
    edited = CONF.replace("1400", "1380")
    assert edited != CONF
    path.write_text(edited)
    notes: list[str] = []
    assert save(path, running, note=lambda problem: notes.append(str(problem)))
    copy = tmp_path / "office.conf.edited"
    assert copy.read_text() == edited
    assert copy.stat().st_mode & 0o777 == 0o600
    assert notes == [
        f"{path}: the file was edited since it was read, and running values replace lines of it; "
        f"as it was before this save, it is in {copy}"
    ]
    copy.unlink()
    # Where nothing of the edit is lost, there is nothing to keep.
    path.write_text(f"{path.read_text()}# a remark\n")
    assert save(path, running) == ()
    assert not copy.exists()


@pytest.mark.parametrize("style", ["MTU=1400", "MTU= 1400", "MTU =1400", "  mtu  =  1400 # why"])
def test_a_value_is_replaced_in_the_style_of_its_line(style: str) -> None:
    text = f"{INTERFACE}{style}\nAddress=10.0.0.1/24,10.0.1.1/24\n"
    config = read(text)
    assert config.interface.mtu == 1400
    running = change(config, mtu=1300, addresses=config.interface.addresses[:1])
    assert merge(text, running) == (
        f"{INTERFACE}{style.replace('1400', '1300')}\nAddress=10.0.0.1/24\n"
    )


def test_what_is_doubtful_in_the_conf_is_said_at_each_save(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text(f"{INTERFACE}MTU = 1300\nMTU = 1400\n")
    path.chmod(0o600)
    notes: list[str] = []
    assert save(path, load(path), note=lambda problem: notes.append(str(problem))) == ()
    assert [note.partition(": ")[2] for note in notes] == [
        "MTU is already set on line 3, and only the last counts; remove the others"
    ]
