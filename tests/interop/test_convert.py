"""What we export, read by NetworkManager and systemd-networkd."""

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
    found = convert.read([convert.ForeignFile("office.nmconnection", done.stdout)])
    meant = config.parse(conf, name="office")
    assert found.lost == ()
    assert found.config.peers == meant.peers
    ours, theirs = meant.interface, found.config.interface
    assert set(theirs.dns_entries) == set(ours.dns_entries)
    assert (theirs.addresses, theirs.table, theirs.mtu, theirs.fwmark, theirs.listen_port) == (
        ours.addresses, ours.table, ours.mtu, ours.fwmark, ours.listen_port,
    )  # fmt: skip


def networkd(host: Host, folder: Path, until: str) -> str:
    """Run systemd-networkd with the files of a folder until it prints that; its log."""
    script = (
        "mount -t tmpfs tmpfs /etc/systemd/network && cp -r $0/* /etc/systemd/network && "
        "chown -R root:systemd-network /etc/systemd/network && "
        "chmod -R g=rX,o= /etc/systemd/network && "
        "cd /run && mkdir -p systemd/netif/links systemd/netif/leases systemd/netif/lldp && "
        "chown -R systemd-network:systemd-network systemd/netif && "
        # As in a container: else it waits for udev.
        "mount -o remount,ro /sys && "
        "exec env SYSTEMD_LOG_LEVEL=debug SYSTEMD_LOG_TARGET=console $1 2>&1"
    )
    process = host.popen(["sh", "-c", script, str(folder), str(NETWORKD)])
    try:
        process.wait_for_output(until, SECONDS)
    finally:
        process.stop()
    log = process.log()
    for complaint in ("Unknown", "Failed to parse", "Invalid", "ignoring assign", "too permiss"):
        assert complaint not in log, log
    return log


needs_networkd = pytest.mark.skipif(not NETWORKD.exists(), reason="systemd-networkd is not here")


@pytest.mark.root
@pytest.mark.real_root
@needs_networkd
@pytest.mark.parametrize("conf", CONFS.values(), ids=CONFS)
def test_networkd_has_nothing_to_say_of_what_we_write(lab: Lab, tmp_path: Path, conf: str) -> None:
    for output in exported(conf, "networkd"):
        (tmp_path / output.name).write_text(output.text)
    log = networkd(lab.host("a"), tmp_path, "Enumeration completed")
    assert 'office: loaded "wireguard"' in log


@pytest.mark.root
@pytest.mark.real_root
@needs_networkd
def test_networkd_sends_all_but_the_tunnels_own_packets_into_it(lab: Lab, tmp_path: Path) -> None:
    """Not every kernel has WireGuard: the .network is for an interface of another kind here."""
    (network,) = (each for each in exported(EXIT, "networkd") if each.name == "office.network")
    (tmp_path / network.name).write_text(network.text)
    more = tmp_path / "office.network.d"
    more.mkdir()
    # A tunnel has neither; here they would be waited for.
    (more / "no.conf").write_text("[Network]\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n")
    host = lab.host("a")
    host.ip("link add office type veth peer name cable", "link set cable up")
    log = networkd(host, tmp_path, "office: State changed: configuring -> configured")
    addresses = {str(each.address) for each in host.addresses("office")}
    assert addresses == {"10.0.0.2/32", "fd00::2/128"}
    mark = str(AUTO_TABLE)
    assert routes(host, 4, "main") == {"10.9.0.0/16"}, log
    assert (routes(host, 4, mark), routes(host, 6, mark)) == ({"default"}, {"default"})
    for version in ("-4", "-6"):
        rules = [
            rule for rule in host.ip_json([version, "rule", "show"]) if rule["priority"] < 32766
        ]
        found = {rule["priority"]: rule for rule in rules if rule["priority"]}
        assert list(found) == [32764, 32765]
        assert (found[32764]["table"], found[32764]["suppress_prefixlen"]) == ("main", 0)
        marked = found[32765]
        assert (int(marked["fwmark"], 16), marked["table"]) == (AUTO_TABLE, mark)
        assert "not" in marked


def routes(host: Host, version: int, table: str) -> set[str]:
    """Where routes by the interface lead that something else than the kernel has made."""
    words = [f"-{version}", "route", "show", "dev", "office", "table", table]
    return {each["dst"] for each in host.ip_json(words) if each["protocol"] != "kernel"}
