//! The numbers of `tunnel/datapath/interface.py`.

/// Counters of a session are below this, in both directions.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Counters that a session reserves in its ledger at a time.
pub const SEND_BLOCK: u64 = 1 << 20;
/// Bytes in front of the ciphertext: type, receiver index, counter.
pub const HEADER: usize = 16;
/// Bytes behind it.
pub const TAG: usize = 16;
/// Bytes a datagram is longer than its padded packet.
pub const OVERHEAD: usize = HEADER + TAG;
/// Packets are zero-padded to a multiple of this.
pub const PADDING: usize = 16;
/// The most a UDP datagram carries over IPv4; also the most bytes of one batch.
pub const MAX_DATAGRAM: usize = 65_507;
/// The longest packet that can be sealed.
pub const MAX_PACKET: usize = MAX_DATAGRAM - OVERHEAD;
/// The most datagrams of one batch, and of one coalesced UDP frame.
pub const MAX_BATCH_SEGMENTS: usize = 64;
/// The longest packet of a coalesced frame.
pub const MAX_FRAME_PACKET: usize = 65_535;
/// The most bytes one frame may be sealed into, without tails.
pub const MAX_SEALED_FRAME: usize = 262_144;
/// The same with tails, of which no frame needs more than 128.
pub const SEAL_OUT_SIZE: usize = MAX_SEALED_FRAME + 128 * OVERHEAD;

/// The length of a packet of `length` bytes once it is padded.
pub fn padded_length(length: usize, mtu: usize) -> usize {
    length
        .next_multiple_of(PADDING)
        .min(length.max(mtu.min(MAX_PACKET)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!(REJECT_AFTER_MESSAGES, u64::MAX - 8192);
        assert_eq!(padded_length(0, 1420), 0);
        assert_eq!(padded_length(1, 1420), 16);
        assert_eq!(padded_length(1408, 1420), 1408);
        assert_eq!(padded_length(1409, 1420), 1420);
        assert_eq!(padded_length(1420, 1420), 1420);
        assert_eq!(padded_length(1421, 1420), 1421);
        assert_eq!(padded_length(MAX_PACKET, usize::MAX), MAX_PACKET);
        assert_eq!(padded_length(5, 0), 5);
    }
}
