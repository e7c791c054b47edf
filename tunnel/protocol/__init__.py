"""The sans-IO WireGuard state machine: peers, keypairs, timers, allowed IPs.

    interface.py     all peers, demultiplexing, under-load; start here
    peer.py          one peer: the rules in words, and what follows from them
    handshakes.py    when to start, repeat, give up and answer a handshake
    keypairs.py      the three keypairs of a peer; their ages
    peer_keys.py     keys shared with a peer, and the messages made from them
    timers.py        what a peer can be waiting for, and the table of which peer is due next
    staging.py       packets that wait for a keypair
    index_table.py   receiver indices: which keypair or handshake a message belongs to
    allowed_ips.py   which peer an inner address belongs to
    rate_limiter.py  how many handshakes one address may ask for under load
    cookie_replies.py
                     who is sent a cookie reply under load
    budget.py        so many a second
    clock.py         timestamps of our initiations
    context.py       what the peers of one interface share
    constants.py     the whitepaper's numbers, and ours
    driver.py        what the driver supplies: endpoints, ciphers, randomness, the wall clock
    outputs.py       what the driver is asked to do
    events.py        what the driver learns
    drops.py         why packets were dropped

Nothing here imports trio, socket, time, random or os; `now` and randomness are handed in, so a
test or a simulation lives through hours in a moment, and the same way each time.
"""

from crypto.keys import PublicKey

from .allowed_ips import AllowedIPs, Network, pack, unpack
from .driver import Transport, UdpAddress
from .drops import ProtocolDrop
from .events import (
    ClockImplausible,
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeRefused,
    HandshakeUnanswered,
    KeypairExpired,
    KeysErased,
    LocalAddressChanged,
    PeerConnected,
    PeerDisconnected,
    PeerRemoved,
    PeerRoamed,
    QuotaReached,
    RoutingLoop,
)
from .interface import Interface, PeerError, take_step
from .outputs import Datagram, DatagramKind, Seal
from .peer import Peer

__all__ = [
    "AllowedIPs",
    "ClockImplausible",
    "Datagram",
    "DatagramKind",
    "Event",
    "HandshakeCompleted",
    "HandshakeFailed",
    "HandshakeRefused",
    "HandshakeUnanswered",
    "Interface",
    "KeypairExpired",
    "KeysErased",
    "LocalAddressChanged",
    "Network",
    "Peer",
    "PeerConnected",
    "PeerDisconnected",
    "PeerError",
    "PeerRemoved",
    "PeerRoamed",
    "ProtocolDrop",
    "PublicKey",
    "QuotaReached",
    "RoutingLoop",
    "Seal",
    "Transport",
    "UdpAddress",
    "pack",
    "take_step",
    "unpack",
]
