//! The way out: read, look up, split, seal, send.

use std::mem;
use std::os::fd::RawFd;

use nix::errno::Errno;

use super::socket::{self, Descriptors};
use super::{ARENA, PeerId, Pump, READ_COST, READ_SIZE, Side, Way, address, lock};
use crate::batches::Batch;
use crate::drops::Drops;
use crate::limits::SEAL_OUT_SIZE;
use crate::virtio;

/// One run of frames to a peer that was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// To whom.
    pub peer: PeerId,
    /// Datagrams.
    pub packets: usize,
    /// Bytes of these datagrams.
    pub bytes: usize,
}

/// Datagrams that the socket did not take, for whatever reason, in the order of sending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// To whom.
    pub peer: PeerId,
    /// Places in `Pump::sealed`.
    pub batches: Vec<Batch>,
}

/// What `Pump::send` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// Frames read, those left included.
    pub frames: usize,
    /// What they took off the budget.
    pub cost: usize,
    /// What was sealed.
    pub sealed: Vec<Sealing>,
    /// Frames dropped.
    pub drops: Drops,
    /// The pump went no further for these, which are to be sent before anything else.
    pub unsent: Option<Unsent>,
    /// Frames read that the pump knows no way for: places in `Pump::arena`, in order. They go after
    /// what is unsent, and before the next call.
    pub left: Vec<(usize, usize)>,
    /// What the TUN answered in place of a frame.
    pub error: Option<Errno>,
    /// Whether the TUN had no more frames.
    pub is_empty: bool,
}

/// What became of a run of frames.
enum Run {
    Done,
    /// From this frame on, Python has to do it.
    Left(usize),
}

impl Pump {
    /// Read and send frames until there are none, `most` were read, `budget` is used up, or
    /// something has to be decided.
    pub fn send(
        &mut self,
        descriptors: Descriptors,
        now: f64,
        mtu: usize,
        most: usize,
        budget: usize,
    ) -> Outgoing {
        let mut out = Outgoing::default();
        let mut arena = mem::take(&mut self.arena);
        let mut spans = Vec::new();
        while out.cost < budget && out.frames < most {
            spans.clear();
            self.read_and_send(
                descriptors,
                &mut arena,
                &mut spans,
                now,
                mtu,
                most,
                budget,
                &mut out,
            );
            if out.is_empty || out.error.is_some() || out.unsent.is_some() || !out.left.is_empty() {
                break;
            }
        }
        self.arena = arena;
        out
    }

    /// Fill the arena once, and send what is in it.
    #[expect(
        clippy::too_many_arguments,
        reason = "it is one step of `send`, and its own function to be read"
    )]
    fn read_and_send(
        &mut self,
        descriptors: Descriptors,
        arena: &mut [u8],
        spans: &mut Vec<(usize, usize)>,
        now: f64,
        mtu: usize,
        most: usize,
        budget: usize,
        out: &mut Outgoing,
    ) {
        let mut latest: Option<PeerId> = None;
        let mut start = 0;
        while out.cost < budget && out.frames < most && start <= ARENA {
            let length =
                match socket::read_frame(descriptors.tun, &mut arena[start..start + READ_SIZE]) {
                    Ok(0) => {
                        out.is_empty = true;
                        break;
                    }
                    Ok(length) => length,
                    Err(error) => {
                        out.cost += READ_COST;
                        out.error = Some(error);
                        break;
                    }
                };
            out.frames += 1;
            out.cost += length + READ_COST;
            let span = (start, start + length);
            let peer = self.peer_for(&arena[span.0..span.1]);
            if peer.is_some() && peer == latest {
                spans.push(span);
            } else {
                self.flush(descriptors, arena, latest, spans, now, mtu, out);
                if peer.is_none() || out.unsent.is_some() || !out.left.is_empty() {
                    out.left.push(span);
                    return;
                }
                latest = peer;
                spans.push(span);
            }
            start = span.1;
        }
        self.flush(descriptors, arena, latest, spans, now, mtu, out);
    }

    /// Who gets the frame; `None` if that has to be decided.
    fn peer_for(&self, frame: &[u8]) -> Option<PeerId> {
        let packet = frame.get(virtio::LENGTH..)?;
        self.addresses
            .get(&address(packet, Side::Destination)?)
            .copied()
    }

    /// Seal and send a run of frames to one peer; `spans` is empty afterwards.
    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn flush(
        &mut self,
        descriptors: Descriptors,
        arena: &[u8],
        peer: Option<PeerId>,
        spans: &mut Vec<(usize, usize)>,
        now: f64,
        mtu: usize,
        out: &mut Outgoing,
    ) {
        let Some(peer) = peer else { return };
        if let Run::Left(from) = self.seal_and_send(descriptors, arena, peer, spans, now, mtu, out)
        {
            out.left.extend_from_slice(&spans[from..]);
        }
        spans.clear();
    }

    #[expect(clippy::too_many_arguments, reason = "as above")]
    fn seal_and_send(
        &mut self,
        descriptors: Descriptors,
        arena: &[u8],
        peer: PeerId,
        spans: &[(usize, usize)],
        now: f64,
        mtu: usize,
        out: &mut Outgoing,
    ) -> Run {
        let Some(known) = self.peers.get_mut(&peer) else {
            return Run::Left(0);
        };
        let Some(way) = known.way.as_ref().filter(|way| now < way.until) else {
            return Run::Left(0);
        };
        let descriptor = descriptors.socket(&way.to.remote);
        let mut from = 0;
        while from < spans.len() {
            let sealed = lock(&way.session).seal(
                arena,
                &spans[from..],
                mtu,
                &mut self.sealed,
                SEAL_OUT_SIZE,
                0,
            );
            let Ok(sealed) = sealed else {
                // It is exhausted.
                known.way = None;
                return Run::Left(from);
            };
            from += sealed.consumed;
            out.drops.add_all(&sealed.drops);
            let mut unsent = Vec::new();
            for &batch in &sealed.batches {
                let rest = if unsent.is_empty() {
                    send_batch(descriptor, way, &self.sealed, batch)
                } else {
                    Some(batch)
                };
                unsent.extend(rest);
            }
            if let Some(last) = sealed.batches.last() {
                out.sealed.push(Sealing {
                    peer,
                    packets: sealed.packets,
                    bytes: last.end,
                });
            }
            if !unsent.is_empty() {
                let batches = unsent;
                out.unsent = Some(Unsent { peer, batches });
                // Perhaps it takes another way from now on.
                known.way = None;
                return Run::Left(from);
            }
        }
        Run::Done
    }
}

/// Send a batch; what the socket did not take of it.
fn send_batch(descriptor: RawFd, way: &Way, sealed: &[u8], batch: Batch) -> Option<Batch> {
    let step = if way.gso {
        batch.end - batch.start
    } else {
        batch.stride
    };
    let mut start = batch.start;
    while start < batch.end {
        let end = batch.end.min(start + step);
        let data = &sealed[start..end];
        if socket::send(descriptor, data, batch.stride, batch.ecn, &way.to).is_err() {
            return Some(Batch { start, ..batch });
        }
        start = end;
    }
    None
}
