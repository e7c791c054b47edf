//! mac1 of handshake messages (whitepaper, section 5.4.4): who does not know our key is found out.

use blake2::Blake2sMac;
use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac};

/// Bytes of the key, and of mac1 and of mac2, which follow each other at the end of a message.
pub const KEY: usize = 32;
const MAC: usize = 16;
/// Type, sender and the two MACs: no handshake message is shorter.
const SHORTEST: usize = 8 + 2 * MAC;

/// Whether mac1 is right, for each datagram of a batch. `None` if the key has not 32 bytes.
pub fn check_mac1(key: &[u8], batch: &[u8], stride: usize) -> Option<Vec<bool>> {
    let keyed = (key.len() == KEY).then(|| Blake2sMac::<U16>::new_from_slice(key).ok())??;
    let is_right = |datagram: &[u8]| {
        if datagram.len() < SHORTEST {
            return false;
        }
        let (message, macs) = datagram.split_at(datagram.len() - 2 * MAC);
        let mac = keyed.clone().chain_update(message);
        // In constant time.
        mac.verify_slice(&macs[..MAC]).is_ok()
    };
    Some(batch.chunks(stride).map(is_right).collect())
}
