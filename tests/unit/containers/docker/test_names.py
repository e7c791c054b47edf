"""Names: what is asked of other hosts, what is passed on, and what is answered to whom."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest
import trio
import trio.testing

from tests.support.docker_driver import NETWORK, Tunnels
from tunnel.containers.docker import names
from tunnel.containers.docker.docker_api import DockerApi, NetworkView
from tunnel.containers.docker.store import NetworkRecord
from tunnel.containers.docker.wiring import ASKED_PORT, NameSockets
from tunnel.control.connections import Failures

RECORD = NetworkRecord(
    "office", (ip_network("10.90.0.0/24"),), (ip_interface("10.90.0.1/24"),), False, 1420
)
HOSTS = ("10.90.0.191", "10.90.0.254")
SERVER = "192.0.2.53"


class FakeDocker(DockerApi):
    """An engine with one container, web."""

    async def network(self, network: str, *, names: bool = False) -> NetworkView | None:
        assert network == NETWORK
        return NetworkView("net", frozenset(), {"web": (ip_address("10.90.0.2"),)})


Responder = Callable[[dns.message.Message], dns.message.Message | None]


def addresses(*found: str) -> Responder:
    """Answer with these addresses."""

    def respond(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        name, kind = query.question[0].name, query.question[0].rdtype
        if kind == dns.rdatatype.A:
            reply.answer.append(dns.rrset.from_text_list(name, 1, "IN", "A", list(found)))
        return reply

    return respond


def nothing(query: dns.message.Message) -> dns.message.Message:
    """Answer that there is no such name."""
    reply = dns.message.make_response(query)
    reply.set_rcode(dns.rcode.NXDOMAIN)
    return reply


def empty(query: dns.message.Message) -> dns.message.Message:
    """Answer to any name that it has no address of that version."""
    return dns.message.make_response(query)


def silent(query: dns.message.Message) -> None:
    """Do not answer."""


class Dialogue:
    """A question to the names of a network, and who was asked for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, record: NetworkRecord = RECORD) -> None:
        self.record = record
        self.servers: dict[str, Responder] = {}
        self.asked: list[tuple[str, int]] = []
        self.crowd = 0
        monkeypatch.setattr(names, "_exchange", self._exchange)
        monkeypatch.setattr(names, "read_servers", lambda: [SERVER])
        monkeypatch.setattr(names, "original_destination", lambda whom, here: None)

    async def _exchange(self, query: bytes, server: tuple[str, int], _: float) -> bytes | None:
        self.asked.append(server)
        if self.crowd and server[0] == SERVER:
            await trio.sleep_forever()
        reply = self.servers.get(server[0], silent)(dns.message.from_wire(query))
        return None if reply is None else reply.to_wire(max_size=65535)

    async def _crowd(self, port: int) -> None:
        """Ask `crowd` questions from another address, and wait until no more are taken up."""
        with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            await other.bind(("127.0.0.2", 0))
            for number in range(self.crowd):
                query = dns.message.make_query(f"www{number}.example.com", "A")
                await other.sendto(query.to_wire(), ("127.0.0.1", port))
        await trio.testing.wait_all_tasks_blocked(0.01)

    def ask(self, name: str, kind: str = "A", *, as_host: bool = False) -> dns.message.Message:
        query = dns.message.make_query(name, kind)
        reply = dns.message.from_wire(self.send(query.to_wire(), as_host=as_host))
        assert query.is_response(reply)
        return reply

    def send(self, *datagrams: bytes, as_host: bool = False) -> bytes:
        """The answer to the last of these datagrams."""
        tunnels = Tunnels(office=("10.77.0.2/32", "10.90.0.128/26", "10.90.0.192/26"))

        async def main() -> bytes:
            sockets = NameSockets(*(_bound() for _ in range(2)))
            served = names.NetworkNames(
                NETWORK,
                sockets,
                lambda: self.record,
                FakeDocker(""),
                tunnels.look_up,
                Failures("names"),
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(served.run)
                await self._crowd(sockets.ports[0])
                client = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                with client, trio.fail_after(10):
                    await client.connect(("127.0.0.1", sockets.ports[as_host]))
                    for data in datagrams:
                        await client.send(data)
                    answer: bytes = await client.recv(65535)
                nursery.cancel_scope.cancel()
            sockets.close()
            return answer

        return trio.run(main)


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    return sock


def found(reply: dns.message.Message) -> set[str]:
    return {each.to_text() for rrset in reply.answer for each in rrset}


@pytest.fixture
def dialogue(monkeypatch: pytest.MonkeyPatch) -> Dialogue:
    made = Dialogue(monkeypatch)
    made.servers = dict.fromkeys((*HOSTS, SERVER), nothing)
    return made


def test_in_one_ethernet_the_gateways_of_other_hosts_are_asked(dialogue: Dialogue) -> None:
    dialogue.record = replace(RECORD, bridge="br0")
    gateways = ["10.90.0.128", "10.90.0.192"]
    dialogue.servers |= {gateways[0]: nothing, gateways[1]: addresses("10.90.0.200")}
    assert found(dialogue.ask("db")) == {"10.90.0.200"}
    assert sorted(dialogue.asked) == [(gateway, 5354) for gateway in gateways]


@pytest.mark.parametrize("name", ["db", "DB", "db.net"])
def test_containers_of_all_hosts_answer(dialogue: Dialogue, name: str) -> None:
    dialogue.servers |= {HOSTS[0]: addresses("10.90.0.130"), HOSTS[1]: addresses("10.90.0.200")}
    reply = dialogue.ask(name)
    assert found(reply) == {"10.90.0.130", "10.90.0.200"}
    assert all(rrset.ttl <= names.TTL for rrset in reply.answer)
    assert set(dialogue.asked) == {(host, ASKED_PORT) for host in HOSTS}


def test_a_name_without_an_address_of_that_kind_is_there(dialogue: Dialogue) -> None:
    dialogue.servers[HOSTS[0]] = addresses("10.90.0.130")
    reply = dialogue.ask("db", "AAAA")
    assert (reply.rcode(), reply.answer) == (dns.rcode.NOERROR, [])
    assert (SERVER, 53) not in dialogue.asked


@pytest.mark.parametrize(
    ("name", "kind"), [("www.example.com", "A"), ("db.nets", "A"), ("db", "PTR"), ("db", "MX")]
)
def test_names_of_the_world_are_not_asked_of_hosts(
    dialogue: Dialogue, name: str, kind: str
) -> None:
    dialogue.ask(name, kind)
    assert dialogue.asked == [(SERVER, 53)]


def test_a_name_that_no_host_has_is_passed_on(
    dialogue: Dialogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    meant = ("198.51.100.53", 53)
    monkeypatch.setattr(names, "original_destination", lambda whom, here: meant)
    dialogue.servers[meant[0]] = addresses("203.0.113.7")
    assert found(dialogue.ask("printer")) == {"203.0.113.7"}
    assert dialogue.asked[-1] == meant


@pytest.mark.parametrize("kind", ["A", "AAAA"])
def test_a_host_that_has_no_address_for_any_name_hides_none(dialogue: Dialogue, kind: str) -> None:
    dialogue.servers[HOSTS[0]] = empty
    dialogue.servers[SERVER] = addresses("203.0.113.7")
    assert found(dialogue.ask("printer", kind)) == ({"203.0.113.7"} if kind == "A" else set())
    assert dialogue.asked[-1] == (SERVER, 53)
    # Nor does one with addresses of others.
    dialogue.servers[HOSTS[0]] = addresses("203.0.113.66")
    dialogue.ask("printer", kind)
    assert dialogue.asked[-1] == (SERVER, 53)


def test_a_host_that_is_silent_is_not_taken_for_one_without_the_name(dialogue: Dialogue) -> None:
    dialogue.servers[HOSTS[0]] = silent
    assert dialogue.ask("db").rcode() == dns.rcode.SERVFAIL
    dialogue.servers[SERVER] = addresses("203.0.113.7")
    assert found(dialogue.ask("printer")) == {"203.0.113.7"}
    dialogue.servers[HOSTS[1]] = addresses("10.90.0.200")
    assert found(dialogue.ask("db")) == {"10.90.0.200"}


def test_a_name_server_that_is_silent_is_a_failure(dialogue: Dialogue) -> None:
    dialogue.servers.clear()
    assert dialogue.ask("www.example.com").rcode() == dns.rcode.SERVFAIL


def test_nothing_of_an_internal_network_is_passed_on(dialogue: Dialogue) -> None:
    dialogue.record = replace(RECORD, internal=True)
    for name in ("www.example.com", "db"):
        assert dialogue.ask(name).rcode() == dns.rcode.NXDOMAIN
    assert (SERVER, 53) not in dialogue.asked


def test_another_host_gets_what_is_here_and_no_more(dialogue: Dialogue) -> None:
    assert found(dialogue.ask("web", as_host=True)) == {"10.90.0.2"}
    for name in ("db", "www.example.com"):
        assert dialogue.ask(name, as_host=True).rcode() == dns.rcode.NXDOMAIN
    assert dialogue.asked == [], "no host asks on: they would ask each other for ever"


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 600, b"GET / HTTP/1.1\r\n\r\n"])
def test_garbage_from_another_host_is_dropped(dialogue: Dialogue, garbage: bytes) -> None:
    query: Any = dns.message.make_query("web", "A")
    answer = dialogue.send(garbage, query.to_wire(), as_host=True)
    assert query.is_response(dns.message.from_wire(answer))
    response = dns.message.make_response(query)
    assert response.flags & dns.flags.QR
    answer = dialogue.send(response.to_wire(), query.to_wire(), as_host=True)
    assert found(dns.message.from_wire(answer)) == {"10.90.0.2"}


def test_a_container_that_asks_without_end_leaves_room_for_others(dialogue: Dialogue) -> None:
    dialogue.crowd = names.AT_ONCE + 1
    assert found(dialogue.ask("web")) == {"10.90.0.2"}
    assert len(dialogue.asked) == names.EACH


@pytest.mark.parametrize(
    "foreign", ["10.90.0.2", "10.90.0.1", "10.90.0.200", "10.77.0.2", "203.0.113.7"]
)
def test_a_host_speaks_for_its_own_containers_alone(dialogue: Dialogue, foreign: str) -> None:
    dialogue.servers[HOSTS[0]] = addresses(foreign, "10.90.0.130")
    assert found(dialogue.ask("db")) == {"10.90.0.130"}


@pytest.mark.parametrize("kind", ["IN", "CH", "CLASS42"])
def test_a_host_that_answers_with_what_is_no_address_harms_no_one(
    dialogue: Dialogue, kind: str
) -> None:
    def respond(query: dns.message.Message) -> dns.message.Message:
        reply = dns.message.make_response(query)
        data = {"IN": "10.90.0.130", "CH": "net. 0123", "CLASS42": r"\# 4 0a5a0082"}[kind]
        name = query.question[0].name
        reply.answer.append(dns.rrset.from_text(name, 1, kind, "A", data))
        return reply

    dialogue.servers[HOSTS[0]] = respond
    assert found(dialogue.ask("db")) == ({"10.90.0.130"} if kind == "IN" else set())


@pytest.mark.parametrize("payload", [-1, 0, 512, 1232])
def test_an_answer_is_as_long_as_the_asker_takes(dialogue: Dialogue, payload: int) -> None:
    dialogue.servers[HOSTS[0]] = addresses(*(f"10.90.0.{n}" for n in range(128, 192)))
    query = dns.message.make_query("db", "A", use_edns=payload >= 0, payload=max(payload, 0))
    answer = dialogue.send(query.to_wire())
    assert len(answer) <= max(payload, 512)
    assert len(found(dns.message.from_wire(answer))) >= 28
