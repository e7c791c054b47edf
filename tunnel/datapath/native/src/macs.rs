//! mac1 and mac2 of handshake messages (whitepaper, section 5.4.4): who does not know our key is found
//! out by the one, who does not receive at the address it sends from by the other.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};

/// Bytes of the key of mac1.
pub const KEY: usize = 32;
/// Bytes of the key of mac2.
pub const COOKIE: usize = MAC;
/// Bytes of mac1 and of mac2, which follow each other at the end of a message.
const MAC: usize = 16;
/// Type, sender and the two MACs: no handshake message is shorter.
const SHORTEST: usize = 8 + 2 * MAC;

/// Whether mac1 is right, for each datagram of a batch. `None` if the key has not 32 bytes.
pub fn check_mac1(key: &[u8], batch: &[u8], stride: usize) -> Option<Vec<bool>> {
    (key.len() == KEY).then(|| check(key, batch, stride, 2 * MAC))?
}

/// Whether mac2 is right, for each datagram of a batch. `None` if the cookie has not 16 bytes.
pub fn check_mac2(cookie: &[u8], batch: &[u8], stride: usize) -> Option<Vec<bool>> {
    (cookie.len() == COOKIE).then(|| check(cookie, batch, stride, MAC))?
}

/// Check the MAC that begins `after` bytes before the end of each datagram.
fn check(key: &[u8], batch: &[u8], stride: usize, after: usize) -> Option<Vec<bool>> {
    let keyed = Blake2sMac::<U16>::new_from_slice(key).ok()?;
    let is_right = |datagram: &[u8]| {
        if datagram.len() < SHORTEST {
            return false;
        }
        let (message, macs) = datagram.split_at(datagram.len() - after);
        let mac = keyed.clone().chain_update(message);
        // In constant time.
        mac.verify_slice(&macs[..MAC]).is_ok()
    };
    Some(batch.chunks(stride).map(is_right).collect())
}
