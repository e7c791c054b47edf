//! The cipher of transport messages (whitepaper, section 5.4.6), and the lack of it that a
//! benchmark compares it with.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::limits::TAG;

static UNENCRYPTED: AtomicBool = AtomicBool::new(false);

/// Let the sessions that this process makes from here on neither encrypt nor authenticate.
///
/// There is no way back, and no way from a conf or an environment to here: `tunnel bench` starts
/// a program of its own that calls this.
pub fn disable_encryption() {
    UNENCRYPTED.store(true, Ordering::Relaxed);
}

/// One direction's key.
#[derive(Debug)]
pub enum TransportKey {
    /// ChaCha20-Poly1305.
    Sealing(LessSafeKey),
    /// After `disable_encryption`: packets go as they are, and every tag is right.
    Unencrypted,
}

fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl TransportKey {
    /// A key of 32 bytes; `None` if it has another length.
    pub fn new(key: &[u8]) -> Option<TransportKey> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
        Some(if UNENCRYPTED.load(Ordering::Relaxed) {
            TransportKey::Unencrypted
        } else {
            TransportKey::Sealing(LessSafeKey::new(key))
        })
    }

    /// Encrypt in place; the tag, or `None` for a message of 256 GiB or more.
    pub fn seal(&self, counter: u64, packet: &mut [u8]) -> Option<[u8; TAG]> {
        let mut tag = [0; TAG];
        if let TransportKey::Sealing(key) = self {
            let sealed = key.seal_in_place_separate_tag(nonce(counter), Aad::empty(), packet);
            tag.copy_from_slice(sealed.ok()?.as_ref());
        }
        Some(tag)
    }

    /// Decrypt what ends in its tag, in place; `None` if the tag is wrong.
    pub fn open<'a>(&self, counter: u64, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        match self {
            TransportKey::Sealing(key) => {
                key.open_in_place(nonce(counter), Aad::empty(), sealed).ok()
            }
            TransportKey::Unencrypted => {
                let length = sealed.len().checked_sub(TAG)?;
                Some(&mut sealed[..length])
            }
        }
    }
}
