"""The sans-IO WireGuard state machine: peers, sessions, timers, allowed IPs.

    interface.py     all peers, receiver indices, demultiplexing, under-load; start here
    peer.py          one peer: the rules in words, and what they come to
    handshakes.py    when to start, repeat and answer a handshake
    credentials.py   keys shared with a peer, and the messages made from them
    sessions.py      the three places for its sessions; their ages
    timers.py        what a peer can be waiting for, and the table of who is due next
    staging.py       packets that wait for a session
    allowed_ips.py   which peer an inner address belongs to
    rate_limiter.py  how many handshakes one address may ask for under load
    clock.py         timestamps of our initiations
    context.py       what the peers of one interface share
    constants.py     the whitepaper's numbers, and ours
    boundary.py      what the driver supplies: endpoints, ciphers, randomness, the wall clock
    outputs.py       what the driver is asked to do
    events.py        what the driver is told
    drops.py         why packets were dropped

Nothing here imports trio, socket, time, random or os; `now` and randomness are handed in, so a
test or a simulation lives through hours in a moment, and the same way each time.
"""

from tunnel.protocol.driver import Endpoint, Transport

from .allowed_ips import AllowedIPs, Network, pack, unpack
from .drops import Drop
from .events import (
    ClockImplausible,
    Event,
    HandshakeCompleted,
    HandshakeFailed,
    HandshakeUnanswered,
    KeysErased,
    PeerRemoved,
    PeerRoamed,
    SessionExpired,
)
from .interface import Interface, PeerError
from .outputs import Datagram, DatagramKind, Seal
from .peer import Peer

__all__ = [
    "AllowedIPs",
    "ClockImplausible",
    "Datagram",
    "DatagramKind",
    "Drop",
    "Endpoint",
    "Event",
    "HandshakeCompleted",
    "HandshakeFailed",
    "HandshakeUnanswered",
    "Interface",
    "KeysErased",
    "Network",
    "Peer",
    "PeerError",
    "PeerRemoved",
    "PeerRoamed",
    "Seal",
    "SessionExpired",
    "Transport",
    "pack",
    "unpack",
]
