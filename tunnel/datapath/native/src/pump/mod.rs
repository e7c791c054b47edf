//! Everything between a wake-up and the next sleep that needs no decision: frames of the TUN to
//! datagrams, datagrams to frames.
//!
//! The pump decides nothing. It does what it was taught: which peer an inner address belongs to,
//! how to send to a peer, which sessions there are, and from where their datagrams come. What it
//! was not taught, it gives back, and Python does it and teaches it (`tunnel/engine/pumping.py`). So
//! whatever changes, it is enough to make the pump forget.

mod initiations;
mod receive;
mod send;
pub mod socket;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::coalesce::Coalescer;
use crate::ip;
use crate::limits::{MAX_DATAGRAM, SEAL_OUT_SIZE};
use crate::session::Session;

pub use initiations::Initiation;
pub use receive::{Forged, How, Incoming, Opening, Stop, Unanswered};
pub use send::{Outgoing, Sealing, Unsent};
use socket::Origin;

/// Bytes that a read of the TUN may fill: virtio header, link layer and the largest packet.
pub const READ_SIZE: usize = 65_536 + 64;
/// Frames are read until so many bytes are to be sealed.
const ARENA: usize = 65_536;
/// What any read takes off the budget besides its bytes: as much time as these.
const READ_COST: usize = 1 << 14;
/// The same for a receive of which nothing was written to the TUN.
const LOOK_COST: usize = 1 << 12;

/// A number that stands for a peer.
pub type PeerId = u64;

/// A session that Python and the pump both use, never at the same time.
pub type SharedSession = Arc<Mutex<Session>>;

/// The session to work with. One whose holder panicked is as good as any: a counter was taken, or not.
pub fn lock(session: &SharedSession) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How to send to a peer.
#[derive(Debug)]
struct Way {
    session: SharedSession,
    /// Where to, and from which of our addresses.
    to: Origin,
    /// When the session must not send any more.
    until: f64,
    /// Whether a batch leaves in one call.
    gso: bool,
}

/// A session that receives.
#[derive(Debug)]
struct Receiver {
    session: SharedSession,
    peer: PeerId,
    /// From where its datagrams come. From elsewhere, the peer has moved, and Python learns it.
    origin: Origin,
    /// When it expires.
    until: f64,
}

/// What is known of a peer.
#[derive(Debug, Default)]
struct Peer {
    way: Option<Way>,
    /// The receiver indices of its sessions, known or not.
    indices: Vec<u32>,
}

/// See the module. Times are seconds of the clock of the caller.
#[derive(Debug)]
pub struct Pump {
    peers: HashMap<PeerId, Peer>,
    /// Whose an inner address is.
    addresses: HashMap<IpAddr, PeerId>,
    /// By receiver index; `None` for one that is a session's, and to be asked for.
    receivers: HashMap<u32, Option<Receiver>>,
    mac1_key: Option<[u8; 32]>,
    /// Frames read, before they are sealed.
    arena: Vec<u8>,
    sealed: Vec<u8>,
    received: Vec<u8>,
    frames: Coalescer,
}

impl Default for Pump {
    fn default() -> Pump {
        Pump {
            peers: HashMap::new(),
            addresses: HashMap::new(),
            receivers: HashMap::new(),
            mac1_key: None,
            arena: vec![0; ARENA + READ_SIZE],
            sealed: Vec::with_capacity(SEAL_OUT_SIZE),
            received: vec![0; MAX_DATAGRAM.next_power_of_two()],
            frames: Coalescer::default(),
        }
    }
}

/// Inner addresses remembered at most. An inner sender may invent them.
const MAX_ADDRESSES: usize = 1 << 16;

impl Pump {
    /// `address` is the peer's, as destination and as source.
    pub fn teach_address(&mut self, address: IpAddr, peer: PeerId) {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.clear();
        }
        self.addresses.insert(address, peer);
    }

    /// Send to the peer like this, until it is forgotten or it is so late.
    pub fn teach_way(
        &mut self,
        peer: PeerId,
        session: SharedSession,
        to: Origin,
        gso: bool,
        until: f64,
    ) {
        let way = Way {
            session,
            to,
            until,
            gso,
        };
        self.peers.entry(peer).or_default().way = Some(way);
    }

    /// Open with the session what comes from `origin`, until it is forgotten or it is so late.
    ///
    /// Does nothing if its index is not among the peer's.
    pub fn teach_receiver(
        &mut self,
        peer: PeerId,
        session: SharedSession,
        origin: Origin,
        until: f64,
    ) {
        let index = lock(&session).local_index();
        let known = self.peers.get(&peer);
        if known.is_some_and(|known| known.indices.contains(&index)) {
            let receiver = Receiver {
                session,
                peer,
                origin,
                until,
            };
            self.receivers.insert(index, Some(receiver));
        }
    }

    /// The peer's sessions are those now; nothing else is known of it.
    pub fn set_indices(&mut self, peer: PeerId, indices: Vec<u32>) {
        self.forget_peer(peer);
        for &index in &indices {
            self.receivers.insert(index, None);
        }
        if !indices.is_empty() {
            let way = None;
            self.peers.insert(peer, Peer { way, indices });
        }
    }

    /// The peer is to be asked for again.
    fn forget_peer(&mut self, peer: PeerId) {
        for index in self.peers.remove(&peer).unwrap_or_default().indices {
            self.receivers.remove(&index);
        }
    }

    /// Whose an address is, is to be asked for again.
    pub fn forget_addresses(&mut self) {
        self.addresses.clear();
    }

    /// All but the receiver indices is to be asked for again.
    pub fn forget(&mut self) {
        self.addresses.clear();
        for peer in self.peers.values_mut() {
            peer.way = None;
        }
        for receiver in self.receivers.values_mut() {
            *receiver = None;
        }
    }

    /// The key of mac1 in messages to us. Without one, all handshake messages are given back.
    pub fn set_mac1_key(&mut self, key: Option<[u8; 32]>) {
        self.mac1_key = key;
    }

    /// The frames that `Outgoing::left` refers to.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The datagrams that `Outgoing::unsent` refers to, and the frames of `Stop::Frames`.
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// The datagrams that `Stop::Datagrams` refers to.
    pub fn received(&self) -> &[u8] {
        &self.received
    }
}

/// One of both addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Source,
    Destination,
}

/// An address of the packet; `None` if it is no IP packet.
fn address(packet: &[u8], side: Side) -> Option<IpAddr> {
    let second = usize::from(side == Side::Destination);
    match packet.first()? >> 4 {
        4 if packet.len() >= ip::IPV4_HEADER => {
            let at = 12 + 4 * second;
            Some(<[u8; 4]>::try_from(&packet[at..at + 4]).ok()?.into())
        }
        6 if packet.len() >= ip::IPV6_HEADER => {
            let at = 8 + 16 * second;
            Some(<[u8; 16]>::try_from(&packet[at..at + 16]).ok()?.into())
        }
        _ => None,
    }
}
