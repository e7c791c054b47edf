//! The header in front of each packet of a TUN device with `IFF_VNET_HDR`
//! (`struct virtio_net_hdr`, virtio 1.2, 5.1.6; little-endian).

/// Bytes of the header.
pub const LENGTH: usize = 10;
/// Flag: the transport checksum holds only the pseudo-header's sum.
pub const NEEDS_CSUM: u8 = 1;
/// Not to be split.
pub const GSO_NONE: u8 = 0;
/// Split as TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Split as TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Split as UDP datagrams.
pub const GSO_UDP_L4: u8 = 5;
/// Bit of the GSO type: the TCP packet carries CWR.
pub const GSO_ECN: u8 = 0x80;

/// The fields of `struct virtio_net_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// `NEEDS_CSUM` or nothing of interest.
    pub flags: u8,
    /// One of the `GSO_*` types, perhaps with `GSO_ECN`.
    pub gso_type: u8,
    /// Bytes of all headers. Unreliable on input.
    pub hdr_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed part begins.
    pub csum_start: u16,
    /// Where in it the checksum is.
    pub csum_offset: u16,
}

impl Header {
    /// Take the header off a frame; the rest is the packet. `None` if the frame is shorter.
    pub fn parse(frame: &[u8]) -> Option<(Header, &[u8])> {
        let (head, packet) = frame.split_first_chunk::<LENGTH>()?;
        let field = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let header = Header {
            flags: head[0],
            gso_type: head[1],
            hdr_len: field(2),
            gso_size: field(4),
            csum_start: field(6),
            csum_offset: field(8),
        };
        Some((header, packet))
    }

    /// The header's bytes.
    pub fn emit(&self) -> [u8; LENGTH] {
        let mut head = [0; LENGTH];
        head[0] = self.flags;
        head[1] = self.gso_type;
        head[2..4].copy_from_slice(&self.hdr_len.to_le_bytes());
        head[4..6].copy_from_slice(&self.gso_size.to_le_bytes());
        head[6..8].copy_from_slice(&self.csum_start.to_le_bytes());
        head[8..10].copy_from_slice(&self.csum_offset.to_le_bytes());
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            hdr_len: 72,
            gso_size: 1428,
            csum_start: 40,
            csum_offset: 16,
        };
        let mut frame = header.emit().to_vec();
        frame.push(0x60);
        assert_eq!(Header::parse(&frame), Some((header, &[0x60][..])));
        assert_eq!(Header::parse(&frame[..9]), None);
    }
}
