//! WireGuard's handshake (whitepaper, 5.4.2 and 5.4.3) for one static key of ours: messages in, messages
//! and transport keys out. `crypto/identity.py` is its twin.
//!
//! mac1 and mac2 of what comes in are not looked at, and of what goes out they are zero. Private keys
//! of X25519 are overwritten by AWS-LC when they are dropped, all others by `zeroize`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use aws_lc_rs::agreement::PrivateKey;

use crate::apart::Apart;
use crate::limits::TAG;
use crate::noise::{KEY, Refused, Secret, State, agree, key_pair};

/// Bytes of an initiation and of a response.
pub const INITIATION: usize = 148;
/// Bytes of a response.
pub const RESPONSE: usize = 92;
/// Bytes of a TAI64N timestamp.
pub const TIMESTAMP: usize = 12;

/// Type 1 or 2 and three reserved bytes.
const TYPE_INITIATION: [u8; 4] = [1, 0, 0, 0];
const TYPE_RESPONSE: [u8; 4] = [2, 0, 0, 0];

/// A session's two keys, as this side uses them.
pub struct TransportKeys {
    /// The key of what we send.
    pub send: Secret,
    /// The key of what the peer sends.
    pub receive: Secret,
}

struct Static {
    private: PrivateKey,
    public: [u8; KEY],
}

/// A static key of ours, with what is worth keeping from one handshake to the next.
pub struct Identity {
    key: Arc<Static>,
    /// The peers, and the DH of the two static keys where it was needed before.
    peers: RwLock<HashMap<[u8; KEY], Option<Secret>>>,
    /// Peers whose DH was not made ahead.
    lacking: Mutex<Vec<[u8; KEY]>>,
}

/// What an initiator keeps until the response comes.
pub struct Pending {
    key: Arc<Static>,
    state: State,
    ephemeral: PrivateKey,
    index: u32,
}

/// An initiation that was opened. Whether its sender is a peer, and its timestamp new, is for others
/// to judge.
pub struct Received {
    /// The sender's public key.
    pub remote_static: [u8; KEY],
    /// The sender's receiver index.
    pub remote_index: u32,
    /// TAI64N.
    pub timestamp: [u8; TIMESTAMP],
    remote_ephemeral: [u8; KEY],
    state: State,
}

/// How an initiation is to be answered.
pub struct Answer {
    /// What is answered.
    pub received: Received,
    /// 32 random bytes, used for nothing else.
    pub ephemeral: Secret,
    /// Our new receiver index.
    pub index: u32,
    /// All zeros if there is none.
    pub preshared_key: Secret,
}

fn array<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[at..at + N]);
    bytes
}

fn index(message: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(message, at))
}

impl Identity {
    /// The identity of a private key; refused if X25519 takes no such key.
    pub fn new(private_key: &Secret) -> Result<Identity, Refused> {
        let (private, public) = key_pair(private_key)?;
        Ok(Identity {
            key: Arc::new(Static { private, public }),
            peers: RwLock::default(),
            lacking: Mutex::default(),
        })
    }

    /// Keep the DH with `public_key` from its first use on.
    pub fn add_peer(&self, public_key: [u8; KEY]) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.entry(public_key).or_default();
        self.lacking().push(public_key);
    }

    /// Make the DH with `most` peers at most ahead; whether others may be left.
    pub fn prepare(&self, most: usize) -> bool {
        (0..most).all(|_| {
            let next = self.lacking().pop();
            // One of low order is refused when it is used.
            next.map(|public_key| self.static_static(&public_key))
                .is_some()
        })
    }

    fn lacking(&self) -> MutexGuard<'_, Vec<[u8; KEY]>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forget the DH with `public_key`.
    pub fn remove_peer(&self, public_key: &[u8; KEY]) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers.remove(public_key);
    }

    /// The DH of the two static keys; refused if `public_key` is of low order.
    pub fn static_static(&self, public_key: &[u8; KEY]) -> Result<Secret, Refused> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Some(known)) = peers.get(public_key) {
            return Ok(known.clone());
        }
        drop(peers);
        let shared = agree(&self.key.private, public_key)?;
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        // Of strangers nothing is kept: they may be any number.
        if let Some(place) = peers.get_mut(public_key) {
            *place = Some(shared.clone());
        }
        Ok(shared)
    }

    /// Start a handshake; refused if `remote_static` is of low order.
    pub fn create_initiation(
        &self,
        remote_static: &[u8; KEY],
        ephemeral: &Secret,
        index: u32,
        timestamp: &[u8; TIMESTAMP],
    ) -> Result<([u8; INITIATION], Pending), Refused> {
        let (ephemeral, ephemeral_public) = key_pair(ephemeral)?;
        let mut state = State::begin(remote_static);
        let mut message = [0; INITIATION];
        message[..4].copy_from_slice(&TYPE_INITIATION);
        message[4..8].copy_from_slice(&index.to_le_bytes());
        message[8..40].copy_from_slice(&ephemeral_public);
        state.mix_ephemeral(&ephemeral_public);
        let key = state.mix_key(&agree(&ephemeral, remote_static)?);
        state.seal(key, &self.key.public, &mut message[40..88])?;
        let key = state.mix_key(&self.static_static(remote_static)?);
        state.seal(key, timestamp, &mut message[88..116])?;
        let pending = Pending {
            key: Arc::clone(&self.key),
            state,
            ephemeral,
            index,
        };
        Ok((message, pending))
    }

    /// Open an initiation.
    pub fn consume_initiation(&self, message: &[u8]) -> Result<Received, Refused> {
        if message.len() != INITIATION || message[..4] != TYPE_INITIATION {
            return Err(Refused);
        }
        let mut state = State::begin(&self.key.public);
        let remote_ephemeral = array(message, 8);
        state.mix_ephemeral(&remote_ephemeral);
        let key = state.mix_key(&agree(&self.key.private, &remote_ephemeral)?);
        let remote_static = state.open(key, &message[40..88])?;
        let key = state.mix_key(&self.static_static(&remote_static)?);
        let timestamp = state.open(key, &message[88..116])?;
        Ok(Received {
            remote_static,
            remote_index: index(message, 4),
            timestamp,
            remote_ephemeral,
            state,
        })
    }

    /// `consume_initiation` of many.
    pub fn consume_initiations<M: AsRef<[u8]> + Send + 'static>(
        self: &Arc<Self>,
        messages: Vec<M>,
    ) -> Apart<Option<Received>> {
        let identity = Arc::clone(self);
        Apart::begin(messages, move |message: M| {
            identity.consume_initiation(message.as_ref()).ok()
        })
    }
}

impl Answer {
    /// The response and the keys that it offers. Refused if a key of the sender is of low order, which
    /// no `Received` has.
    pub fn create_response(self) -> Response {
        let Received {
            remote_static,
            remote_index,
            remote_ephemeral,
            mut state,
            ..
        } = self.received;
        let (ephemeral, ephemeral_public) = key_pair(&self.ephemeral)?;
        let mut message = [0; RESPONSE];
        message[..4].copy_from_slice(&TYPE_RESPONSE);
        message[4..8].copy_from_slice(&self.index.to_le_bytes());
        message[8..12].copy_from_slice(&remote_index.to_le_bytes());
        message[12..44].copy_from_slice(&ephemeral_public);
        state.mix_ephemeral(&ephemeral_public);
        // Each replaces the key of the one before: only the last of them seals.
        let _ = state.mix_key(&agree(&ephemeral, &remote_ephemeral)?);
        let _ = state.mix_key(&agree(&ephemeral, &remote_static)?);
        let key = state.mix_key_and_hash(&self.preshared_key);
        state.seal(key, &[], &mut message[44..44 + TAG])?;
        let [receive, send] = state.split();
        Ok((message, TransportKeys { send, receive }))
    }
}

/// What an answer is made of: the response, and the keys that it offers.
pub type Response = Result<([u8; RESPONSE], TransportKeys), Refused>;

/// `create_response` of many.
pub fn create_responses(answers: Vec<Answer>) -> Apart<Response> {
    Apart::begin(answers, Answer::create_response)
}

impl Pending {
    /// Finish the handshake. What is refused leaves it pending.
    pub fn consume_response(
        &self,
        message: &[u8],
        preshared_key: &Secret,
    ) -> Result<TransportKeys, Refused> {
        if message.len() != RESPONSE
            || message[..4] != TYPE_RESPONSE
            || index(message, 8) != self.index
        {
            return Err(Refused);
        }
        let mut state = self.state.clone();
        let remote_ephemeral = array(message, 12);
        state.mix_ephemeral(&remote_ephemeral);
        let _ = state.mix_key(&agree(&self.ephemeral, &remote_ephemeral)?);
        let _ = state.mix_key(&agree(&self.key.private, &remote_ephemeral)?);
        let key = state.mix_key_and_hash(preshared_key);
        let [] = state.open(key, &message[44..44 + TAG])?;
        let [send, receive] = state.split();
        Ok(TransportKeys { send, receive })
    }
}
