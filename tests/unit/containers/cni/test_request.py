"""Calls of a container runtime: what is read, and what is refused with which number."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tunnel.cli import cni
from tunnel.containers.cni import ipam
from tunnel.containers.cni.errors import CniError
from tunnel.containers.cni.request import VERSIONS, CniRequest, parse_request

NETWORK = {
    "cniVersion": "1.0.0",
    "name": "net",
    "type": "tunnel-cni",
    "conf": "office",
    "ipam": {"type": "fake-ipam"},
}
CALL = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}


def parse(network: object = NETWORK, **call: str) -> CniRequest:
    return parse_request(CALL | call, json.dumps(network))


def test_a_call_is_read() -> None:
    request = parse(NETWORK | {"ipMasq": True, "mtu": 1400, "bridge": "br-office"})
    assert (request.command, request.container, request.interface) == ("ADD", "c1", "eth0")
    assert request.path == (Path("/opt/cni/bin"), Path("/usr/lib/cni"))
    config = request.config
    assert (config.conf, config.bridge, config.masquerade) == ("office", "br-office", True)
    assert (config.mtu, config.ipam, config.previous) == (1400, "fake-ipam", None)


def test_names_of_interfaces_fit_and_differ() -> None:
    calls = [
        parse(),
        parse(CNI_CONTAINERID="c2"),
        parse(CNI_IFNAME="eth1"),
        parse(NETWORK | {"name": "other"}),
    ]
    assert len({call.outer for call in calls}) == 3, "a network does not count: eth0 is one card"
    assert len({call.config.bridge for call in calls}) == 2
    for call in calls:
        assert all(len(name) <= 15 for name in (call.outer, call.inner, call.config.bridge))


@pytest.mark.parametrize(
    ("call", "number", "words"),
    [
        ({"CNI_COMMAND": "GET"}, 4, "one of ADD, DEL, CHECK, GC, STATUS, VERSION"),
        ({"CNI_COMMAND": ""}, 4, "a container runtime calls this program"),
        ({"CNI_CONTAINERID": ""}, 4, "ADD needs CNI_CONTAINERID"),
        ({"CNI_NETNS": "", "CNI_IFNAME": ""}, 4, "ADD needs CNI_NETNS, CNI_IFNAME"),
        ({"CNI_COMMAND": "CHECK", "CNI_NETNS": ""}, 4, "CHECK needs CNI_NETNS"),
        ({"CNI_COMMAND": "GC", "CNI_PATH": ""}, 4, "GC needs CNI_PATH"),
        ({"CNI_COMMAND": "GC"}, 1, "cniVersion 1.0.0 has no GC"),
        ({"CNI_COMMAND": "STATUS"}, 1, "cniVersion 1.0.0 has no STATUS"),
        ({"CNI_CONTAINERID": "../c1"}, 4, "CNI_CONTAINERID"),
        ({"CNI_IFNAME": "a/b"}, 4, "CNI_IFNAME"),
        ({"CNI_IFNAME": "eth0:1"}, 4, "CNI_IFNAME"),
        ({"CNI_IFNAME": "sixteen-letters!"}, 4, "CNI_IFNAME"),
        ({"CNI_IFNAME": ".."}, 4, "CNI_IFNAME"),
    ],
)
def test_an_environment_that_is_none_is_refused(
    call: dict[str, str], number: int, words: str
) -> None:
    with pytest.raises(CniError, match=words) as caught:
        parse(NETWORK, **call)
    assert caught.value.number == number


def test_del_needs_no_namespace() -> None:
    assert parse(CNI_COMMAND="DEL", CNI_NETNS="").netns == ""


def test_gc_and_status_are_about_no_container() -> None:
    nothing = {"CNI_CONTAINERID": "", "CNI_NETNS": "", "CNI_IFNAME": ""}
    valid = [{"containerID": "c1", "ifname": "eth0"}, {"containerID": "c2", "ifname": "eth1"}]
    newest = NETWORK | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": valid}
    assert parse(newest, CNI_COMMAND="STATUS", **nothing).command == "STATUS"
    found = parse(newest, CNI_COMMAND="GC", **nothing).config.valid_outers()
    assert found == {parse().outer, parse(CNI_CONTAINERID="c2", CNI_IFNAME="eth1").outer}


@pytest.mark.parametrize("valid", [None, {}, "c1", ["c1"], [{"containerID": "c1"}]])
def test_without_a_list_nothing_is_taken_for_gone(valid: object) -> None:
    request = parse(NETWORK | {"cni.dev/valid-attachments": valid})
    with pytest.raises(CniError, match=r"GC needs cni\.dev/valid-attachments") as caught:
        request.config.valid_outers()
    assert caught.value.number == 7


@pytest.mark.parametrize(
    ("change", "number", "words"),
    [
        ({"cniVersion": "0.2.0"}, 1, "supported: 0.4.0, 1.0.0, 1.1.0"),
        ({"cniVersion": 1}, 1, "cniVersion 1"),
        ({"name": None}, 7, "name"),
        ({"name": "a b"}, 7, "name"),
        ({"conf": None}, 7, "conf has to name a tunnel"),
        ({"conf": "../x"}, 7, "conf has to name a tunnel"),
        ({"bridge": "a-name-of-sixteen"}, 7, "bridge"),
        ({"ipMasq": "yes"}, 7, "ipMasq has to be true or false"),
        ({"mtu": True}, 7, "mtu"),
        ({"mtu": 100}, 7, "mtu has to be a number from 576 to 65535"),
        ({"ipam": {}}, 7, "host-local"),
        ({"ipam": "host-local"}, 7, "host-local"),
        ({"ipam": {"type": "../sh"}}, 7, "host-local"),
    ],
)
def test_a_configuration_that_is_none_is_refused(
    change: dict[str, Any], number: int, words: str
) -> None:
    with pytest.raises(CniError, match=words) as caught:
        parse(NETWORK | change)
    assert caught.value.number == number


@pytest.mark.parametrize(("text", "number"), [("{", 6), ("", 6), ("[]", 7), ("3", 7)])
def test_what_is_no_object_is_refused(text: str, number: int) -> None:
    with pytest.raises(CniError) as caught:
        parse_request(CALL, text)
    assert caught.value.number == number


def answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str, **call: str
) -> tuple[int, dict[str, Any]]:
    for name in CALL:
        monkeypatch.delenv(name, raising=False)
    for name, value in call.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    status = cni.main()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, found


def test_errors_are_json_on_standard_output(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    older = json.dumps(NETWORK | {"cniVersion": "0.4.0", "conf": ""})
    status, found = answered(monkeypatch, capsys, older, **CALL)
    assert (status, found["code"], found["cniVersion"]) == (1, 7, "0.4.0")
    status, found = answered(monkeypatch, capsys, "no JSON", **CALL)
    assert (status, found["code"], found["cniVersion"]) == (1, 6, VERSIONS[-1])
    status, found = answered(monkeypatch, capsys, "")
    assert (status, found["code"]) == (1, 4)


def test_version_needs_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = answered(monkeypatch, capsys, "", CNI_COMMAND="VERSION")
    assert (status, found["supportedVersions"]) == (0, list(VERSIONS))


def delegate(tmp_path: Path, script: str) -> CniRequest:
    program = tmp_path / "fake-ipam"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return parse(CNI_PATH=f"/nonexistent:{tmp_path}")


def test_the_ipam_plugin_gets_the_configuration_and_its_answer_is_read(tmp_path: Path) -> None:
    answer = {
        "ips": [{"address": "10.90.1.2/24", "gateway": "10.90.1.1", "version": "4"}],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.0.0.0/8", "gw": "10.90.1.9"}],
        "dns": {"nameservers": ["10.77.0.2"]},
    }
    given = ipam.lease(delegate(tmp_path, f"cat >{tmp_path}/given; echo '{json.dumps(answer)}'"))
    assert json.loads((tmp_path / "given").read_text()) == NETWORK
    assert [str(address) for address in given.addresses] == ["10.90.1.2/24"]
    assert [(str(net), str(hop)) for net, hop in given.routes] == [
        ("0.0.0.0/0", "None"),
        ("10.0.0.0/8", "10.90.1.9"),
    ]
    assert given.dns == answer["dns"]


@pytest.mark.parametrize(
    ("script", "number", "words"),
    [
        ('echo \'{"code": 11, "msg": "busy", "details": "later"}\'; exit 1', 11, "busy .later."),
        ("echo broken >&2; exit 3", 101, "status 3 .broken."),
        ("echo no JSON", 101, "printed no JSON object"),
        ("echo '{}'", 101, "cannot be read"),
        ("echo '{\"ips\": []}'", 101, "gave no address"),
        ('echo \'{"ips": [{"address": "10.0.0.2/24"}]}\'', 101, "cannot be read"),
    ],
)
def test_what_the_ipam_plugin_reports_is_passed_on(
    tmp_path: Path, script: str, number: int, words: str
) -> None:
    with pytest.raises(CniError, match=words) as caught:
        ipam.lease(delegate(tmp_path, script))
    assert caught.value.number == number


def test_an_ipam_plugin_that_is_missing_is_named() -> None:
    with pytest.raises(CniError, match="containernetworking-plugins") as caught:
        ipam.lease(parse(CNI_PATH="/nonexistent"))
    assert caught.value.number == 101
