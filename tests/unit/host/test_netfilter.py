"""The firewall of a full tunnel as nft reads it."""

import shutil
from ipaddress import ip_address
from pathlib import Path
from textwrap import dedent

import pytest

from tunnel.host import netfilter
from tunnel.host.errors import HostError
from tunnel.host.state import Firewall

BOTH = Firewall((4, 6), 51820, (ip_address("10.9.0.1"), ip_address("fd00::1")))


def test_both_families() -> None:
    assert netfilter.render("tun0", BOTH) == dedent(
        """\
        add table inet tunnel-tun0
        delete table inet tunnel-tun0
        table inet tunnel-tun0 {
          chain preraw {
            type filter hook prerouting priority -300; policy accept;
            iifname != "tun0" ip daddr 10.9.0.1 fib saddr type != local counter drop
            iifname != "tun0" ip6 daddr fd00::1 fib saddr type != local counter drop
          }
          chain premangle {
            type filter hook prerouting priority -150; policy accept;
            meta l4proto 17 ct mark 0xca6c meta mark set ct mark
          }
          chain postmangle {
            type filter hook postrouting priority -150; policy accept;
            meta l4proto 17 meta mark 0xca6c ct mark set meta mark
          }
        }
        """
    )


def test_one_family() -> None:
    text = netfilter.render("tun0", Firewall((6,), 7, ()))
    assert text.count("meta nfproto ipv6 meta l4proto 17") == 2


def test_table_names_hold_what_interface_names_may() -> None:
    assert netfilter.table_name("wg-0_a.b") == "tunnel-wg-0_a.b"
    assert netfilter.table_name("a=b+c") == "tunnel-a/3db/2bc"


def test_missing_nft_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert shutil.which("nft") is None
    with pytest.raises(HostError, match="nft is not installed") as caught:
        netfilter.set_firewall("tun0", BOTH)
    assert caught.value.remedy.startswith("apt-get install nftables; ")
    assert "tunnels without a /0 in AllowedIPs work without it" in caught.value.remedy
    assert netfilter.has_firewall("tun0") is False


@pytest.mark.parametrize(
    "said",
    [
        "netlink.c:62: Unable to initialize Netlink socket: Protocol not supported",
        "netlink: Error: cache initialization failed: Operation not supported",
        "/dev/stdin:6:5-9: Error: Could not process rule: No such file or directory",
    ],
)
def test_kernel_without_nf_tables_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    nft = tmp_path / "nft"
    nft.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    nft.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="the kernel lacks nf_tables, or a part of it") as caught:
        netfilter.set_firewall("tun0", BOTH)
    assert "Table = off" in caught.value.remedy
