//! Ethernet frames as EtherIP (RFC 3378), and where there is an IP packet in one.

use crate::drops::Drop;
use crate::ip::{self, read_u16};

/// What a message with a frame begins with: version 3, and reserved bits that are zero.
pub const ETHERIP: [u8; 2] = [0x30, 0];
/// The nibble of that version.
pub const ETHERIP_VERSION: u8 = 3;
/// Bytes of the header of Ethernet without VLAN tags.
pub const HEADER: usize = 14;
/// The longest header: with two VLAN tags.
pub const LONGEST_HEADER: usize = HEADER + 2 * TAG;
/// Bytes by which a message is longer than its packet, with one VLAN tag.
pub const OVERHEAD: usize = ETHERIP.len() + HEADER + TAG;

const TAG: usize = 4;

/// The length of the Ethernet header of `frame`, and that of the IP packet behind it, if there is
/// one.
pub fn parse(frame: &[u8]) -> Result<(usize, Option<usize>), Drop> {
    if frame.len() < HEADER {
        return Err(Drop::Truncated);
    }
    let mut link = HEADER;
    let mut kind = read_u16(frame, 12);
    for _ in 0..2 {
        if !matches!(kind, 0x8100 | 0x88a8) || frame.len() < link + TAG {
            break;
        }
        kind = read_u16(frame, link + 2);
        link += TAG;
    }
    let packet = &frame[link..];
    let version = packet.first().map(|byte| byte >> 4);
    let length = match (kind, version) {
        (0x0800, Some(4)) | (0x86dd, Some(6)) => ip::packet_length(packet).ok(),
        _ => None,
    };
    Ok((link, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kinds: &[u16], packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        for (place, kind) in kinds.iter().enumerate() {
            if place > 0 {
                frame.extend([0, 7]);
            }
            frame.extend(kind.to_be_bytes());
        }
        frame.extend(packet);
        frame
    }

    #[test]
    fn tags() {
        let mut packet = vec![0; 20];
        (packet[0], packet[3]) = (0x45, 20);
        assert_eq!(parse(&frame(&[0x0800], &packet)), Ok((14, Some(20))));
        assert_eq!(
            parse(&frame(&[0x8100, 0x0800], &packet)),
            Ok((18, Some(20)))
        );
        let two = frame(&[0x88a8, 0x8100, 0x0800], &packet);
        assert_eq!(parse(&two), Ok((LONGEST_HEADER, Some(20))));
        let three = frame(&[0x88a8, 0x8100, 0x8100, 0x0800], &packet);
        assert_eq!(parse(&three), Ok((LONGEST_HEADER, None)));
        assert_eq!(parse(&frame(&[0x86dd], &packet)), Ok((14, None)));
        assert_eq!(parse(&frame(&[0x0800], &packet[..19])), Ok((14, None)));
        assert_eq!(parse(&frame(&[0x8100], &[0, 1])), Ok((14, None)));
        assert_eq!(parse(&frame(&[0x0800], &[])), Ok((14, None)));
        assert_eq!(parse(&[0; 13]), Err(Drop::Truncated));
    }
}
