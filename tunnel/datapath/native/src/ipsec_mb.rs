//! ChaCha20-Poly1305 of ipsec-mb for transport messages: where it was built in, where the processor
//! is one for which it is faster, and after it did what AWS-LC does.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock};

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use tunnel_ipsec_mb::{KEY, Manager, NONCE};
use zeroize::Zeroizing;

use crate::limits::{MAX_PACKET, TAG};

/// The shortest packet that is sealed faster than by AWS-LC between other work, too: not only in a
/// loop that does nothing else.
pub const SHORTEST: usize = 512;

/// Lengths on both sides of where the library changes its way.
const TESTED: [usize; 17] = [
    0, 1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 512, 1023, 1024, 1025, 1424, MAX_PACKET,
];

static CIPHER: OnceLock<Result<Mutex<Cipher>, &str>> = OnceLock::new();

/// A key for `Cipher`, overwritten when it is dropped.
pub struct Key(Zeroizing<[u8; KEY]>);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key")
    }
}

impl Key {
    /// A key of 32 bytes; `None` if it has another length.
    pub fn new(bytes: &[u8]) -> Option<Key> {
        Some(Key(Zeroizing::new(bytes.try_into().ok()?)))
    }
}

/// The library's state. The process has one, since it takes 200 KiB.
#[derive(Debug)]
pub struct Cipher(Manager);

/// Its version, or why it cannot be used here. The first call tests it.
pub fn version() -> Result<&'static str, &'static str> {
    let version = tunnel_ipsec_mb::version().ok_or("it was not there when this was built")?;
    let make = || {
        let mut cipher = Cipher(Manager::new().ok_or("this processor is not one for it")?);
        if cipher.is_right() {
            Ok(Mutex::new(cipher))
        } else {
            Err("it failed its test")
        }
    };
    CIPHER
        .get_or_init(make)
        .as_ref()
        .map_err(|reason| *reason)?;
    Ok(version)
}

/// The cipher for a packet of `length` bytes, if it can be used here, if it is faster, and if no
/// other thread uses it now. It is never waited for: in a forked process the thread that had it may
/// be gone.
pub fn cipher(length: usize) -> Option<MutexGuard<'static, Cipher>> {
    if length < SHORTEST {
        return None;
    }
    CIPHER.get()?.as_ref().ok()?.try_lock().ok()
}

impl Cipher {
    /// Encrypt in place; the tag.
    pub fn seal(&mut self, key: &Key, nonce: &[u8; NONCE], packet: &mut [u8]) -> Option<[u8; TAG]> {
        self.0.encrypt(&key.0, nonce, packet)
    }

    /// Decrypt what ends in its tag, in place. If the tag is wrong nothing of the packet is left,
    /// as after AWS-LC, which too decrypts before it compares.
    pub fn open<'a>(
        &mut self,
        key: &Key,
        nonce: &[u8; NONCE],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        let (packet, tag) = sealed.split_at_mut(sealed.len().checked_sub(TAG)?);
        let right = self.0.decrypt(&key.0, nonce, packet);
        if right.is_some_and(|right| verify_slices_are_equal(&right, tag).is_ok()) {
            return Some(packet);
        }
        packet.fill(0);
        None
    }

    /// Whether it does what AWS-LC does, and refuses a wrong tag.
    fn is_right(&mut self) -> bool {
        let bytes = [0xA5; KEY];
        let (Some(key), Ok(other)) = (
            Key::new(&bytes),
            UnboundKey::new(&CHACHA20_POLY1305, &bytes),
        ) else {
            return false;
        };
        let other = LessSafeKey::new(other);
        TESTED.iter().all(|&length| {
            let nonce = [length as u8; NONCE];
            let plain: Vec<u8> = (0..length).map(|at| (at * 7) as u8).collect();
            let mut expected = plain.clone();
            let unique = Nonce::assume_unique_for_key(nonce);
            if other
                .seal_in_place_append_tag(unique, Aad::empty(), &mut expected)
                .is_err()
            {
                return false;
            }
            let mut sealed = plain.clone();
            let Some(tag) = self.seal(&key, &nonce, &mut sealed) else {
                return false;
            };
            sealed.extend_from_slice(&tag);
            if sealed != expected {
                return false;
            }
            sealed[length] ^= 1;
            let is_refused = self.open(&key, &nonce, &mut sealed).is_none();
            let opened = self.open(&key, &nonce, &mut expected);
            is_refused && opened.is_some_and(|opened| *opened == plain)
        })
    }
}
