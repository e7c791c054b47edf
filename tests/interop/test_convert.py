"""What we export, read by the programs that it is for: NetworkManager, systemd-networkd, wg-quick."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.confs import OTHER, PEER, PRIVATE, PSK
from tunnel import config, convert
from tunnel.convert.routes import AUTO_TABLE
from tunnel.lab import Lab
from tunnel.lab.host import Host

NETWORKD = Path("/usr/lib/systemd/systemd-networkd")
SECONDS = 20.0

HUB = f"""\
[Interface]
PrivateKey = {PRIVATE}
ListenPort = 51820
FwMark = 0x1234
Address = 10.0.0.1/24, fd00::1/64
MTU = 1380
DNS = 10.0.0.53, fd00::53, corp.example
[Peer]
# friendly_name = laptop
PublicKey = {PEER}
PresharedKey = {PSK}
AllowedIPs = 10.0.0.2/32, 10.7.0.0/16, fd07::/48
Endpoint = vpn.example.com:51820
PersistentKeepalive = 25
[Peer]
PublicKey = {OTHER}
AllowedIPs = 10.0.0.3/32
Endpoint = [2001:db8::1]:51820
"""
EXIT = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.0.0.2/32, fd00::2/128
[Peer]
PublicKey = {PEER}
AllowedIPs = 0.0.0.0/0, ::/0, 10.9.0.0/16
Endpoint = 192.0.2.1:51820
"""
CONFS = {
    "hub": HUB,
    "off": HUB.replace("MTU", "Table = off\nMTU"),
    "table": HUB.replace("MTU", "Table = 77\nMTU"),
    "exit": EXIT,
}


def exported(conf: str, form: str) -> tuple[convert.Output, ...]:
    written = convert.write(config.parse(conf, name="office"), convert.FORMATS[form])
    assert not written.lost
    return written.outputs


@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_networkmanager_reads_what_we_write_and_we_what_it_writes(
    conf: str, machine_path: str
) -> None:
    nmcli = shutil.which("nmcli", path=machine_path)
    if nmcli is None:
        pytest.skip("nmcli is not here, and `make test` does not install it")
    (output,) = exported(conf, "networkmanager")
    # It writes all that it has understood.
    done = subprocess.run(
        [nmcli, "--offline", "connection", "modify", "connection.id", "renamed"],
        input=output.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "id=renamed" in done.stdout
    found = convert.read([convert.Source("office.nmconnection", done.stdout)])
    meant = config.parse(conf, name="office")
    assert found.lost == ()
    assert found.config.peers == meant.peers
    ours, theirs = meant.interface, found.config.interface
    assert set(theirs.dns_entries) == set(ours.dns_entries)
    assert (theirs.addresses, theirs.table, theirs.mtu, theirs.fwmark, theirs.listen_port) == (
        ours.addresses, ours.table, ours.mtu, ours.fwmark, ours.listen_port,
    )  # fmt: skip


def networkd(host: Host, folder: Path) -> str:
    """Run systemd-networkd with the files of a folder until it has set all up; its log."""
    script = (
        "mount -t tmpfs tmpfs /etc/systemd/network && cp $0/* /etc/systemd/network && "
        "chown root:systemd-network /etc/systemd/network/* && chmod 640 /etc/systemd/network/* && "
        "install -d -o systemd-network -g systemd-network /run/systemd/netif "
        "/run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp && "
        "exec env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console $1 2>&1"
    )
    process = host.popen(["sh", "-c", script, str(folder), str(NETWORKD)])
    try:
        process.wait_for_output("office: State changed: configuring -> configured", SECONDS)
    finally:
        process.stop()
    return process.log()


def routes(host: Host, version: int, table: str) -> set[str]:
    """Where routes by the interface lead that something else than the kernel has made."""
    words = [f"-{version}", "route", "show", "dev", "office", "table", table]
    return {each["dst"] for each in host.ip_json(words) if each["protocol"] != "kernel"}


@pytest.mark.real_root
@pytest.mark.skipif(not NETWORKD.exists(), reason="systemd-networkd is not here")
@pytest.mark.parametrize(
    ("conf", "expected"),
    [
        ("hub", {(4, "main"): {"10.0.0.2", "10.0.0.3", "10.7.0.0/16"}, (6, "main"): {"fd07::/48"}}),
        ("off", {(4, "main"): set(), (6, "main"): set()}),
        ("exit", {
            (4, "main"): {"10.9.0.0/16"},
            (4, str(AUTO_TABLE)): {"default"},
            (6, str(AUTO_TABLE)): {"default"},
        }),
    ],
)  # fmt: skip
def test_networkd_sets_up_what_we_write(
    lab: Lab, tmp_path: Path, conf: str, expected: dict[tuple[int, str], set[str]]
) -> None:
    host = lab.host("a")
    for output in exported(CONFS[conf], "networkd"):
        (tmp_path / output.name).write_text(output.text)
    # Where the kernel has no WireGuard, another interface of that name gets the addresses and the
    # routes of the .network; those that AllowedIPs make need the .netdev, too, and are there as
    # networkd hands them on.
    host.ip("link add office type dummy")
    log = networkd(host, tmp_path)
    for complaint in (
        "Unknown",
        "Failed to parse",
        "Invalid",
        "ignoring assignment",
        "too permiss",
    ):
        assert complaint not in log, log
    assert 'office: loaded "wireguard"' in log
    meant = config.parse(CONFS[conf], name="office").interface
    own = {(str(each.address)) for each in host.addresses() if each.interface == "office"}
    assert {str(each) for each in meant.addresses} <= own
    for (version, table), networks in expected.items():
        assert routes(host, version, table) == networks, log
    rules = host.ip_json(["rule", "show"])
    marked = [rule for rule in rules if rule.get("fwmark")]
    if conf == "exit":
        (rule,) = marked
        assert (int(rule["fwmark"], 16), rule["table"], "not" in rule) == (
            AUTO_TABLE, str(AUTO_TABLE), True,
        )  # fmt: skip
        assert any(rule.get("suppress_prefixlen") == 0 for rule in rules), rules
    else:
        assert not marked
