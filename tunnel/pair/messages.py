"""What the two sides of `tunnel pair` say to an agent, and it to them: one JSON object a line.

Hello       {"tunnel": "0.1.0", "protocol": 1, "host": "office", "identity": "…"}
Request     {"id": 1, "do": "look", …}
Reply       {"id": 1, "result": …}
Refusal     {"id": 1, "error": "…"}

The agent says hello first. It answers in turn; a request that comes while it waits for something
ends that, as an error. No private key is in any message. A line has at most 1 MiB.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any, TypeVar

from tunnel.config import (
    AllowedIP,
    EndpointConfig,
    InterfaceConfig,
    KeyFormatError,
    PeerConfig,
    PresharedKey,
    PrivateKey,
    PublicKey,
)
from tunnel.config.fresh import conf_text, is_host_name
from tunnel.config.peers import KEEPALIVE, endpoint_at
from tunnel.config.problems import Mistake
from tunnel.config.values import check_name
from tunnel.control.messages import Message
from tunnel.errors import TunnelError
from tunnel.linux.json_text import check_fields, read_json

PROTOCOL = 1
"""Which requests there are, and what they mean. Both ends must have the same."""

MAX_LINE = 1 << 20

_M = TypeVar("_M", bound=Message)


class PairError(TunnelError):
    """Two hosts could not be paired; the text says why and what to do."""

    code = "pair"


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """An agent, its version, and the `host` that it is on, which `identity` tells from others."""

    tunnel: str
    protocol: int
    host: str
    identity: str


@dataclass(frozen=True, slots=True)
class Situation(Message):
    """What matters of a host before it is changed.

    `name_taken` says why a tunnel cannot have the name, empty if it can. `networks` and UDP `ports`
    are taken; of the networks only those that overlap the `space` that was asked about.
    `is_outside` says whether the address that was asked about is the host's own. A conf would be in
    `folder`. `has_unit` says whether systemd has the unit of tunnels.
    """

    name_taken: str
    networks: tuple[str, ...]
    ports: tuple[int, ...]
    is_outside: bool
    folder: str
    has_unit: bool


@dataclass(frozen=True, slots=True)
class NewConf(Message):
    """All of one end's conf but its private key. `addresses` are with prefix lengths.

    `endpoint` is where the other end reaches this one, and `peer_endpoint` the reverse, each empty
    for not at all. With `keepalive`, this end keeps the way open.
    """

    name: str
    addresses: tuple[str, ...]
    port: int
    endpoint: str
    peer_name: str
    peer_key: str
    preshared_key: str
    peer_addresses: tuple[str, ...]
    peer_endpoint: str
    keepalive: bool

    def text(self, private_key: PrivateKey) -> str:
        """The conf. Raises PairError if anything in it is not what it should be."""
        try:
            check_name(self.name)
            if not is_host_name(self.peer_name):
                raise Mistake("the name of the peer is not valid", "")
            interface = InterfaceConfig(
                private_key=private_key,
                addresses=tuple(map(ip_interface, self.addresses)),
                listen_port=self.port,
            )
            hosts = [ip_interface(str(ip_address(each))) for each in self.peer_addresses]
            peer = PeerConfig(
                PublicKey.from_base64(self.peer_key),
                PresharedKey.from_base64(self.preshared_key),
                allowed_ips=tuple(AllowedIP(each.network) for each in hosts),
                endpoint=_endpoint(self.peer_endpoint, self.port),
                persistent_keepalive=KEEPALIVE if self.keepalive else 0,
                friendly_name=self.peer_name,
            )
            return conf_text(self.name, interface, [peer], _endpoint(self.endpoint, self.port))
        except Mistake as mistake:
            raise PairError(f"the conf cannot be made: {mistake.fault}") from None
        except (KeyFormatError, ValueError) as error:
            raise PairError(f"the conf cannot be made: {error}") from None


def _endpoint(text: str, port: int) -> EndpointConfig | None:
    return endpoint_at(text, port) if text else None


@dataclass(frozen=True, slots=True)
class Proof(Message):
    """Whether the other end was there: by a handshake, and by an answer to a ping, whose round trip
    is in seconds, 0.0 for none.
    """

    handshake: bool
    ping: float


def line_of(data: dict[str, Any]) -> bytes:
    """An object as the line that carries it."""
    return json.dumps(data).encode() + b"\n"


def object_untrusted(line: bytes) -> dict[str, Any]:
    """The object that a line carries. Raises PairError."""
    try:
        found = read_json(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise PairError(f"unexpected line: {line[:200].decode(errors='replace').strip()}")
    return found


def message_untrusted(kind: type[_M], data: object) -> _M:
    """The message of that kind. Raises PairError."""
    try:
        if not isinstance(data, dict):
            raise TypeError("it is no object")
        return check_fields(kind.from_json(data))
    except TypeError as error:
        raise PairError(f"unexpected {kind.__name__}: {error}") from None
