//! Fuzzing that runs with any Rust: random bytes into the checks of `fuzz/checks.rs` for
//! FUZZ_SECONDS (2 if unset). FUZZ_SEED repeats a run; a failure prints the seed it needs.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::time::{Duration, Instant, SystemTime};

/// xorshift64*, good enough to draw inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    /// Bytes among which the boundary values are frequent.
    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        let length = self.below(limit);
        let byte = |random: &mut Self| match random.below(4) {
            0 => 0,
            1 => [1, 4, 5, 6, 16, 17, 0x40, 0x45, 0x50, 0x60, 0xff][random.below(11)],
            _ => random.next() as u8,
        };
        (0..length).map(|_| byte(self)).collect()
    }

    /// A frame that is mostly in order, for the check of split.
    fn frame(&mut self) -> Vec<u8> {
        let (v4, tcp) = (self.below(2) == 0, self.below(2) == 0);
        let (start, field, header) = match (v4, tcp) {
            (true, true) => (20, 16, 20),
            (true, false) => (20, 6, 8),
            (false, true) => (40, 16, 20),
            (false, false) => (40, 6, 8),
        };
        let payload = self.below(4000);
        let length = start + header + payload;
        let mut packet = vec![0u8; length];
        let (size, protocol) = ((length - start) as u16, if tcp { 6 } else { 17 });
        if v4 {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            packet[9] = protocol;
        } else {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&size.to_be_bytes());
            packet[6] = protocol;
        }
        if tcp {
            packet[start + 12] = 0x50;
        }
        let kind = match (v4, tcp) {
            (true, true) => 1,
            (false, true) => 4,
            _ => 5,
        };
        let gso = (1 + self.below(1500)) as u16;
        let mut data = vec![self.next() as u8 & 7, self.next() as u8, 1, kind, 0, 0];
        data.extend(gso.to_le_bytes());
        data.extend([start as u8, 0, field, 0]);
        data.extend(packet);
        for _ in 0..self.below(4) {
            let at = self.below(data.len().min(80));
            data[at] = self.next() as u8;
        }
        data
    }
}

/// Rounds between two lines of progress.
const PROGRESS: u64 = 100_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn main() {
    let time = Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(2));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let seed = variable("FUZZ_SEED").unwrap_or(now.map_or(1, |now| now.as_nanos() as u64));
    println!("FUZZ_SEED={seed}");
    let mut random = Random(seed | 1);
    let (begin, mut rounds) = (Instant::now(), 0u64);
    while begin.elapsed() < time {
        checks::split(&random.frame());
        checks::split(&random.bytes(200));
        checks::open(&random.bytes(3000));
        checks::coalesce(&random.bytes(2000));
        checks::handshake(&random.bytes(400));
        rounds += 1;
        if rounds % PROGRESS == 0 {
            println!("{rounds} rounds");
        }
    }
    println!("{rounds} rounds, nothing found");
}
