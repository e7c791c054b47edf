//! Initiations with a right mac1 are gathered: what becomes of them is not decided here, but they are
//! decided on, opened and answered together.

use nix::sys::socket::ControlMessageOwned;

use super::Pump;
use super::receive::{INITIATION, usable};
use super::socket::{Origin, Received};
use crate::macs;

/// One that came, and what the kernel said of it.
#[derive(Clone, Debug)]
pub struct Initiation {
    /// All of it.
    pub message: [u8; INITIATION.1],
    /// Its sender, and which of our addresses it reached.
    pub origin: Origin,
    /// What `origin` was read from.
    pub messages: Vec<ControlMessageOwned>,
}

impl Pump {
    /// The initiations of a batch that has nothing else; `None` if there is anything else in it, a
    /// wrong mac1 included, or nothing is known to check mac1 with.
    pub(super) fn initiations(&self, batch: &[u8], received: &Received) -> Option<Vec<Initiation>> {
        let key = self.mac1_key?;
        let origin = *usable(received)?;
        if batch.len() % INITIATION.1 != 0 || received.stride != INITIATION.1 {
            return None;
        }
        let mut messages = batch.chunks(INITIATION.1);
        if !messages.all(|message| message.starts_with(&INITIATION.0))
            || macs::check_mac1(&key, batch, INITIATION.1)?.contains(&false)
        {
            return None;
        }
        let gathered = batch.chunks(INITIATION.1).map(|message| {
            Some(Initiation {
                message: message.try_into().ok()?,
                origin,
                messages: received.messages.clone(),
            })
        });
        gathered.collect()
    }
}
