//! The cipher of transport messages (whitepaper, section 5.4.6), and the lack of it that a
//! benchmark compares it with.

use std::sync::MutexGuard;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::ipsec_mb;
use crate::limits::TAG;

static UNENCRYPTED: AtomicBool = AtomicBool::new(false);
static IPSEC_MB: AtomicBool = AtomicBool::new(false);

/// Let the sessions that this process makes from here on neither encrypt nor authenticate.
///
/// There is no way back, and no way from a conf or an environment to here: `tunnel bench` starts
/// a program of its own that calls this.
pub fn disable_encryption() {
    UNENCRYPTED.store(true, Ordering::Relaxed);
}

/// Let the sessions that this process makes from here on use ipsec-mb; its version, or why it
/// cannot be used here.
pub fn use_ipsec_mb() -> Result<&'static str, &'static str> {
    let version = ipsec_mb::version()?;
    IPSEC_MB.store(true, Ordering::Relaxed);
    Ok(version)
}

/// Let the sessions that this process makes from here on use AWS-LC alone, as they do unless
/// `use_ipsec_mb` was called.
pub fn use_aws_lc() {
    IPSEC_MB.store(false, Ordering::Relaxed);
}

/// One direction's key.
#[derive(Debug)]
pub enum TransportKey {
    /// ChaCha20-Poly1305.
    Sealing {
        /// AWS-LC's.
        key: LessSafeKey,
        /// The same key for ipsec-mb, for packets that it seals faster.
        faster: Option<ipsec_mb::Key>,
    },
    /// After `disable_encryption`: packets go as they are, and every tag is right.
    Unencrypted,
}

fn nonce(counter: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

/// The key for ipsec-mb with the cipher, if it can be used for that many bytes now.
fn with_cipher(
    faster: &Option<ipsec_mb::Key>,
    length: usize,
) -> Option<(&ipsec_mb::Key, MutexGuard<'static, ipsec_mb::Cipher>)> {
    Some((faster.as_ref()?, ipsec_mb::cipher(length)?))
}

impl TransportKey {
    /// A key of 32 bytes; `None` if it has another length.
    pub fn new(bytes: &[u8]) -> Option<TransportKey> {
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, bytes).ok()?);
        if UNENCRYPTED.load(Ordering::Relaxed) {
            return Some(TransportKey::Unencrypted);
        }
        let wanted = IPSEC_MB.load(Ordering::Relaxed);
        let faster = wanted.then(|| ipsec_mb::Key::new(bytes)).flatten();
        Some(TransportKey::Sealing { key, faster })
    }

    /// Encrypt in place; the tag, or `None` for a message of 256 GiB or more.
    pub fn seal(&self, counter: u64, packet: &mut [u8]) -> Option<[u8; TAG]> {
        let TransportKey::Sealing { key, faster } = self else {
            return Some([0; TAG]);
        };
        let nonce = nonce(counter);
        if let Some((faster, mut cipher)) = with_cipher(faster, packet.len()) {
            return cipher.seal(faster, &nonce, packet);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), packet);
        tag.ok()?.as_ref().try_into().ok()
    }

    /// Decrypt what ends in its tag, in place; `None` if the tag is wrong.
    pub fn open<'a>(&self, counter: u64, sealed: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let TransportKey::Sealing { key, faster } = self else {
            let length = sealed.len().checked_sub(TAG)?;
            return Some(&mut sealed[..length]);
        };
        let nonce = nonce(counter);
        if let Some((faster, mut cipher)) = with_cipher(faster, sealed.len()) {
            return cipher.open(faster, &nonce, sealed);
        }
        let nonce = Nonce::assume_unique_for_key(nonce);
        key.open_in_place(nonce, Aad::empty(), sealed).ok()
    }
}
