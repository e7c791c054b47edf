"""What other programs say: over sockets, and on standard input."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Awaitable, Callable
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import cast

import trio

from crypto.keys import PrivateKey
from tests.support.docker_driver import NETWORK, Scene
from tests.support.fuzz.files import JSON_WORDS, folder
from tests.support.fuzz.target import Target
from tests.support.uapi_device import make_device
from tunnel import config
from tunnel.containers.cni import ipam
from tunnel.containers.cni.errors import CniError
from tunnel.containers.cni.request import parse_request, version_of
from tunnel.containers.docker import docker_api, names
from tunnel.containers.docker import http as docker_http
from tunnel.containers.docker.docker_api import DockerApi
from tunnel.containers.docker.server import Requests
from tunnel.containers.errors import ContainerError
from tunnel.control import http, json_socket, uapi, uapi_client
from tunnel.control.clients import Client
from tunnel.control.connections import Failures
from tunnel.control.http import HttpError
from tunnel.control.uapi_client import UapiClientError
from tunnel.device.device import Device
from tunnel.errors import TunnelError
from tunnel.host import container_engine
from tunnel.host.container_engine import Answer
from tunnel.host.errors import HostError
from tunnel.linux.json_text import read_json
from tunnel.pair.messages import (
    Hello,
    NewConf,
    PairError,
    Proof,
    Situation,
    message_untrusted,
    object_untrusted,
)
from tunnel.web.api import OPERATIONS
from tunnel.web.errors import WebError
from tunnel.web.schema import read_untrusted


class Connection:
    """One end of a connection whose bytes are all there; what is sent is kept."""

    def __init__(self, data: bytes, piece: int = 65_536) -> None:
        self._data = data
        self._piece = piece
        self.sent = bytearray()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        taken, self._data = self._data[: self._piece], self._data[self._piece :]
        return taken

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.sent += data

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def has_left(self) -> bool:
        return False


def served(data: bytes, serve: Callable[[Client], Awaitable[None]]) -> bytes:
    """What a server answers to all of `data`, which it may close the connection for."""
    connection = Connection(data)

    async def main() -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            await serve(cast(Client, connection))

    trio.run(main)
    return bytes(connection.sent)


class NoFailures(Failures):
    """What fails is a failure of the target: no request of a client may be a defect of ours."""

    def log(self, request: str, error: BaseException) -> None:
        raise AssertionError(f"{request} has failed") from error


@cache
def device() -> Device:
    """The device that UAPI clients talk to."""
    made, _ = make_device()
    return made


def device_state() -> object:
    """All that a `set` may change."""
    interface = device().engine.interface
    return interface.public_key, [
        (
            key,
            bytes(peer.preshared_key),
            peer.endpoint,
            peer.persistent_keepalive,
            sorted(interface.allowed_ips.packed_of(peer)),
        )
        for key, peer in interface.peers.items()
    ]


def run_uapi(data: bytes) -> None:
    """A connection of `wg`. A `set` that is refused has changed nothing."""
    before = device_state()
    server = uapi._Server(device())
    server.failures = NoFailures("test")
    answer = served(data, server.serve_connection)
    codes = [line for line in answer.split(b"\n") if line.startswith(b"errno=")]
    assert b"errno=5" not in codes, "a defect of ours"
    if b"errno=0" not in codes:
        assert device_state() == before, "something has changed, though all was refused"
    device().engine.interface.set_private_key(PrivateKey(bytes([1]) * 32), 0.0)
    for key in list(device().engine.interface.peers):
        device().engine.interface.remove_peer(key)


async def echo(params: dict[str, object]) -> dict[str, object]:
    return params


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} in an answer")


def run_control(data: bytes) -> None:
    """A connection to the control socket: each answer is strict JSON."""
    server = json_socket._Server({"echo": echo}, {})
    server.failures = NoFailures("test")
    for line in served(data, server.serve_connection).splitlines():
        answer = json.loads(line, parse_constant=refuse_constant)
        assert answer["v"] == 1
        assert ("result" in answer) != ("error" in answer)


def run_web_bodies(data: bytes) -> None:
    """Read a body as that of each operation of the page; it is refused if all refuse it."""
    refusals, is_read = [], False
    for operation in OPERATIONS:
        if operation.body is not None:
            try:
                made = read_untrusted(operation.body, data)
            except WebError as error:
                refusals.append(error)
            else:
                is_read = True
                assert read_untrusted(operation.body, json.dumps(made.to_json()).encode()) == made
    if not is_read:
        raise refusals[0]


def run_metrics(data: bytes) -> None:
    """A request for the metrics."""

    async def main() -> tuple[str, str]:
        head = await http._read_head_untrusted(cast(Client, Connection(data)))
        assert len(head) <= http.MAX_REQUEST
        return http.parse_head_untrusted(head)

    method, path = trio.run(main)
    assert method in ("GET", "HEAD")
    assert " " not in path


def run_uapi_answer(data: bytes) -> None:
    """What a daemon answers to our client of the UAPI."""
    uapi_client._snapshot_untrusted(uapi_client._lines_untrusted(Path("wg0.sock"), data))


def run_docker_requests(data: bytes) -> None:
    """A connection of Docker to its plugin: HTTP; or a line for each request, with a letter for
    the method and its body.
    """
    scene = Scene(folder() / "docker")
    with contextlib.suppress(FileNotFoundError):
        scene.store.path.unlink()
    requests = Requests(scene.driver, NoFailures("test"), lambda: None)
    if data[:1].islower():
        methods = [method for _, method in sorted(requests._methods.items())]
        for line in data.split(b"\n"):
            method = methods[(line[0] - ord("a")) % len(methods)] if line else methods[0]
            with contextlib.suppress(ValueError, TunnelError):
                json.dumps(method(read_json(line[1:])))
    else:

        async def converse(stream: Client) -> None:
            await docker_http.converse(stream, requests.answer)

        answer = served(data, converse)
        assert not answer or answer.startswith(b"HTTP/1.1 ")
    assert scene.store.load() is not None, "what was written can be read"


def run_cni(data: bytes) -> None:
    """A call of the CNI plugin: a line with the environment's values, and standard input."""
    head, _, rest = data.partition(b"\n")
    values = [os.fsdecode(value) for value in head.split(b"|")] + [""] * 5
    known = ("CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_PATH")
    environment = dict(zip(known, values, strict=False))
    text = rest.decode("utf-8", "replace")
    assert version_of(text)
    request = parse_request(environment, text)
    assert len(request.outer) <= 15
    assert request.outer.isprintable()
    with contextlib.suppress(CniError):
        request.config.valid_outers()
    if request.config.previous is not None:
        ipam.read_lease(request.config.previous)


def run_engine_answer(data: bytes) -> None:
    """What a container engine answers to a question for a container."""
    head, _, body = data.partition(b"\r\n\r\n")
    status = container_engine._status("engine", head)
    container_engine._container_untrusted("engine", Answer(status, body, 1))


def run_docker_networks(data: bytes) -> None:
    """What Docker answers to a question for a network, and for its containers."""

    class Answering(DockerApi):
        async def _get(self, target: str) -> tuple[int, object]:
            await trio.lowlevel.checkpoint()
            first, _, second = data.partition(b"\n")
            piece = second if "containers" in target else first
            return docker_api._read_untrusted(target, Answer(200, piece, 1))

    async def main() -> None:
        view = await Answering("engine").network(NETWORK, names=True)
        assert view is not None

    trio.run(main)


def run_names(data: bytes) -> None:
    """A message of DNS: from a container, or the answer of another host."""
    question = names._read_untrusted(data)
    if question is not None:
        for found in (None, [ip_address("10.0.0.1"), ip_address("fd00::1")] * 50):
            reply = names._reply(question, found).to_wire()
            assert len(reply) <= max(question.message.payload, 512) + len(data)
    names._is_positive(data)
    message = names._message_untrusted(data)
    if message is not None:
        list(names._addresses(message))


def run_pair(data: bytes) -> None:
    """What an agent of `tunnel pair` says, or is asked for, as each kind of message in turn."""
    line = object_untrusted(data)
    with contextlib.suppress(PairError):
        message_untrusted(Hello, line)
    with contextlib.suppress(PairError):
        message_untrusted(Situation, line)
    with contextlib.suppress(PairError):
        message_untrusted(Proof, line)
    text = message_untrusted(NewConf, line).text(PAIR_KEY)
    parsed = config.parse(text, name=str(line["name"]), source="of a pair")
    assert not parsed.interface.hooks, "whoever may pair may run commands as root"


PAIR_KEY = PrivateKey.from_random(bytes(range(32)))
TARGETS = (
    Target(
        name="uapi",
        reads=("tunnel.control.uapi", "tunnel.control.uapi_grammar", "tunnel.control.connections"),
        run=run_uapi,
        base=20_000,
        per_byte=60,
        words=(
            b"set=1\n",
            b"get=1\n\n",
            b"\n\n",
            b"public_key=" + b"11" * 32 + b"\n",
            b"private_key=" + b"40" * 32 + b"\n",
            b"allowed_ip=10.0.0.0/8\n",
            b"remove=true\n",
            b"allowed_ip=-fd00::/8\n",
            b"endpoint=[fe80::1%2]:5\n",
            b"replace_peers=true\n",
            b"listen_port=7777\n",
            b"update_only=true\n",
            b"protocol_version=1\n",
            b"x" * 2000,
        ),
    ),
    Target(
        name="uapi_answers",
        reads=("tunnel.control.uapi_client", "tunnel.control.uapi_grammar"),
        run=run_uapi_answer,
        refusal=UapiClientError,
        words=(
            b"errno=0\n\n",
            b"errno=-",
            b"9" * 5000,
            b"public_key=" + b"11" * 32 + b"\n",
            b"rx_bytes=1\n",
        ),
    ),
    Target(
        name="control_requests",
        reads=(
            "tunnel.control.json_socket",
            "tunnel.control.connections",
            "tunnel.linux.json_text",
        ),
        run=run_control,
        base=20_000,
        per_byte=60,
        words=(b'{"v": 1, "id": 7, "method": "echo", "params": {', b"}}\n", *JSON_WORDS),
    ),
    Target(
        name="metrics_requests",
        reads=("tunnel.control.http", "tunnel.control.connections"),
        run=run_metrics,
        refusal=HttpError,
        words=(
            b"GET ",
            b"HEAD ",
            b"/metrics?a=b",
            b" HTTP/1.1\r\n",
            b"\r\n\r\n",
            b"\n",
            b"A: b\r\n",
        ),
    ),
    Target(
        name="web_bodies",
        reads=("tunnel.web.schema",),
        run=run_web_bodies,
        refusal=WebError,
        words=(
            b'{"name": "x", "expires": "7d", "reach": ["0.0.0.0/0"], ',
            b'"disabled": null, ',
            b'"seconds": 60, ',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="docker_requests",
        reads=(
            "tunnel.containers.docker.http",
            "tunnel.containers.docker.protocol",
            "tunnel.containers.docker.server",
        ),
        run=run_docker_requests,
        base=50_000,
        per_byte=60,
        words=(
            b"POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nHost: p\r\n",
            b"Content-Length: 2\r\n\r\n{}",
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"Content-Length: 99999999999\r\n\r\n",
            b'"NetworkID": "' + b"a" * 64 + b'"',
            b'"IPv4Data": [{"Pool": "10.90.0.0/24"}]',
            b'"EndpointID": "' + b"b" * 64 + b'"',
            b'"Options": {',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="docker_answers",
        reads=("tunnel.containers.docker.docker_api", "tunnel.host.container_engine"),
        run=run_docker_networks,
        refusal=ContainerError,
        base=20_000,
        words=(
            b'"Containers": {"a": {"EndpointID": "e", "IPv4Address": "10.0.0.1/8"}}',
            b'"NetworkSettings": {"Networks": {',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="container_answers",
        reads=("tunnel.host.container_engine",),
        run=run_engine_answer,
        refusal=HostError,
        words=(
            b"HTTP/1.0 200 OK\r\n\r\n",
            b"HTTP/1.0 " + b"9" * 5000,
            b'{"Id": "a", "Name": "/b", ',
            b'"State": {"Running": true, "Pid": 7}',
            b'"HostConfig": {"NetworkMode": "none"}',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="cni",
        reads=("tunnel.containers.cni.request", "tunnel.containers.cni.ipam"),
        run=run_cni,
        refusal=CniError,
        words=(
            b"ADD|c1|eth0|/run/netns/c1|/opt/cni/bin\n",
            b'"cniVersion": "1.0.0", "name": "net", ',
            b'"conf": "office", "ipam": {"type": "host-local"}',
            b'"bridge": "\\ud800"',
            b'"prevResult": {"ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1"}]}',
            b'"cni.dev/valid-attachments": [{"containerID": "\\ud800", "ifname": "e"}]',
            *JSON_WORDS,
        ),
    ),
    Target(
        name="dns_messages",
        reads=("tunnel.containers.docker.names",),
        run=run_names,
        base=100_000,
        per_byte=2_000,
        words=(
            b"\1\0\0\1\0\0\0\0\0\0",
            b"\3web\0\0\1\0\1",
            b"\xc0\x0c",
            b"\0\x1c\0\1",
            b"\0\0\x29\x10\0\0\0\0\0\0\0",
            b"\x84\0\0\1\0\1\0\0\0\0",
        ),
    ),
    Target(
        name="pair",
        reads=("tunnel.pair.messages", "tunnel.linux.json_text"),
        run=run_pair,
        refusal=PairError,
        base=30_000,
        per_byte=200,
        words=(*JSON_WORDS, b'"10.0.0.1/24"', b'"peer_name": "b"', b"#", b"\\n"),
    ),
)
