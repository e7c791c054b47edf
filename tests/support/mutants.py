"""What each case of the judge must find: our engine with one rule broken, a mutant for each case.

A mutant patches the engine, or the fakes around it, for one test.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from itertools import count
from struct import Struct
from typing import Any, TypeAlias, cast

import pytest

from crypto.cookies import MacChecker, MacGenerator
from crypto.keys import PresharedKey, PrivateKey, PublicKey
from tests.support.conforming import EngineSubject, InnerTun, MemoryWire, WiredUdp
from tunnel.control.timeslice import Pace
from tunnel.datapath.reference import ReferenceSession
from tunnel.datapath.replay import ReplayWindow
from tunnel.device.configure import _Steps
from tunnel.engine import Engine
from tunnel.engine.sender import Sender
from tunnel.io.endpoint import Endpoint
from tunnel.protocol import Interface, Peer
from tunnel.protocol.context import Context
from tunnel.protocol.drops import ProtocolDrop
from tunnel.protocol.handshakes import Handshakes
from tunnel.protocol.index_table import IndexTable
from tunnel.protocol.keypairs import Keypair, Keypairs
from tunnel.protocol.rate_limiter import RateLimiter
from tunnel.protocol.staging import Staged
from tunnel.protocol.timers import NEVER, Timer

Patch: TypeAlias = pytest.MonkeyPatch
Mutant: TypeAlias = Callable[[Patch], None]
Function: TypeAlias = Callable[..., Any]
"""A method of ours, whatever it takes."""

_RESPONSE = b"\2\0\0\0" + bytes(88)
_INITIATION = b"\1\0\0\0" + bytes(144)
_NUMBERS = count(1)


def value(target: str, new: object) -> Mutant:
    """Another value of a constant or function, by its dotted name."""
    return lambda patch: patch.setattr(target, new)


def replaced(owner: type, name: str, new: Function) -> Mutant:
    """Another method."""
    return lambda patch: patch.setattr(owner, name, new)


def wrapped(owner: type, name: str, wrap: Callable[..., Any]) -> Mutant:
    """`wrap(method, self, …)` in place of the method."""
    method: Function = getattr(owner, name)
    return replaced(owner, name, lambda self, *args, **kw: wrap(method, self, *args, **kw))


def keeps_deadline(owner: type, name: str, timer: Timer) -> Mutant:
    """The method does not move or stop this timer."""

    def wrap(method: Function, peer: Peer[Any, Any], *args: Any, **kw: Any) -> None:
        before = peer.deadlines[timer]
        method(peer, *args, **kw)
        if before != NEVER:
            peer.deadlines[timer] = before

    return wrapped(owner, name, wrap)


def on_arrival(react: Callable[[EngineSubject, MemoryWire, bytes], None]) -> Mutant:
    """Something that is done for every datagram."""

    def wrap(method: Function, subject: EngineSubject) -> None:
        method(subject)
        subject.udp.on_arrival = lambda wire, data: react(subject, wire, data)

    return wrapped(EngineSubject, "__init__", wrap)


def _answer(subject: EngineSubject, wire: MemoryWire, data: bytes) -> None:
    if len(data) < 64 * 148:
        wire.deliver(_RESPONSE, 0)


def _roam(subject: EngineSubject, wire: MemoryWire, data: bytes) -> None:
    for peer in subject.engine.interface.peers.values():
        peer.set_endpoint(Endpoint(wire.packed, wire.port))


async def _inject_aloud(method: Function, subject: EngineSubject, inner: bytes) -> None:
    await method(subject, inner)
    for wire in subject.udp.wires.values():
        wire.deliver(_INITIATION, 0)


def requests(change: Callable[[str], str]) -> Mutant:
    """What the UAPI is asked is changed."""

    async def wrap(method: Function, subject: EngineSubject, request: str) -> str:
        answer: str = await method(subject, change(request))
        return answer

    return wrapped(EngineSubject, "uapi", wrap)


def answers(change: Callable[[EngineSubject, str], str]) -> Mutant:
    """What the UAPI answers is changed."""

    async def wrap(method: Function, subject: EngineSubject, request: str) -> str:
        return change(subject, await method(subject, request))

    return wrapped(EngineSubject, "uapi", wrap)


def without(line: str) -> Mutant:
    """The UAPI does not read this line."""
    return requests(lambda request: request.replace(f"{line}\n", ""))


def _with_itself(subject: EngineSubject, answer: str) -> str:
    own = subject.engine.interface.public_key
    shown = "" if own is None else f"public_key={own.to_hex()}\n"
    return answer.replace("errno=0", f"{shown}errno=0")


def _long_ago(subject: EngineSubject, answer: str) -> str:
    lines = answer.split("\n")
    key = "last_handshake_time_sec="
    return "\n".join(f"{key}17" if line.startswith(key) else line for line in lines)


def _without_endpoint_alone(request: str) -> str:
    if "allowed_ip" in request:
        return request
    return "\n".join(line for line in request.split("\n") if not line.startswith("endpoint="))


def _marked_macs(method: Function, macs: MacGenerator, *args: Any) -> bytes:
    return bytes(method(macs, *args)[:-1]) + b"\1"


def _lenient_agree(private: PrivateKey, public: PublicKey) -> bytes:
    try:
        return private.exchange(public)
    except Exception:
        return bytes(32)


def _used_at_once(keypairs: Keypairs[Any, Any], keypair: Keypair[Any, Any]) -> None:
    keypairs._by_index[keypair.local_index] = keypair
    keypairs._fill(keypairs.current, keypair, None)


def _kept_by_index(method: Function, keypairs: Keypairs[Any, Any], *args: Any) -> Any:
    before = dict(keypairs._by_index)
    found = method(keypairs, *args)
    keypairs._by_index.update(before)
    return found


def _spoiled(method: Function, handshakes: Handshakes[Any], *args: Any) -> Any:
    keys = method(handshakes, *args)
    if keys is None:
        handshakes.forget()
    return keys


def _busy(method: Function, handshakes: Handshakes[Any], *args: Any) -> Any:
    if handshakes.pending is not None:
        return ProtocolDrop.HANDSHAKE_FLOOD
    return method(handshakes, *args)


def _first_key_only(method: Function, peer: Peer[Any, Any], key: PresharedKey) -> None:
    if peer.preshared_key == PresharedKey.ZERO:
        method(peer, key)


async def _first_key(engine: Engine, key: PrivateKey | None, pace: Pace) -> None:
    if engine.interface.private_key is None:
        engine.interface.set_private_key(key, engine.clock())


async def _nothing(*args: object, **kw: object) -> None:
    """Do nothing."""


def _unless_empty(method: Function, sender: Sender, output: Any, now: float) -> Any:
    return method(sender, output, now) if output.frames else None


def _only(allowed: Callable[[bytes], bool]) -> Callable[..., None]:
    """A method that passes on what is allowed."""

    def wrap(method: Function, owner: Any, data: Any, *args: Any) -> Any:
        return method(owner, data, *args) if allowed(bytes(data)) else True

    return wrap


def _unmarked(method: Function, wire: MemoryWire, data: bytes, tos: int) -> None:
    method(wire, data, 0)


def _twice(method: Function, owner: Any, *args: Any) -> Any:
    method(owner, *args)
    return method(owner, *args)


def _window_of(size: int) -> Mutant:
    def wrap(method: Function, window: ReplayWindow, counter: int) -> bool:
        return counter > window.greatest - size and bool(method(window, counter))

    return wrapped(ReplayWindow, "is_new", wrap)


def _mark(subject: EngineSubject, wire: MemoryWire, data: bytes) -> None:
    keypairs = subject.engine.interface._context.index_table.keypairs
    keypair = keypairs.get(int.from_bytes(data[4:8], "little"))
    if keypair is not None and data[0] == 4 and int.from_bytes(data[8:16], "little") >> 32:
        window: ReplayWindow = cast(ReferenceSession, keypair.transport)._window
        window.mark(int.from_bytes(data[8:16], "little"))


class _NarrowNonce:
    """Nonces made of 32 bits of the counter."""

    @staticmethod
    def pack(counter: int) -> bytes:
        return Struct("<4xQ").pack(counter & 0xFFFF_FFFF)


def _forgiving_length(packet: bytes) -> int:
    return len(packet)


def _again(method: Function, peer: Peer[Any, Any], now: float, size: int, *, data: bool) -> None:
    method(peer, now, size, data=data)
    if not data:
        peer._arm(Timer.SEND_KEEPALIVE, now + 10)


def _all_data(method: Function, peer: Peer[Any, Any], *args: Any, data: bool) -> None:
    method(peer, *args, data=True)


def _later(method: Function, peer: Peer[Any, Any], seconds: int, now: float) -> None:
    method(peer, seconds, now)
    if seconds:
        peer._arm(Timer.PERSISTENT_KEEPALIVE, now + seconds)


def _never_off(method: Function, peer: Peer[Any, Any], seconds: int, now: float) -> None:
    if seconds:
        method(peer, seconds, now)


def _of_initiator(method: Function, keypair: Any, *args: Any, is_initiator: bool) -> None:
    method(keypair, *args, is_initiator=True)


def _of_address_alone(patch: Patch) -> None:
    cookie_of, create = MacChecker.cookie_of, MacChecker.create_cookie_reply
    patch.setattr(MacChecker, "cookie_of", lambda self, s, now: cookie_of(self, s[:-2], now))
    patch.setattr(
        MacChecker, "create_cookie_reply", lambda self, d, s, now: create(self, d, s[:-2], now)
    )


def _starving(patch: Patch) -> None:
    patch.setattr(RateLimiter, "allow", lambda *args: False)
    patch.setattr(Interface, "is_under_load", lambda *args: True)
    patch.setattr("tests.conformance.cases.cookies.LOAD_SECONDS", 1.0)


def _gullible(macs: MacGenerator, reply: object, now: float) -> None:
    macs._cookie, macs._cookie_since = bytes(16), now


def _losing(patch: Patch) -> None:
    numbers: Iterator[int] = count()
    lossy = _only(lambda data: next(numbers) < 3 or secrets.randbelow(8) == 0)
    wrapped(InnerTun, "write", lossy)(patch)


chatty = on_arrival(_answer)
roaming = on_arrival(_roam)
talkative = wrapped(EngineSubject, "inject", _inject_aloud)
quiet = wrapped(MemoryWire, "deliver", _only(lambda data: len(data) != 32))
delivering_twice = wrapped(InnerTun, "write", _twice)
forgetful = replaced(Handshakes, "refusal", lambda *args: None)
hasty = replaced(Keypairs, "install_answered", _used_at_once)
trusting = replaced(Interface, "source_allowed", lambda *args: True)
replaying = replaced(ReplayWindow, "is_new", lambda *args: True)
staying = wrapped(
    Peer, "_move", lambda move, peer, to: move(peer, to) if peer.endpoint is None else None
)
deaf_to_cookies = replaced(MacGenerator, "consume_cookie_reply_untrusted", lambda *args: None)
showing_itself = answers(_with_itself)
lengthy = value("tunnel.datapath.ip.length_untrusted", _forgiving_length)
everlasting = value("tunnel.protocol.keypairs.REJECT_AFTER_TIME", 1000.0)

MUTANTS: dict[str, Mutant] = {
    # messages
    "silence-unknown-key": chatty,
    "silence-bad-mac1": chatty,
    "silence-length": chatty,
    "silence-reserved": chatty,
    "silence-junk": chatty,
    "giant-datagram": chatty,
    "silence-unknown-index": chatty,
    "replayed-initiation": forgetful,
    "older-timestamp": forgetful,
    "initiation-spacing": forgetful,
    "low-order-ephemeral": value("crypto.noise.agree_untrusted", _lenient_agree),
    "low-order-peer": talkative,
    # handshakes
    "random-indices": replaced(IndexTable, "draw", lambda *args: next(_NUMBERS)),
    "response-form": wrapped(MacGenerator, "add_macs", _marked_macs),
    "initiation-form": wrapped(MacGenerator, "add_macs", _marked_macs),
    "whitened-timestamp": value("crypto.tai64n._WHITEN", 0),
    "responder-waits": hasty,
    "staged-until-confirmed": replaced(Staged, "take", lambda *args: ()),
    "initiator-confirms": wrapped(Sender, "send_staged", _unless_empty),
    "next-session-waits": hasty,
    "previous-session": replaced(
        Keypairs, "confirm", lambda keypairs: keypairs._fill(None, keypairs.next, None)
    ),
    "old-session-dropped": wrapped(Keypairs, "_fill", _kept_by_index),
    "duplicate-response": wrapped(MemoryWire, "deliver", _twice),
    "forged-response": wrapped(Handshakes, "consume_response_untrusted", _spoiled),
    "crossing-initiations": wrapped(Handshakes, "refusal", _busy),
    "preshared-key-required": replaced(Peer, "set_preshared_key", lambda *args: None),
    "preshared-key-change": wrapped(Peer, "set_preshared_key", _first_key_only),
    "private-key-change": value("tunnel.device.allowed_ips.set_private_key", _first_key),
    "own-key-as-peer": showing_itself,
    "private-key-of-a-peer": showing_itself,
    "removed-peer": replaced(_Steps, "_remove_peer", _nothing),
    "staged-packets": value("tunnel.protocol.staging.MAX_STAGED_FRAMES", 64),
    "no-endpoint": talkative,
    "no-route": talkative,
    "ipv6-outer": wrapped(
        WiredUdp,
        "arrive",
        lambda arrive, udp, wire, *args: arrive(udp, wire, *args) if ":" not in wire.address else 0,
    ),
    "ipv6-inner": wrapped(InnerTun, "write", _only(lambda frame: frame[10] >> 4 == 4)),
    "interface-down": replaced(Engine, "set_link_up", lambda *args: None),
    # transport
    "padding": value("tunnel.datapath.split.padded_length", lambda length, mtu: length),
    "padding-below-mtu": value(
        "tunnel.datapath.split.padded_length", lambda length, mtu: -(-length // 16) * 16
    ),
    "padding-removed": lengthy,
    "keepalive-is-empty": quiet,
    "counters-from-zero": wrapped(
        ReferenceSession,
        "__init__",
        lambda init, session, *args, **kw: init(session, *args, **{**kw, "initial_counter": 5}),
    ),
    "replayed-packet": replaying,
    "replay-window-of-the-paper": _window_of(1000),
    "replay-window-of-linux": _window_of(2000),
    "before-the-window": replaying,
    "forged-counter": on_arrival(_mark),
    "64-bit-counters": value("tunnel.datapath.reference._NONCE", _NarrowNonce),
    "reject-after-messages": value("tunnel.datapath.reference.REJECT_AFTER_MESSAGES", 2**64),
    "source-in-allowed-ips": trusting,
    "nested-allowed-ips": trusting,
    "malformed-inner": lengthy,
    "keepalive-not-delivered": delivering_twice,
    "roaming-by-data": staying,
    "roaming-by-handshake": staying,
    "no-roaming-by-replay": replaying,
    "no-roaming-by-forgery": roaming,
    "ecn-outwards": wrapped(MemoryWire, "deliver", _unmarked),
    "ecn-inwards": value("tunnel.datapath.ip.decapsulated", lambda packet, outer_ecn: packet),
    "dscp-of-handshakes": value("tunnel.engine.sender.TOS_HANDSHAKE", 0),
    "many-packets": delivering_twice,
    "forged-tags": delivering_twice,
    # timers
    "passive-keepalive": value("tunnel.protocol.peer.KEEPALIVE_TIMEOUT", 5.0),
    "passive-keepalive-once": wrapped(Peer, "handle_sent", _again),
    "keepalive-unanswered": wrapped(Peer, "handle_received", _all_data),
    "no-keepalive-while-sending": keeps_deadline(Peer, "handle_sent", Timer.SEND_KEEPALIVE),
    "new-handshake-after-15-s": value("tunnel.protocol.peer.NEW_HANDSHAKE_TIMEOUT", 20.0),
    "no-handshake-if-answered": keeps_deadline(Peer, "_note_authentic", Timer.NEW_HANDSHAKE),
    "handshake-retry": value("tunnel.protocol.handshakes.REKEY_TIMEOUT", 7.0),
    "retry-jitter": replaced(Context, "jitter", lambda context: 0.0),
    "handshake-spacing": value("tunnel.protocol.handshakes.REKEY_TIMEOUT", 1.0),
    "attempts-end-after-90-s": value("tunnel.protocol.handshakes.REKEY_ATTEMPT_TIME", 1000.0),
    "rekey-after-120-s": value("tunnel.protocol.keypairs.REKEY_AFTER_TIME", 1000.0),
    "session-while-rekeying": value("tunnel.protocol.handshakes.REKEY_TIMEOUT", 2.0),
    "no-rekey-by-the-responder": wrapped(Keypair, "__init__", _of_initiator),
    "rekey-on-receive-after-165-s": value(
        "tunnel.protocol.keypairs.REKEY_ON_RECEIVE_AFTER_TIME", 1000.0
    ),
    "no-receiving-after-180-s": everlasting,
    "no-sending-after-180-s": everlasting,
    "erased-after-540-s": replaced(Handshakes, "forget", lambda *args: None),
    "persistent-keepalive-at-once": wrapped(Peer, "set_persistent_keepalive", _later),
    "persistent-keepalive": quiet,
    "persistent-keepalive-in-silence": keeps_deadline(
        Peer, "_note_authentic", Timer.PERSISTENT_KEEPALIVE
    ),
    "persistent-keepalive-off": wrapped(Peer, "set_persistent_keepalive", _never_off),
    # cookies
    "cookie-under-load": replaced(MacChecker, "cookie_of", lambda *args: secrets.token_bytes(16)),
    "cookie-of-address-and-port": _of_address_alone,
    "no-cookie-for-bad-mac1": chatty,
    "limit-for-each-source": _starving,
    "session-under-load": _losing,
    "cookie-used-by-initiator": deaf_to_cookies,
    "cookie-used-by-responder": deaf_to_cookies,
    "forged-cookie-reply": replaced(MacGenerator, "consume_cookie_reply_untrusted", _gullible),
    "no-roaming-by-cookie-reply": roaming,
    "cookie-for-120-s": value("crypto.cookies.COOKIE_LIFETIME", 1000.0),
    "no-cookie-without-load": replaced(Interface, "is_under_load", lambda *args: True),
    # uapi
    "get-statistics": answers(_long_ago),
    "set-refuses": answers(lambda subject, answer: "errno=0\n\n"),
    "update-only": without("update_only=true"),
    "replace-peers": without("replace_peers=true"),
    "allowed-ip-moves": trusting,
    "replace-allowed-ips": without("replace_allowed_ips=true"),
    "endpoint-change": requests(_without_endpoint_alone),
}
