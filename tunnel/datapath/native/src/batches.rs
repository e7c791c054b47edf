//! Runs of equally long datagrams, each for one send with `UDP_SEGMENT`.

use crate::limits::{MAX_BATCH_SEGMENTS, MAX_DATAGRAM, OVERHEAD};

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

impl Batch {
    fn size(&self) -> usize {
        self.end - self.start
    }

    /// Whether all its datagrams are equally long, and there are several.
    fn is_even(&self) -> bool {
        self.size() > self.stride && self.size() % self.stride == 0
    }

    /// Whether a datagram goes on with it.
    fn takes(&self, length: usize, ecn: u8, short_tails: bool) -> bool {
        let tail = usize::from(short_tails && length == self.stride);
        ecn == self.ecn
            && length <= self.stride
            && self.size() % self.stride == 0
            && self.size() + length + tail * OVERHEAD <= MAX_DATAGRAM
            && self.size() / self.stride + tail < MAX_BATCH_SEGMENTS
    }
}

/// How many tails `count` datagrams of `stride` bytes may need at most, with one for the batch
/// before them.
pub fn most_tails(count: usize, stride: usize) -> usize {
    let together = (MAX_DATAGRAM - OVERHEAD) / stride;
    1 + count.div_ceil(together.clamp(1, MAX_BATCH_SEGMENTS - 1))
}

/// The batches of one call, in order.
#[derive(Debug, Default)]
pub struct Batches {
    /// Those so far; the last one may go on.
    pub list: Vec<Batch>,
    short_tails: bool,
}

impl Batches {
    /// With `short_tails` no batch of several datagrams may be of equally long ones only.
    pub fn new(short_tails: bool) -> Batches {
        Batches {
            list: Vec::new(),
            short_tails,
        }
    }

    /// Whether the last batch is to end with a tail, a datagram of `OVERHEAD` bytes, before one of
    /// this length and ECN is appended, or at all.
    pub fn needs_tail(&self, next: Option<(usize, u8)>) -> bool {
        self.short_tails
            && self.list.last().is_some_and(|last| {
                last.is_even() && !next.is_some_and(|(length, ecn)| last.takes(length, ecn, true))
            })
    }

    /// Append a datagram that begins where the last one ended to the last batch, or begin a new one.
    pub fn push(&mut self, start: usize, length: usize, ecn: u8) {
        match self.list.last_mut() {
            Some(last) if last.takes(length, ecn, self.short_tails) => last.end += length,
            _ => self.list.push(Batch {
                start,
                end: start + length,
                stride: length,
                ecn,
            }),
        }
    }

    /// Append a tail to the last batch, which needs one.
    pub fn push_tail(&mut self) {
        if let Some(last) = self.list.last_mut() {
            last.end += OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(datagrams: &[(usize, u8)]) -> Vec<(usize, usize)> {
        cut_with(datagrams, false)
    }

    fn cut_with(datagrams: &[(usize, u8)], short_tails: bool) -> Vec<(usize, usize)> {
        let mut batches = Batches::new(short_tails);
        let mut at = 100;
        let next = datagrams.iter().copied().map(Some).chain([None]);
        for next in next {
            if batches.needs_tail(next) {
                batches.push_tail();
                at += OVERHEAD;
            }
            if let Some((length, ecn)) = next {
                batches.push(at, length, ecn);
                at += length;
            }
        }
        assert_eq!(batches.list.last().map(|batch| batch.end), Some(at));
        let size = |batch: &Batch| (batch.end - batch.start, batch.stride);
        batches.list.iter().map(size).collect()
    }

    #[test]
    fn tails() {
        let cut = |datagrams: &[(usize, u8)]| cut_with(datagrams, true);
        assert_eq!(cut(&[(48, 0)]), [(48, 48)]);
        assert_eq!(cut(&[(48, 0), (48, 0)]), [(128, 48)]);
        assert_eq!(cut(&[(64, 0), (64, 0), (48, 0)]), [(176, 64)]);
        assert_eq!(cut(&[(64, 0), (64, 1)]), [(64, 64), (64, 64)]);
        assert_eq!(
            cut(&[(64, 0), (64, 0), (64, 1), (80, 1)]),
            [(160, 64), (64, 64), (80, 80)]
        );
        assert_eq!(cut(&[(48, 0); 64]), [(48 * 63 + 32, 48), (48, 48)]);
        let mut datagrams = vec![(64, 0); 63];
        datagrams.push((48, 0));
        assert_eq!(cut(&datagrams), [(64 * 63 + 48, 64)]);
        // No room for a tail: both are sent alone.
        assert_eq!(cut(&[(32_740, 0), (32_740, 0)]), [(32_740, 32_740); 2]);
        assert_eq!(cut(&[(32_740, 0), (32_000, 0)]), [(64_740, 32_740)]);
        assert_eq!(
            cut(&[(1452, 0); 47]),
            [(1452 * 45 + 32, 1452), (1452 * 2 + 32, 1452)]
        );
    }

    #[test]
    fn room_for_tails() {
        assert_eq!(most_tails(1, 48), 2);
        assert_eq!(most_tails(63, 48), 2);
        assert_eq!(most_tails(64, 48), 3);
        assert_eq!(most_tails(46, 1452), 3);
        assert_eq!(most_tails(2, MAX_DATAGRAM), 3);
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
