"""Names of containers on other hosts, by DNS (RFC 1035).

Docker's name server in a container knows the containers of its own host, and forwards what it does
not know. The firewall of the network leads that to us. A name without a dot, or with the name of
the network as its domain, is asked of the other hosts of the network through the tunnel: a UDP port
of any address of their part is answered by the plugin there, in one Ethernet of the first address.
What none of them has is passed on to where it was going; of an internal network nothing is.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import trio

from tunnel.containers.docker import parts
from tunnel.containers.docker.docker_api import DockerApi
from tunnel.containers.docker.store import NetworkRecord
from tunnel.containers.docker.tunnels import TunnelFacts
from tunnel.containers.docker.wiring import ASKED_PORT, NameSockets
from tunnel.control.connections import Failures, InternalError
from tunnel.errors import TunnelError
from tunnel.host.conntrack import original_destination
from tunnel.host.dns import read_servers
from tunnel.host.gateway import IpAddress, Network

log = logging.getLogger("tunnel")

PATIENCE: Final = 2.0
"""Seconds for an answer of another host; programs ask again after five."""
FORWARDING: Final = 4.0
"""Seconds for an answer of the name server that was asked."""
TTL: Final = 5
"""Seconds for which an answer may be kept: containers come and go."""
AT_ONCE: Final = 64
"""Queries of one network that are worked on at a time; more are dropped, and asked again."""
EACH: Final = 32
"""How many of those may be of one address, so that one container leaves room for the others."""

_MAX_MESSAGE = 65535
_TYPES = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
_OTHER = {dns.rdatatype.A: dns.rdatatype.AAAA, dns.rdatatype.AAAA: dns.rdatatype.A}
_RECORD = {4: 16, 6: 28}
"""Bytes of an answer's record, by the IP version of its address."""
_SHORTEST = 512
"""Bytes of a message that everyone takes (RFC 1035, 2.3.4)."""
_DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class _Question:
    """A name in lower case without the last dot, and the IP version of the addresses (0: none)."""

    message: dns.message.Message
    name: str
    version: int


class NetworkNames:
    """The names of one network, until cancelled. `record` gives it as it is now."""

    def __init__(
        self,
        network: str,
        sockets: NameSockets,
        record: Callable[[], NetworkRecord | None],
        docker: DockerApi,
        look_up: Callable[[str], TunnelFacts],
        failures: Failures,
    ) -> None:
        self._network = network
        self._record = record
        self._docker = docker
        self._look_up = look_up
        self._failures = failures
        self._queries = trio.socket.from_stdlib_socket(sockets.queries)
        self._peers = trio.socket.from_stdlib_socket(sockets.peers)

    async def run(self) -> None:
        """Answer until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._serve, self._queries, self._answer_container)
            nursery.start_soon(self._serve, self._peers, self._answer_host)

    async def _serve(self, sock: trio.socket.SocketType, answer: Any) -> None:
        at_work: Counter[str] = Counter()

        async def work(data: bytes, whom: tuple[str, int]) -> None:
            try:
                with self._failures.contained("a question for a name"):
                    reply = await answer(data, whom)
                    if reply is not None:
                        await sock.sendto(reply, whom)
            except InternalError:
                pass  # it is logged
            except TunnelError as error:
                log.warning("a question for a name cannot be answered: %s", error)
            finally:
                at_work[whom[0]] -= 1
                if not at_work[whom[0]]:
                    del at_work[whom[0]]

        async with trio.open_nursery() as nursery:
            while True:
                try:
                    data, whom = await sock.recvfrom(_MAX_MESSAGE)
                except OSError as error:
                    log.debug("names: %s", error)
                    continue
                if at_work.total() < AT_ONCE and at_work[whom[0]] < EACH:
                    at_work[whom[0]] += 1
                    nursery.start_soon(work, data, whom)

    async def _answer_host(self, data: bytes, whom: tuple[str, int]) -> bytes | None:
        """To another host: what this one has, and nothing else."""
        question = _read_untrusted(data)
        if question is None:
            return None
        found = await self._local(question.name)
        return _reply(question, found).to_wire()

    async def _answer_container(self, data: bytes, whom: tuple[str, int]) -> bytes | None:
        question = _read_untrusted(data)
        record = self._record()
        if record is None:
            return None
        silent = False
        if question is not None and question.version:
            name = question.name
            found, own = await self._local_or_none(name)
            if found is None and ("." not in name or name.endswith(f".{own}")):
                found, silent = await self._ask_hosts(record, question, data)
            if found is not None:
                return _reply(question, found).to_wire()
        if not record.internal:
            answer = await self._forward(data, whom)
            if answer is not None and (not silent or _is_positive(answer)):
                return answer
            silent = True
        if question is None:
            return None
        reply = _reply(question, None)
        if silent:
            # Not "there is no such name": a host that may have it does not answer.
            reply.set_rcode(dns.rcode.SERVFAIL)
        return reply.to_wire()

    async def _local_or_none(self, name: str) -> tuple[tuple[IpAddress, ...] | None, str]:
        try:
            view = await self._docker.network(self._network, names=True)
        except TunnelError as error:
            log.debug("names: %s", error)
            return None, ""
        if view is None:
            return None, ""
        own = view.name.lower()
        return view.addresses.get(name.removesuffix(f".{own}")), own

    async def _local(self, name: str) -> tuple[IpAddress, ...] | None:
        return (await self._local_or_none(name))[0]

    async def _ask_hosts(
        self, record: NetworkRecord, question: _Question, query: bytes
    ) -> tuple[tuple[IpAddress, ...] | None, bool]:
        """The addresses that other hosts have for a name; and whether one of them is silent."""
        peers: Sequence[Sequence[Network]] = [(part,) for part in record.allowed]
        with contextlib.suppress(TunnelError):
            peers = (await trio.to_thread.run_sync(self._look_up, record.conf)).peers
        targets = _asked_at(record, peers)
        # Which of these are whose, the tunnel's AllowedIPs do not say.
        allowed = [network for peer in peers for network in peer]
        six = [part for p in record.pools if p.version == 6 for part in parts.others(p, allowed)]
        found: list[IpAddress] = []
        known = False
        answers = 0

        async def ask(address: str, own: list[Network]) -> None:
            nonlocal known, answers
            reply = await _exchange(query, (address, ASKED_PORT), PATIENCE)
            if reply is None:
                return
            answers += 1
            message = _message_untrusted(reply)
            if message is None or message.rcode() != dns.rcode.NOERROR:
                return
            # No host speaks for another, nor for the world.
            addresses = [e for e in _addresses(message) if parts.holds((*own, *six), e)]
            found.extend(addresses)
            # A name without addresses of this version has one of the other. Of a host that answers
            # so to all names, none would be passed on.
            known = known or bool(addresses) or await has_other(address, own)

        async def has_other(address: str, own: list[Network]) -> bool:
            asked = question.message.question[0]
            other = dns.message.make_query(asked.name, _OTHER[asked.rdtype]).to_wire()
            reply = await _exchange(other, (address, ASKED_PORT), PATIENCE)
            message = None if reply is None else _message_untrusted(reply)
            found = () if message is None else _addresses(message)
            return any(parts.holds((*own, *six), each) for each in found)

        async with trio.open_nursery() as nursery:
            for target, own in targets:
                nursery.start_soon(ask, target, own)
        return tuple(found) if known else None, answers < len(targets)

    async def _forward(self, data: bytes, whom: tuple[str, int]) -> bytes | None:
        here = self._queries.getsockname()
        meant = await trio.to_thread.run_sync(original_destination, whom, here)
        if meant is not None and meant[0] != here[0]:
            return await _exchange(data, meant, FORWARDING)
        # Asked at the gateway itself: then the name servers of this host are meant.
        for server in read_servers():
            answer = await _exchange(data, (server, _DNS_PORT), FORWARDING)
            if answer is not None:
                return answer
        return None


def _asked_at(
    record: NetworkRecord, peers: Sequence[Sequence[Network]]
) -> list[tuple[str, list[Network]]]:
    """Where to ask other hosts, each with its part: at any address of it, which is led to the
    plugin there.

    In one Ethernet at one that the host itself has: the gateway, the first of its part.
    """
    pools = [pool for pool in record.pools if pool.version == 4]
    if record.bridge:
        return [
            (str(next(parts.hosts(pool, left))), left)
            for pool in pools
            for left in parts.by_peer(pool, peers)
        ]
    allowed = [network for peer in peers for network in peer]
    own = [gateway.ip for gateway in record.gateways]
    return [
        (str(parts.last_host(pool, left[-1], own)), left)
        for pool in pools
        for left in parts.by_host(pool, allowed)
    ]


async def _exchange(query: bytes, server: tuple[str, int], seconds: float) -> bytes | None:
    """The answer of a name server, from its address and to that query; None without one."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with (
        contextlib.suppress(OSError),
        trio.move_on_after(seconds),
        trio.socket.socket(family, socket.SOCK_DGRAM) as sock,
    ):
        await sock.connect(server)
        await sock.send(query)
        while True:
            answer = await sock.recv(_MAX_MESSAGE)
            if answer[:2] == query[:2]:
                return answer
    return None


def _message_untrusted(data: bytes) -> dns.message.Message | None:
    try:
        return dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None


def _read_untrusted(data: bytes) -> _Question | None:
    message = _message_untrusted(data)
    if message is None or message.flags & dns.flags.QR or len(message.question) != 1:
        return None
    asked = message.question[0]
    name = asked.name.to_text(omit_final_dot=True).lower()
    return _Question(message, name, _TYPES.get(asked.rdtype, 0))


def _reply(question: _Question, found: Iterable[IpAddress] | None) -> dns.message.Message:
    """The answer: addresses of the version asked for, or that there is no such name."""
    reply = dns.message.make_response(question.message, recursion_available=True)
    reply.flags |= dns.flags.AA
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply
    texts = [str(address) for address in found if address.version == question.version]
    if texts:
        # As many as the asker takes: the name server has no TCP.
        room = max(question.message.payload, _SHORTEST) - len(reply.to_wire())
        texts = texts[: room // _RECORD[question.version]]
        asked = question.message.question[0]
        reply.answer.append(dns.rrset.from_text_list(asked.name, TTL, "IN", asked.rdtype, texts))
    return reply


def _addresses(message: dns.message.Message) -> Iterable[IpAddress]:
    for rrset in message.answer:
        if rrset.rdclass == dns.rdataclass.IN and rrset.rdtype in _TYPES:
            yield from (ip_address(each.to_text()) for each in rrset)


def _is_positive(data: bytes) -> bool:
    message = _message_untrusted(data)
    return message is not None and message.rcode() == dns.rcode.NOERROR and bool(message.answer)
