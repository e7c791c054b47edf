//! The file in which sessions note what outlives this process: see `interface.Ledger`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// A file, and how many counters a session reserves in it at a time.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    block: u64,
}

impl Ledger {
    /// The file that `fd` is of. It is opened again, so that the caller may close `fd`.
    pub fn open(fd: RawFd, block: u64) -> io::Result<Ledger> {
        let path = format!("/proc/self/fd/{fd}");
        let file = OpenOptions::new().write(true).open(path)?;
        Ok(Ledger { file, block })
    }
}

/// Where one session has its two words in a ledger.
#[derive(Clone, Debug)]
pub struct Place {
    ledger: Arc<Ledger>,
    offset: u64,
    mask: u64,
}

impl Place {
    /// The words at `offset`, and `offset` + 16.
    pub fn new(ledger: Arc<Ledger>, offset: u64, mask: u64) -> Place {
        Place {
            ledger,
            offset,
            mask,
        }
    }

    /// Counters that are reserved at a time.
    pub fn block(&self) -> u64 {
        self.ledger.block
    }

    /// Counters below `value` may have been used; whether that is noted.
    pub fn note_sent(&self, value: u64) -> bool {
        self.note(self.offset, value)
    }

    /// Counters below `value` were accepted.
    pub fn note_received(&self, value: u64) -> bool {
        self.note(self.offset + 16, value)
    }

    fn note(&self, offset: u64, value: u64) -> bool {
        let mut word = [0; 16];
        word[..8].copy_from_slice(&value.to_le_bytes());
        word[8..].copy_from_slice(&(value ^ self.mask).to_le_bytes());
        self.ledger.file.write_all_at(&word, offset).is_ok()
    }
}
