//! IPv4 and IPv6 headers as far as the data path must understand them
//! (RFC 791, RFC 8200, RFC 4302, RFC 6040).

use crate::checksum;
use crate::drops::Drop;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of the fixed IPv6 header.
pub const IPV6_HEADER: usize = 40;
/// ECN field: congestion experienced.
pub const CE: u8 = 3;

/// The big-endian 16-bit number at `at`, which must be inside `data`.
pub fn read_u16(data: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([data[at], data[at + 1]])
}

/// The big-endian 32-bit number at `at`, which must be inside `data`.
pub fn read_u32(data: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

/// Write a big-endian 16-bit number at `at`, which must be inside `data`.
pub fn write_u16(data: &mut [u8], at: usize, value: u16) {
    data[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// The length that the IP header claims, at most `bytes.len()`.
pub fn packet_length(bytes: &[u8]) -> Result<usize, Drop> {
    match bytes.first().ok_or(Drop::Truncated)? >> 4 {
        4 => {
            if bytes.len() < IPV4_HEADER {
                return Err(Drop::IpLength);
            }
            let header = header_length(bytes);
            let length = usize::from(read_u16(bytes, 2));
            if header < IPV4_HEADER || length < header || length > bytes.len() {
                return Err(Drop::IpLength);
            }
            Ok(length)
        }
        6 => {
            if bytes.len() < IPV6_HEADER {
                return Err(Drop::IpLength);
            }
            let length = IPV6_HEADER + usize::from(read_u16(bytes, 4));
            if length > bytes.len() {
                return Err(Drop::IpLength);
            }
            Ok(length)
        }
        _ => Err(Drop::IpVersion),
    }
}

/// Whether a packet that `packet_length` accepted is IPv4; otherwise it is IPv6.
pub fn is_v4(packet: &[u8]) -> bool {
    packet[0] >> 4 == 4
}

/// The length of the IP header of an accepted packet; for IPv6 without extension headers.
pub fn header_length(packet: &[u8]) -> usize {
    if is_v4(packet) {
        usize::from(packet[0] & 15) * 4
    } else {
        IPV6_HEADER
    }
}

/// The protocol and the offset of the transport header of an accepted and trimmed packet.
///
/// `GsoType` for a fragment, and for extension headers that run past the packet: such a packet has
/// no transport header that one could segment by.
pub fn transport(packet: &[u8]) -> Result<(u8, usize), Drop> {
    if is_v4(packet) {
        if read_u16(packet, 6) & 0x3fff != 0 {
            return Err(Drop::GsoType);
        }
        return Ok((packet[9], header_length(packet)));
    }
    let (mut protocol, mut offset) = (packet[6], IPV6_HEADER);
    loop {
        // Hop-by-hop, routing and destination options count in eights, authentication in fours.
        let unit = match protocol {
            0 | 43 | 60 => 8,
            51 => 4,
            44 => return Err(Drop::GsoType),
            _ => return Ok((protocol, offset)),
        };
        if offset + 8 > packet.len() {
            return Err(Drop::GsoType);
        }
        protocol = packet[offset];
        offset += 8 + usize::from(packet[offset + 1]) * unit;
        if offset > packet.len() {
            return Err(Drop::GsoType);
        }
    }
}

/// The ECN field of an accepted packet.
pub fn ecn(packet: &[u8]) -> u8 {
    if is_v4(packet) {
        packet[1] & 3
    } else {
        packet[1] >> 4 & 3
    }
}

/// Combine the packet's ECN field with the outer one (RFC 6040, figure 4).
///
/// Not-ECT inside CE stays as it is and is not dropped, as the kernel's WireGuard does.
pub fn decapsulate_ecn(packet: &mut [u8], outer: u8) {
    let inner = ecn(packet);
    let combined = match (inner, outer & 3) {
        (1..=2, CE) => CE,
        (2, 1) => 1,
        _ => return,
    };
    if is_v4(packet) {
        // RFC 1624, equation 3: a checksum that was wrong stays wrong by the same amount.
        let old = read_u16(packet, 0);
        packet[1] = packet[1] & 0xfc | combined;
        let sum =
            u64::from(!read_u16(packet, 10)) + u64::from(!old) + u64::from(read_u16(packet, 0));
        write_u16(packet, 10, checksum::finish(sum));
    } else {
        packet[1] = packet[1] & 0xcf | combined << 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(length: usize) -> Vec<u8> {
        let mut packet = vec![0; length];
        packet[0] = 0x45;
        write_u16(&mut packet, 2, length as u16);
        packet[9] = TCP;
        packet
    }

    #[test]
    fn lengths() {
        assert_eq!(packet_length(&[]), Err(Drop::Truncated));
        assert_eq!(packet_length(&[0x50; 60]), Err(Drop::IpVersion));
        assert_eq!(packet_length(&[0x45; 19]), Err(Drop::IpLength));
        assert_eq!(packet_length(&[0x60; 39]), Err(Drop::IpLength));
        assert_eq!(packet_length(&v4(20)), Ok(20));
        let mut long = v4(40);
        write_u16(&mut long, 2, 41);
        assert_eq!(packet_length(&long), Err(Drop::IpLength));
        write_u16(&mut long, 2, 19);
        assert_eq!(packet_length(&long), Err(Drop::IpLength));
        long[0] = 0x44;
        write_u16(&mut long, 2, 40);
        assert_eq!(packet_length(&long), Err(Drop::IpLength));
        let mut six = vec![0; 48];
        six[0] = 0x60;
        six[5] = 8;
        assert_eq!(packet_length(&six), Ok(48));
        six[5] = 9;
        assert_eq!(packet_length(&six), Err(Drop::IpLength));
    }

    #[test]
    fn extension_headers() {
        let mut packet = vec![0; 40 + 8 + 16 + 12 + 20];
        packet[0] = 0x60;
        packet[6] = 0;
        packet[40] = 43;
        packet[48] = 51;
        packet[49] = 1;
        packet[64] = TCP;
        packet[65] = 1;
        assert_eq!(transport(&packet), Ok((TCP, 76)));
        assert_eq!(transport(&packet[..76]), Ok((TCP, 76)));
        assert_eq!(transport(&packet[..75]), Err(Drop::GsoType));
        packet[64] = 44;
        assert_eq!(transport(&packet), Err(Drop::GsoType));
        packet[6] = 44;
        assert_eq!(transport(&packet), Err(Drop::GsoType));
    }

    #[test]
    fn fragments_have_no_transport_header() {
        let mut packet = v4(60);
        packet[6] = 0x40;
        assert_eq!(transport(&packet), Ok((TCP, 20)));
        packet[6] = 0x20;
        assert_eq!(transport(&packet), Err(Drop::GsoType));
        packet[6..8].copy_from_slice(&[0, 1]);
        assert_eq!(transport(&packet), Err(Drop::GsoType));
    }

    #[test]
    fn ecn_of_rfc_6040() {
        let expected = [[0, 0, 0, 0], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]];
        for (inner, row) in expected.iter().enumerate() {
            for (outer, want) in row.iter().enumerate() {
                let mut four = v4(20);
                four[1] = 0xfc | inner as u8;
                let sum = checksum::finish(checksum::sum(&four));
                write_u16(&mut four, 10, sum);
                let mut six = vec![0; 40];
                six[0] = 0x6f;
                six[1] = 0xcf | (inner as u8) << 4;
                for packet in [&mut four, &mut six] {
                    decapsulate_ecn(packet, outer as u8);
                    assert_eq!(ecn(packet), *want);
                }
                assert_eq!(checksum::fold(checksum::sum(&four)), 0xffff);
            }
        }
    }
}
