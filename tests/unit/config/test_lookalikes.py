"""What belongs to other programs is named for what it is, with a remedy that fits."""

from pathlib import Path

import pytest

from tests.support.confs import INTERFACE, OTHER, PEER, PRIVATE, WITH_PEER, read
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


LOOK_ALIKE, FULL, BRACKETS = "only look like the right", "not written in full", "has brackets that"


@pytest.mark.parametrize(
    ("line", "fault", "meant"),
    [
        ("Endpoint = 192.0.2.1：51820", LOOK_ALIKE, "192.0.2.1:51820"),
        ("Address = 10.0.0.1/24\u200b", LOOK_ALIKE, "10.0.0.1/24"),
        ("Address = 10.0.0.1/24”", LOOK_ALIKE, "10.0.0.1/24"),
        ("ListenPort = ５１８２０", LOOK_ALIKE, "51820"),
        ("Address = 10.0.0.1 / 24", "has white space in it", "10.0.0.1/24"),
        ("AllowedIPs = 10.0.0.0 255.255.255.0", "has a netmask", "10.0.0.0/24"),
        ("AllowedIPs = 10.0.0.0/0.0.0.255", "has a netmask", "10.0.0.0/24"),
        ("Address = 10.0.0.1 255.255.0.0, fd00::1/64", "has a netmask", "10.0.0.1/16, fd00::1/64"),
        ("AllowedIPs = 0/0", FULL, "0.0.0.0/0"),
        ("AllowedIPs = 10/8, 192.168/16, fd00::/8", FULL, "10.0.0.0/8, 192.168.0.0/16, fd00::/8"),
        ("AllowedIPs = 10.1.2.*", FULL, "10.1.2.0/24"),
        ("AllowedIPs = 10.1.*.*", FULL, "10.1.0.0/16"),
        ("AllowedIPs = any", "has a word for all networks", "0.0.0.0/0, ::/0"),
        ("AllowedIPs = Default", "has a word for all networks", "0.0.0.0/0, ::/0"),
        ("AllowedIPs = [fd00::]/64", BRACKETS, "fd00::/64"),
        ("Address = [fd00::1]/64", BRACKETS, "fd00::1/64"),
        ("Endpoint = [192.0.2.1]:51820", BRACKETS, "192.0.2.1:51820"),
        ("AllowedIPs = 010.000.000.001/32", "has zeros in front of numbers", "10.0.0.1/32"),
        ("MTU = 1420;", "has an extra sign at its end", "1420"),
        ("MTU = 1420,", "has an extra sign at its end", "1420"),
        ("MTU == 1420", 'has an extra "=" in it', "1420"),
        ("Address = Address = 10.0.0.1/24", 'has an extra "=" in it', "10.0.0.1/24"),
        ("MTU = 1420 bytes", "has a unit after its number", "1420"),
        ("PersistentKeepalive = 25s", "has a unit after its number", "25"),
        ("ListenPort = 51820/udp", "has a protocol after its port", "51820"),
        ("Endpoint = me@vpn.example.com:1", "has a user before the host", "vpn.example.com:1"),
        ("Endpoint = bücher.example:1", "has a name in another script", "xn--bcher-kva.example:1"),
    ],
)
def test_notations_that_show_what_was_meant(line: str, fault: str, meant: str) -> None:
    """The value that is advised is taken."""
    key = line.partition(" =")[0]
    before = WITH_PEER if key in ("AllowedIPs", "Endpoint", "PersistentKeepalive") else INTERFACE
    problem = problem_of(f"{before}{line}\n")
    assert (problem.line, problem.key) == (5 if before == WITH_PEER else 3, key)
    assert fault in problem.fault
    assert problem.remedy == f'write "{meant}"'
    read(f"{before}{key} = {meant}\n")


@pytest.mark.parametrize(
    "line", ["Endpoint = vpn.example.com:51820-51830", "[Interface]\nListenPort = 51820 - 51830"]
)
def test_ranges_where_one_value_goes(line: str) -> None:
    problem = problem_of(f"{WITH_PEER}{line}\n")
    assert problem.fault.endswith("has a range, but takes one value")


@pytest.mark.parametrize("text", [",10.0.0.0/24", "10.0.0.0/24,", "10.0.0.0/24,,10.1.0.0/24"])
def test_empty_entries(text: str) -> None:
    problem = problem_of(f"{WITH_PEER}AllowedIPs = {text}\n")
    assert problem.fault == "AllowedIPs has an empty entry"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a3" * 32, "is in hexadecimal, and must be in base64"),
        ("0x" + "A3" * 32, "is in hexadecimal, and must be in base64"),
        ("-----BEGIN PRIVATE KEY-----", "is in PEM, and must be 44 characters of base64"),
        ("/etc/wireguard/private.key", "is the name of a file"),
        (PEER.replace("+", "-"), "is in the base64 of URLs"),
        (PEER[:-1], "lacks the '=' at its end"),
        (PEER.replace("n", "!"), "is not a key: a character of it is wrong (not shown)"),
        (PEER[:40], "must be 44 characters of base64 ending in '=', not 40 characters (not shown)"),
        (f'"{PEER}"', "has its value in quotation marks"),
        (f"{PEER} {OTHER}", "takes one value, but has 2"),
    ],
)
@pytest.mark.parametrize("key", ["PrivateKey", "PublicKey", "PresharedKey"])
def test_keys_of_another_form(key: str, text: str, fault: str) -> None:
    before = "[Interface]\n" if key == "PrivateKey" else f"{INTERFACE}[Peer]\n"
    before += f"PublicKey = {OTHER}\n" if key == "PresharedKey" else ""
    problem = problem_of(f"{before}{key} = {text}\n")
    assert problem.fault == f"{key} {fault}"
    assert text[:40] not in str(problem).replace("-----BEGIN", "")


def test_private_key_where_a_public_one_goes() -> None:
    """A warning, for the doctor to say it again where it runs all the same."""
    (problem,) = read(f"{INTERFACE}[Peer]\nPublicKey = {PRIVATE}\n").warnings
    assert problem.line == 4
    assert problem.fault.startswith("PublicKey is this host's PrivateKey")
    assert PRIVATE not in str(problem)


@pytest.mark.parametrize(
    ("line", "key"),
    [
        (f"PrivateKey: {PRIVATE}", "PrivateKey"),
        (f"PrivateKey {PRIVATE}", "PrivateKey"),
        ("Address: 10.0.0.1/24", "Address"),
        ("Address 10.0.0.1/24", "Address"),
        ("MTU 1420", "MTU"),
        ("PostUp: sysctl -w net.ipv4.ip_forward=1", "PostUp"),
    ],
)
def test_something_else_where_the_sign_goes(line: str, key: str) -> None:
    before = "[Interface]\n" if key == "PrivateKey" else INTERFACE
    problem = problem_of(f"{before}{line}\n")
    assert problem.fault == f'{key} has no "=" between it and its value'
    assert problem.remedy == f"write {key} = and the value"
    assert PRIVATE not in str(problem)


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("<<<<<<< HEAD", "this line marks a merge conflict"),
        ("=======", "this line marks a merge conflict"),
        (">>>>>>> other", "this line marks a merge conflict"),
        ("```ini", "this line is a mark of Markdown"),
        ("[Peer office]", "[Peer] has something else in its brackets"),
        ('[Peer "office"]', "[Peer] has something else in its brackets"),
        ("[Peer]<br>", 'there is something else after "[Peer]"'),
        ("[WireGuardPeer]", '"[WireGuardPeer]" is not a section'),
    ],
)
def test_lines_of_other_programs(line: str, fault: str) -> None:
    problem = problem_of(f"{INTERFACE}{line}\n" + f"PublicKey = {PEER}\n" * line.startswith("["))
    assert problem.line == 3
    assert problem.fault.startswith(fault)


def test_line_ends_of_old_systems() -> None:
    problem = problem_of(WITH_PEER.replace("\n", "\r"))
    assert problem.fault == "the lines end in carriage returns alone, as on very old systems"


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
        ("- name: a\n  type: wireguard\n", 1, "YAML"),
        ("services:\n  wg:\n    image: x\n", 1, "YAML"),
        (f"private_key={'a3' * 32}\nlisten_port=1\n", 1, "what a daemon says"),
        ("/interface wireguard\nadd listen-port=13231\n", 1, "RouterOS"),
        ("set interfaces wireguard wg0 port 1\n", 1, "VyOS"),
        ("interface Tunnel0\n ip address 10.0.0.1\n", 1, "the configuration of a router"),
        ("networking.wireguard.interfaces = {\n", 1, "NixOS"),
        ("wg set wg0 listen-port 51820\n", 1, "commands for a shell"),
        ("sudo ip link add wg0 type wireguard\n", 1, "commands for a shell"),
        ("WG_HOST=vpn.example.com\n", 1, "the environment of a container"),
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


@pytest.mark.parametrize("mask", ["255.0.255.0", "255.255.255", "255.255.255.256"])
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
