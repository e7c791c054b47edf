"""What belongs to other programs is named for what it is, with a remedy that fits."""

from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, WITH_PEER, read
from tunnel.config import ConfigErrors, Problem, tables


def problem_of(text: str) -> Problem:
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    (problem,) = caught.value.problems
    return problem


URL = "must be host:port and no URL, protocol or prefix length"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("https://vpn.example.com:51820/", "write vpn.example.com:51820"),
        ("udp://192.0.2.1:51820", "write 192.0.2.1:51820"),
        ("wireguard://key@vpn.example.com:51820?x=1/", "write host and UDP port alone, as "),
        ("//[2001:db8::1]:51820", "write [2001:db8::1]:51820"),
        ("vpn.example.com:51820/udp", "write vpn.example.com:51820"),
        ("192.0.2.1/24:51820", "write 192.0.2.1:51820"),
        ("vpn.example.com/", "write host and UDP port alone, as vpn.example.com:51820"),
        (
            "http://vpn.example.com:8000:51820",
            "write host and UDP port alone: vpn.example.com: and the one port of the WireGuard",
        ),
    ],
)
def test_url_in_place_of_an_endpoint(text: str, remedy: str) -> None:
    problem = problem_of(f"{WITH_PEER}Endpoint = {text}\n")
    assert problem.fault == f'Endpoint {URL}, not "{text}"'
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize("text", ["vpn.example.com 51820", "192.0.2.1, 51820"])
def test_endpoint_without_its_colon(text: str) -> None:
    problem = problem_of(f"{WITH_PEER}Endpoint = {text}\n")
    assert problem.remedy == "put a colon between host and port, and nothing else"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("Endpoint = 192.0.2.1:51820, 192.0.2.2:51820", 2),
        ("Endpoint = vpn.example.com:1 [fd00::1]:2 a:3", 3),
        ("PersistentKeepalive = 25, 30", 2),
        ("[Interface]\nListenPort = 51820, 51821", 2),
        ("[Interface]\nMTU = 1420 1280", 2),
        ("[Interface]\nTable = 7;off", 2),
        (f"[Peer]\nPublicKey = {OTHER},{PEER}", 2),
    ],
)
def test_several_values_where_one_goes(line: str, count: int) -> None:
    problem = problem_of(f"{WITH_PEER}{line}\n")
    assert problem.fault == f"{problem.key} takes one value, but has {count}"
    assert problem.remedy == "keep one of them"


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("AllowedIPs = 10.0.0.0/24 10.0.1.0/24", 'write "10.0.0.0/24, 10.0.1.0/24"'),
        ("AllowedIPs = 10.0.0.0/24; fd00::/64", 'write "10.0.0.0/24, fd00::/64"'),
        ("[Interface]\nDNS = 10.0.0.53;10.0.0.54", 'write "10.0.0.53, 10.0.0.54"'),
    ],
)
def test_lists_without_commas(line: str, remedy: str) -> None:
    problem = problem_of(f"{WITH_PEER}{line}\n")
    assert problem.fault == f"{problem.key} has entries without a comma between them"
    assert problem.remedy == remedy


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("MTU = 1420 ; as the provider says", "has a comment after its value, as other programs"),
        ("MTU = 1420 // as the provider says", "has a comment after its value, as other programs"),
        ("DNS = 10.0.0.53 ; the router", "has a comment after its value, as other programs"),
        ("Address = 10.0.0.1/24, 10.0.1.1/24 ; home", "has a comment after its value, as other"),
        ('MTU = "1420"', "has its value in quotation marks"),
        ("Address = “10.0.0.1/24”", "has its value in quotation marks"),
        ("PrivateKey = <your private key>", "has the placeholder of a template for its value"),
        ("MTU = ${MTU}", "has the placeholder of a template for its value"),
        ("PrivateKey = (hidden)", 'is "(hidden)", as `wg show` prints it'),
    ],
)
def test_notations_of_others_in_values(line: str, fault: str) -> None:
    text = f"[Interface]\nPostUp = true\n{line}\n"
    assert problem_of(text).fault.startswith(f"{line.split(' =')[0]} {fault}")


@pytest.mark.parametrize("sign", [";", "//", "--", "/*", "<!--"])
@pytest.mark.parametrize("rest", ["a comment", "Endpoint = a:1", "[Peer]"])
def test_comments_of_other_programs(sign: str, rest: str) -> None:
    problem = problem_of(f"{WITH_PEER}{sign} {rest}\n")
    assert problem.fault == f'"{sign}" does not begin a comment in a conf: only # does'
    assert problem.remedy == f"write # in place of {sign}"


def test_something_behind_the_header_of_a_section() -> None:
    problem = problem_of(f"{INTERFACE}[Peer] the office\nPublicKey = {PEER}\n")
    assert problem.fault == 'there is something else after "[Peer]"'


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *((key, "AmneziaWG") for key in ("Jc", "Jmin", "Jmax", "S1", "s4", "H1", "I1", "J3")),
        ("Reserved", "Cloudflare WARP"),
        ("ExcludedApplications", "an app"),
        ("DisallowedIPs", "WireSock"),
        ("FirewallMark", "FwMark"),
        ("Name", "label"),
    ],
)
@pytest.mark.parametrize("before", [INTERFACE, WITH_PEER], ids=["interface", "peer"])
def test_keys_of_other_programs(before: str, key: str, name: str) -> None:
    problem = problem_of(f"{before}{key} = 4\n")
    assert problem.key == key
    assert name in str(problem)
    assert "not a key of" not in problem.fault


@pytest.mark.parametrize(
    ("text", "line", "name"),
    [
        ('{\n  "PrivateKey": "x"\n}\n', 1, "JSON"),
        ("<!DOCTYPE html>\n<html>", 1, "a web page or XML"),
        ("# a comment\nclient\ndev tun\nremote vpn.example.com 1194\n", 2, "OpenVPN"),
        ("[connection]\nid=wg0\ntype=wireguard\n[wireguard]\n", 1, "a keyfile of NetworkManager"),
        ("[NetDev]\nName=wg0\nKind=wireguard\n[WireGuard]\nListenPort=1\n", 1, "systemd-networkd"),
        ("config interface 'wg0'\n\toption proto 'wireguard'\n", 1, "OpenWrt"),
        ("interface: wg0\n  public key: x\n", 1, "the output of `wg show`"),
        ("network:\n  version: 2\n", 1, "YAML"),
        ("-----BEGIN CERTIFICATE-----\n", 1, "PEM"),
        ("#!/bin/sh\nwg set wg0\n", 1, "a script"),
        ("vless://abc@vpn.example.com:443\n", 1, "a link for an app"),
        (f"{PEER}\n", 1, "a bare key"),
    ],
)  # fmt: skip
def test_confs_of_other_formats(text: str, line: int, name: str) -> None:
    problem = problem_of(text)
    assert problem.line == line
    assert problem.fault.startswith("this looks like ")
    assert name in problem.fault
    assert PEER not in str(problem)


def test_output_of_wg_showconf_is_a_conf() -> None:
    text = WITH_PEER.replace("[Peer]", "ListenPort = 51820\n\n[Peer]")
    assert read(text).interface.listen_port == 51820


@pytest.mark.parametrize(
    ("mask", "length"), [("0.0.0.0", 0), ("255.255.255.255", 32), ("255.255.240.0", 20)]
)
def test_netmasks_of_every_length(mask: str, length: int) -> None:
    (address,) = read(f"{INTERFACE}Address = 10.0.0.1/{mask}\n").interface.addresses
    assert address.network.prefixlen == length


@pytest.mark.parametrize("mask", ["255.0.255.0", "0.0.0.255", "255.255.255", "255.255.255.256"])
def test_what_is_no_netmask(mask: str) -> None:
    problem = problem_of(f"{INTERFACE}Address = 10.0.0.1/{mask}\n")
    assert "must have a prefix length from 0 to 32" in problem.fault


def test_tables_by_the_names_of_iproute2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, theirs = tmp_path / "etc", tmp_path / "usr"
    (own / "rt_tables.d").mkdir(parents=True)
    theirs.mkdir()
    monkeypatch.setattr(tables, "FOLDERS", (own, theirs))
    (own / "rt_tables").write_text("# reserved\n255\tlocal\n200 office # ours\n0x2bad hex\nx y\n")
    (own / "rt_tables.d/more.conf").write_text("300 Cable\n")
    (own / "rt_tables.d/README").write_text("301 none\n")
    (theirs / "rt_tables").write_text("199 office\n198 distribution\n")
    wanted = {"office": 200, "hex": 0x2BAD, "Cable": 300, "distribution": 198, "main": 254}
    for name, number in wanted.items():
        assert read(f"{INTERFACE}Table = {name}\n").interface.table == number
    for name in ("cable", "none", "y", "reserved"):
        assert problem_of(f"{INTERFACE}Table = {name}\n").key == "Table"
