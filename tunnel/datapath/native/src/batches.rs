//! Runs of equally long datagrams, each for one send with `UDP_SEGMENT`.

use crate::limits::{MAX_BATCH_SEGMENTS, MAX_DATAGRAM};

/// Datagrams back to back, cut every `stride` bytes; only the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where the first begins.
    pub start: usize,
    /// Where the last ends.
    pub end: usize,
    /// Length of all but the last.
    pub stride: usize,
    /// The ECN field for the outer header.
    pub ecn: u8,
}

/// Append a datagram that begins where the last one ended to the last batch, or begin a new one.
pub fn push(batches: &mut Vec<Batch>, start: usize, length: usize, ecn: u8) {
    if let Some(last) = batches.last_mut() {
        let bytes = last.end - last.start;
        if ecn == last.ecn
            && length <= last.stride
            && bytes % last.stride == 0
            && bytes + length <= MAX_DATAGRAM
            && bytes / last.stride < MAX_BATCH_SEGMENTS
        {
            last.end += length;
            return;
        }
    }
    batches.push(Batch {
        start,
        end: start + length,
        stride: length,
        ecn,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(datagrams: &[(usize, u8)]) -> Vec<(usize, usize)> {
        let mut batches = Vec::new();
        let mut at = 100;
        for &(length, ecn) in datagrams {
            push(&mut batches, at, length, ecn);
            at += length;
        }
        assert_eq!(batches.last().map(|batch| batch.end), Some(at));
        let size = |batch: &Batch| (batch.end - batch.start, batch.stride);
        batches.iter().map(size).collect()
    }

    #[test]
    fn ends() {
        assert_eq!(cut(&[(48, 0), (48, 0), (32, 0)]), [(128, 48)]);
        assert_eq!(
            cut(&[(48, 0), (32, 0), (48, 0), (64, 0), (64, 1)]),
            [(80, 48), (48, 48), (64, 64), (64, 64)]
        );
        assert_eq!(cut(&[(48, 0), (32, 0), (32, 0)]), [(80, 48), (32, 32)]);
        assert_eq!(cut(&[(48, 2); 65]), [(48 * 64, 48), (48, 48)]);
        assert_eq!(cut(&[(65_507, 0), (32, 0)]), [(65_507, 65_507), (32, 32)]);
        assert_eq!(cut(&[(1452, 0); 46]), [(1452 * 45, 1452), (1452, 1452)]);
        let full = [(1452 * 45 + 167, 1452), (1452, 1452)];
        let mut datagrams = vec![(1452, 0); 45];
        datagrams.extend([(167, 0), (1452, 0)]);
        assert_eq!(cut(&datagrams), full);
    }
}
