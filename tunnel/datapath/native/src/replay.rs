//! The replay window: a bitmap used as a ring (RFC 6479), 8192 bits.

const WORD_BITS: u64 = 64;
const WORDS: usize = 128;
/// A counter further than this behind the greatest one is refused: all bits less one word.
pub const WINDOW: u64 = WORD_BITS * (WORDS as u64 - 1);

/// Which counters were seen, and the greatest of them.
#[derive(Clone, Debug)]
pub struct Replay {
    greatest: u64,
    bits: [u64; WORDS],
}

impl Default for Replay {
    fn default() -> Self {
        Replay {
            greatest: 0,
            bits: [0; WORDS],
        }
    }
}

fn place(counter: u64) -> (usize, u64) {
    let word = (counter / WORD_BITS) as usize % WORDS;
    (word, 1 << (counter % WORD_BITS))
}

impl Replay {
    /// A window in which all counters below `next` were seen.
    pub fn starting_at(next: u64) -> Replay {
        let Some(greatest) = next.checked_sub(1) else {
            return Replay::default();
        };
        let mut replay = Replay {
            greatest,
            bits: [u64::MAX; WORDS],
        };
        let (word, bit) = place(greatest);
        replay.bits[word] = bit | (bit - 1);
        replay
    }

    /// One more than the greatest counter seen; 0 before the first.
    pub fn next(&self) -> u64 {
        if self.greatest == 0 && self.bits[0] & 1 == 0 {
            return 0;
        }
        self.greatest.saturating_add(1)
    }

    /// Whether the counter is neither too old nor seen before. Changes nothing.
    pub fn is_new(&self, counter: u64) -> bool {
        if counter > self.greatest {
            return true;
        }
        let (word, bit) = place(counter);
        self.greatest - counter <= WINDOW && self.bits[word] & bit == 0
    }

    /// Mark a counter as seen, once its message was authenticated. It must be new.
    pub fn mark(&mut self, counter: u64) {
        if counter > self.greatest {
            let old = self.greatest / WORD_BITS;
            let steps = (counter / WORD_BITS - old).min(WORDS as u64);
            for step in 1..=steps {
                self.bits[(old + step) as usize % WORDS] = 0;
            }
            self.greatest = counter;
        }
        let (word, bit) = place(counter);
        self.bits[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The window as a set of all counters ever seen.
    #[derive(Default)]
    struct Oracle {
        seen: HashSet<u64>,
        greatest: u64,
    }

    impl Oracle {
        fn take(&mut self, counter: u64) -> bool {
            if self.greatest > counter && self.greatest - counter > WINDOW {
                return false;
            }
            self.greatest = self.greatest.max(counter);
            self.seen.insert(counter)
        }
    }

    fn take(replay: &mut Replay, counter: u64) -> bool {
        let new = replay.is_new(counter);
        if new {
            replay.mark(counter);
        }
        new
    }

    #[test]
    fn edges() {
        let mut replay = Replay::default();
        assert!(take(&mut replay, 0));
        assert!(!take(&mut replay, 0));
        assert!(take(&mut replay, WINDOW));
        assert!(!take(&mut replay, 0));
        assert!(take(&mut replay, 1));
        assert!(take(&mut replay, WINDOW + 2));
        assert!(!replay.is_new(1));
        assert!(replay.is_new(2));
        assert!(take(&mut replay, u64::MAX - 1));
        assert!(!take(&mut replay, u64::MAX - 1));
        assert!(take(&mut replay, u64::MAX));
        assert!(take(&mut replay, u64::MAX - WINDOW));
        assert!(!replay.is_new(u64::MAX - WINDOW - 1));
    }

    #[test]
    fn starts_at() {
        assert_eq!(Replay::starting_at(0).next(), 0);
        for next in [1, 2, 63, 64, 65, 8192, 1 << 40] {
            let mut replay = Replay::starting_at(next);
            assert_eq!(replay.next(), next);
            assert!((next.saturating_sub(10_000)..next).all(|counter| !replay.is_new(counter)));
            assert!(take(&mut replay, next + 5));
            assert!((next..next + 5).all(|counter| take(&mut replay, counter)));
            assert!((next.saturating_sub(8000)..next + 6).all(|counter| !replay.is_new(counter)));
            assert_eq!(replay.next(), next + 6);
        }
    }

    #[test]
    fn agrees_with_a_set() {
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for _ in 0..20 {
            let (mut replay, mut oracle) = (Replay::default(), Oracle::default());
            let mut base = random() % 3;
            for _ in 0..20_000 {
                base += match random() % 100 {
                    0 => random() % 20_000,
                    1..=50 => random() % 3,
                    _ => 0,
                };
                let back = random() % if random() % 2 == 0 { 100 } else { 9000 };
                let counter = base.saturating_sub(back);
                assert_eq!(take(&mut replay, counter), oracle.take(counter));
            }
        }
    }
}
