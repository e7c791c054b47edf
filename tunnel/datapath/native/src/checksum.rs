//! The Internet checksum (RFC 1071).

/// The sum of the big-endian 16-bit words of `data`, not folded; an odd last byte is the high byte
/// of a word that ends in zero.
///
/// The words are added in machine order, four bytes at a time into 64-bit lanes, which the compiler
/// turns into vector code; one's complement addition does not mind (RFC 1071, section 2 B), the
/// bytes are exchanged once at the end. Good for `data` of up to 2^32 words.
pub fn sum(data: &[u8]) -> u64 {
    let mut lanes = [0u64; 8];
    let mut blocks = data.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(4);
    for word in &mut words {
        total += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    }
    let rest = words.remainder();
    let mut last = [0u8; 4];
    last[..rest.len()].copy_from_slice(rest);
    total += u64::from(u32::from_ne_bytes(last));
    u64::from(u16::from_be(fold(total)))
}

/// Fold a sum to 16 bits with end-around carries. Only a sum of zero becomes zero.
pub fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + ((sum >> 16) & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum to store for a sum: its complement, folded.
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Like `finish`, for TCP and UDP: zero is written as 0xffff, its other spelling.
pub fn finish_transport(sum: u64) -> u16 {
    match finish(sum) {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slow(data: &[u8]) -> u16 {
        let mut sum = 0u32;
        for (i, &byte) in data.iter().enumerate() {
            sum += u32::from(byte) << if i % 2 == 0 { 8 } else { 0 };
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn agrees_with_the_definition() {
        let data: Vec<u8> = (0u32..3000)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        for length in (0..200).chain([1451, 1452, 2999, 3000]) {
            for start in 0..3.min(data.len() - length + 1) {
                let part = &data[start..start + length];
                assert_eq!(fold(sum(part)), slow(part), "{start} {length}");
            }
        }
        assert_eq!(fold(sum(&[0xff; 65_536])), 0xffff);
        assert_eq!(fold(sum(&[0; 64])), 0);
    }

    #[test]
    fn folds_every_carry() {
        assert_eq!(fold(u64::MAX), 0xffff);
        assert_eq!(fold(0x1_0000), 1);
        assert_eq!(fold(0xffff_ffff_0000_0001), 1);
        assert_eq!(fold(0x1_fffe_ffff), 0xffff);
        assert_eq!(finish(0xffff), 0);
        assert_eq!(finish_transport(0xffff), 0xffff);
        assert_eq!(finish_transport(0), 0xffff);
    }

    #[test]
    fn rfc_1071_example() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&data)), 0xddf2);
    }
}
