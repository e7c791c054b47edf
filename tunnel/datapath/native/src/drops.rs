//! Why a packet went no further: the counters of `tunnel/datapath/drops.py`.

/// One reason for each way in which a frame or a datagram can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drop {
    /// A frame without room for the virtio header and one byte of packet, or an Ethernet header.
    Truncated,
    /// The first nibble is neither 4 nor 6.
    IpVersion,
    /// An Ethernet frame where packets are expected.
    Ethernet,
    /// No Ethernet frame where one is expected.
    NotEthernet,
    /// A header does not fit, or the packet's own length is more than there are bytes.
    IpLength,
    /// An unknown kind of segmentation, or one that does not fit the packet.
    GsoType,
    /// Segmentation into pieces of zero bytes.
    GsoSize,
    /// The checksum fields of the virtio header point to the wrong place.
    ChecksumOffset,
    /// A packet which no UDP datagram can carry.
    TooLong,
    /// One frame that would be sealed into more than `MAX_SEALED_FRAME` bytes.
    TooManySegments,
    /// A counter at or past the message limit of a session.
    CounterLimit,
    /// A counter seen before, or too old for the window to tell.
    Replay,
    /// The Poly1305 tag does not match.
    Authentication,
}

impl Drop {
    /// Every reason, in the order of the discriminants.
    pub const ALL: [Drop; 13] = [
        Drop::Truncated,
        Drop::IpVersion,
        Drop::Ethernet,
        Drop::NotEthernet,
        Drop::IpLength,
        Drop::GsoType,
        Drop::GsoSize,
        Drop::ChecksumOffset,
        Drop::TooLong,
        Drop::TooManySegments,
        Drop::CounterLimit,
        Drop::Replay,
        Drop::Authentication,
    ];

    /// The name of the counter.
    pub const fn name(self) -> &'static str {
        match self {
            Drop::Truncated => "truncated",
            Drop::IpVersion => "ip_version",
            Drop::Ethernet => "ethernet",
            Drop::NotEthernet => "not_ethernet",
            Drop::IpLength => "ip_length",
            Drop::GsoType => "gso_type",
            Drop::GsoSize => "gso_size",
            Drop::ChecksumOffset => "checksum_offset",
            Drop::TooLong => "too_long",
            Drop::TooManySegments => "too_many_segments",
            Drop::CounterLimit => "counter_limit",
            Drop::Replay => "replay",
            Drop::Authentication => "authentication",
        }
    }
}

/// How often each reason occurred in one call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drops([u32; Drop::ALL.len()]);

impl Drops {
    /// Count one drop.
    pub fn add(&mut self, reason: Drop) {
        self.0[reason as usize] += 1;
    }

    /// Count what was counted elsewhere, too.
    pub fn add_all(&mut self, others: &Drops) {
        for (count, other) in self.0.iter_mut().zip(others.0) {
            *count += other;
        }
    }

    /// How often this reason occurred.
    pub fn count(&self, reason: Drop) -> u32 {
        self.0[reason as usize]
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Drop, u32)> + '_ {
        Drop::ALL
            .into_iter()
            .zip(self.0)
            .filter(|&(_, count)| count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_name() {
        for (index, reason) in Drop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        let mut drops = Drops::default();
        drops.add(Drop::Replay);
        drops.add(Drop::Replay);
        drops.add(Drop::Authentication);
        let seen: Vec<_> = drops.iter().map(|(reason, n)| (reason.name(), n)).collect();
        assert_eq!(seen, [("replay", 2), ("authentication", 1)]);
    }
}
