"""Checks of the handshake: what its drop counters say of keys, preshared keys and clocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunnel.config import PublicKey
from tunnel.control.messages.status import PeerStatus, RefusedHandshake
from tunnel.doctor.around import restart_command
from tunnel.doctor.facts import Facts
from tunnel.doctor.findings import Finding

SETTLED = 5.0
"""Seconds after a handshake in which a copy of its messages may still come, which is no fault."""

Peers = Sequence[PeerStatus]


def _is_refused(facts: Facts, reason: str, peers: Peers) -> bool:
    """Whether handshakes are dropped for this reason that may be those of one of `peers`."""
    return bool(peers) and (facts.grown(reason) > 0 or _lasting(facts, reason, peers) is not None)


def _lasting(facts: Facts, reason: str, peers: Peers) -> tuple[PeerStatus, RefusedHandshake] | None:
    """A handshake refused before the doctor looked, of a peer that has completed none since."""
    if facts.before is None:
        return None
    for refused in facts.before.refused:
        for peer in peers if refused.reason == reason else ():
            is_later = refused.time > peer.latest_handshake + SETTLED
            if is_later and _may_be_from(refused, peer, facts.before.peers):
                return peer, refused
    return None


def _may_be_from(refused: RefusedHandshake, peer: PeerStatus, peers: Peers) -> bool:
    """By its key, else by the endpoint, unless that is another's of `peers`, else by the address;
    a peer that never was here may have any.
    """
    if refused.peer == peer.public_key:
        return True
    if any(other.endpoint == refused.endpoint for other in peers):
        return peer.endpoint == refused.endpoint
    if peer.endpoint is None:
        return not peer.latest_handshake
    return refused.endpoint.rpartition(":")[0] == peer.endpoint.rpartition(":")[0]


def _key(facts: Facts, reason: str, peers: Peers) -> str | None:
    """The peer that a drop must be of: the one it names, or the only one that it can be."""
    lasting = _lasting(facts, reason, peers)
    if lasting is not None:
        return lasting[0].public_key
    return peers[0].public_key if len(peers) == 1 else None


def _seen(facts: Facts, reason: str, peers: Peers) -> str:
    grown, lasting = facts.grown(reason), _lasting(facts, reason, peers)
    if grown or lasting is None:
        return f"{grown} handshake messages dropped as {reason} while the doctor looked"
    ago = max(facts.now - lasting[1].time, 0.0)
    return (
        f"a handshake from {lasting[1].endpoint} was dropped as {reason} {ago:.0f} s ago, and none "
        "has completed since"
    )


def check_own_key(facts: Facts) -> Iterator[Finding]:
    """A running peer with our own public key."""
    if facts.after is None:
        return
    for peer in facts.after.peers:
        if peer.public_key == facts.after.public_key:
            yield Finding(
                "own_key_as_peer",
                "a peer has this host's own public key: the keys of the two sides are mixed up",
                f"tunnel show {facts.name} lists it twice",
                "on the peer: tunnel pubkey < its private key; write that here",
                peer.public_key,
            )


def check_wrong_key_of_us(facts: Facts) -> Iterator[Finding]:
    """Initiations made for another key than ours, while a peer that should be there is not.

    Otherwise they are noise, such as scans.
    """
    if _is_refused(facts, "bad_mac1", facts.silent):
        yield _wrong_key_of_us(facts, facts.silent)


def check_unknown_peer(facts: Facts) -> Iterator[Finding]:
    """Well-formed initiations by a key that we do not know; noise as above."""
    if _is_refused(facts, "unknown_peer", facts.silent):
        yield _unknown_peer(facts, facts.silent)


def check_strangers(facts: Facts) -> Iterator[Finding]:
    """Notes: the same, where a peer that has to initiate has not. It may be the sender."""
    if facts.silent:
        return
    if _is_refused(facts, "bad_mac1", facts.absent):
        yield _wrong_key_of_us(facts, facts.absent)
    if _is_refused(facts, "unknown_peer", facts.absent):
        yield _unknown_peer(facts, facts.absent)


def _wrong_key_of_us(facts: Facts, peers: Peers) -> Finding:
    ours = facts.after.public_key if facts.after is not None else None
    return Finding(
        "peer_has_wrong_key",
        "handshakes come in that are made for another key than ours: a peer has the wrong "
        "PublicKey for this host",
        _seen(facts, "bad_mac1", peers),
        f"on the peer: wg set {facts.name} peer {ours} …, and the same PublicKey in its conf",
        _key(facts, "bad_mac1", facts.silent),
    )


def _unknown_peer(facts: Facts, peers: Peers) -> Finding:
    return Finding(
        "unknown_peer",
        "a host that knows our public key is no peer here: our PublicKey for it is wrong, or "
        "its private key was changed",
        _seen(facts, "unknown_peer", peers),
        "on the peer: wg show NAME public-key; write that key into the conf here, then "
        f"tunnel reload {facts.name}",
        _key(facts, "unknown_peer", facts.silent),
    )


def check_preshared_key(facts: Facts) -> Iterator[Finding]:
    """Answers that do not decrypt: only the preshared key is mixed in as late as there."""
    probed = {probe.peer for probe in facts.probes if probe.sent}
    # One that has no Endpoint here may have been asked all the same, where it was last.
    gone = facts.silent + tuple(peer for peer in facts.absent if peer.public_key in probed)
    if not gone or not facts.grown("handshake_invalid"):
        return
    has = {peer.has_preshared_key for peer in gone}
    ours = {frozenset({True}): "one", frozenset({False}): "none"}.get(frozenset(has), "some")
    yield Finding(
        "preshared_key_differs",
        "the peer answers, but its answers do not decrypt: the preshared key is set on one side "
        "only, or differs",
        f"{_seen(facts, 'handshake_invalid', gone)}; this side has {ours}",
        "put the same PresharedKey (or none) into both confs, then "
        f"tunnel reload {facts.name} on both",
        gone[0].public_key if len(gone) == 1 else None,
    )


def check_peer_clock(facts: Facts) -> Iterator[Finding]:
    """Initiations older than one that was accepted: by a peer that is known, so never noise."""
    gone = [*facts.silent, *(peer for peer in facts.absent if peer.latest_handshake)]
    if _is_refused(facts, "old_timestamp", gone):
        yield Finding(
            "peer_clock_back",
            "a peer's clock was set back: its handshakes are older than one seen before",
            _seen(facts, "old_timestamp", gone),
            "set the clock on the peer; or forget the last handshake here: "
            f"{restart_command(facts)}",
            _key(facts, "old_timestamp", gone),
        )


def check_low_order(facts: Facts) -> Iterator[Finding]:
    """A peer key with which nothing can be secret: nothing is ever sent to it."""
    for peer in facts.peers:
        if PublicKey.from_base64(peer.public_key).is_low_order:
            yield Finding(
                "low_order_key",
                "a peer's PublicKey is not a usable key",
                f"it is of low order: the secret shared with it is known to all; "
                f"{facts.grown('low_order_peer')} packets dropped as low_order_peer just now",
                "on the peer: tunnel genkey, tunnel pubkey; write the new key here",
                peer.public_key,
            )


def check_under_load(facts: Facts) -> Iterator[Finding]:
    """A note: a flood of handshakes."""
    reasons = ("cookie_required", "cookie_unanswered", "rate_limited")
    grown = sum(map(facts.grown, reasons))
    if grown:
        yield Finding(
            "under_load",
            "handshakes come faster than they can be answered",
            f"{grown} met by a cookie or a limit while the doctor looked",
            f"tunnel capture {facts.name} -w FILE shows who sends them",
        )
