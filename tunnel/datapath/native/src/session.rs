//! One session's transport keys, counters and replay window: seal and open over buffers
//! (whitepaper, section 5.4.6).

use crate::batches::{self, Batch, Batches};
use crate::coalesce::{Coalescer, Offload};
use crate::drops::{Drop, Drops};
use crate::ethernet::{self, ETHERIP, ETHERIP_VERSION};
use crate::ip;
use crate::ledger::Place;
use crate::limits::{HEADER, OVERHEAD, REJECT_AFTER_MESSAGES, TAG};
use crate::replay::Replay;
use crate::split::Plan;
use crate::transport_key::TransportKey;

/// Type 4 and three reserved bytes.
const TRANSPORT: [u8; 4] = [4, 0, 0, 0];

/// The session has sealed all the messages its keys are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

/// What `Session::seal` did; see `interface.Sealed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// In the order of sending.
    pub batches: Vec<Batch>,
    /// Frames taken.
    pub consumed: usize,
    /// Datagrams sealed.
    pub packets: usize,
    /// Frames dropped.
    pub drops: Drops,
}

/// What `Session::open` did; see `interface.Opened`, which adds the frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Bytes of datagrams taken.
    pub consumed: usize,
    /// Datagrams authenticated and new.
    pub packets: usize,
    /// Those without a packet inside.
    pub keepalives: usize,
    /// Bytes of those datagrams.
    pub wire_bytes: usize,
    /// Bytes of the packets handed on.
    pub payload_bytes: usize,
    /// Datagrams dropped.
    pub drops: Drops,
}

/// A pair of transport keys with its state.
#[derive(Debug)]
pub struct Session {
    send: TransportKey,
    receive: TransportKey,
    local_index: u32,
    remote_index: u32,
    send_counter: u64,
    /// No counter from here on is ever used.
    limit: u64,
    /// Counters below it may be used; the ledger says so, if there is one.
    reserved: u64,
    replay: Replay,
    place: Option<Place>,
    ethernet: bool,
    short_tails: bool,
}

/// Where a message holds a packet.
struct Inner {
    /// Bytes before it, the header of Ethernet.
    link: usize,
    /// Its bytes. An Ethernet frame that holds none is all `link`.
    packet: usize,
}

impl Session {
    /// A session of two 32-byte keys; `None` if one is not.
    pub fn new(
        send_key: &[u8],
        receive_key: &[u8],
        local_index: u32,
        remote_index: u32,
        initial_counter: u64,
    ) -> Option<Session> {
        Some(Session {
            send: TransportKey::new(send_key)?,
            receive: TransportKey::new(receive_key)?,
            local_index,
            remote_index,
            send_counter: initial_counter,
            limit: REJECT_AFTER_MESSAGES,
            reserved: REJECT_AFTER_MESSAGES,
            replay: Replay::default(),
            place: None,
            ethernet: false,
            short_tails: false,
        })
    }

    /// The session of which no batch is of equally long datagrams only, if `short_tails`.
    pub fn with_short_tails(mut self, short_tails: bool) -> Session {
        self.short_tails = short_tails;
        self
    }

    /// The session that refuses counters below `received`.
    pub fn with_received(mut self, received: u64) -> Session {
        self.replay = Replay::starting_at(received);
        self
    }

    /// The session that notes its counters at `place`.
    pub fn with_ledger(mut self, place: Place) -> Session {
        self.reserved = self.send_counter;
        self.place = Some(place);
        self
    }

    /// The session for the frames of a TAP device, if `ethernet`.
    pub fn with_ethernet(mut self, ethernet: bool) -> Session {
        self.ethernet = ethernet;
        self
    }

    /// Messages sealed so far, which is also the counter of the next one.
    pub fn send_counter(&self) -> u64 {
        self.send_counter
    }

    /// Receiver index of the datagrams that `open` takes.
    pub fn local_index(&self) -> u32 {
        self.local_index
    }

    /// Receiver index written into sealed datagrams.
    pub fn remote_index(&self) -> u32 {
        self.remote_index
    }

    /// Seal nothing more, and note in the ledger how far it came: reserved counters that were not
    /// used are free again.
    pub fn hand_over(&mut self) {
        self.limit = self.send_counter;
        self.reserved = self.send_counter;
        if let Some(place) = &self.place {
            // Where that fails, the block stays reserved.
            place.note_sent(self.send_counter);
        }
    }

    /// Note nothing more; the place belongs to another.
    pub fn forget_ledger(&mut self) {
        self.place = None;
        self.reserved = self.limit;
    }

    /// Whether the next `messages` counters may be used. They are reserved in the ledger first.
    fn reserve(&mut self, messages: u64) -> bool {
        if self.reserved.saturating_sub(self.send_counter) >= messages {
            return true;
        }
        let left = self.limit.saturating_sub(self.send_counter);
        let Some(place) = self.place.as_ref().filter(|_| left >= messages) else {
            return false;
        };
        let reserved = self.send_counter + left.min(messages.max(place.block()));
        if !place.note_sent(reserved) {
            return false;
        }
        self.reserved = reserved;
        true
    }

    /// Seal the padded packet that `write` puts into the datagram `slot`.
    fn seal_one(
        &mut self,
        slot: &mut [u8],
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Exhausted> {
        if self.send_counter >= self.reserved {
            return Err(Exhausted);
        }
        let inner = slot.len() - OVERHEAD;
        let (header, rest) = slot.split_at_mut(HEADER);
        let (packet, tag) = rest.split_at_mut(inner);
        header[..4].copy_from_slice(&TRANSPORT);
        header[4..8].copy_from_slice(&self.remote_index.to_le_bytes());
        header[8..].copy_from_slice(&self.send_counter.to_le_bytes());
        write(packet);
        let sealed = self
            .send
            .seal(self.send_counter, packet)
            // Only for messages of 256 GiB, which no slot is.
            .ok_or(Exhausted)?;
        self.send_counter += 1;
        tag.copy_from_slice(&sealed);
        Ok(())
    }

    /// Seal an empty message.
    pub fn seal_keepalive(&mut self) -> Result<[u8; OVERHEAD], Exhausted> {
        let mut datagram = [0; OVERHEAD];
        self.seal_bytes(&[], &mut datagram)?;
        Ok(datagram)
    }

    /// Seal `plain` as it is into `datagram`, which must be `OVERHEAD` longer.
    pub fn seal_bytes(&mut self, plain: &[u8], datagram: &mut [u8]) -> Result<(), Exhausted> {
        if !self.reserve(1) {
            return Err(Exhausted);
        }
        self.seal_one(datagram, |packet| packet.copy_from_slice(plain))
    }

    /// Turn the frames at `spans` of `frames` into datagrams, written from the start of `out`,
    /// which grows when needed but holds at most `room` bytes of datagrams. Batches are numbered as
    /// if `out` began at `base`. Spans must lie inside `frames`.
    pub fn seal(
        &mut self,
        frames: &[u8],
        spans: &[(usize, usize)],
        mtu: usize,
        out: &mut Vec<u8>,
        room: usize,
        base: usize,
    ) -> Result<Sealed, Exhausted> {
        let mut result = Sealed::default();
        let mut batches = Batches::new(self.short_tails);
        let before = self.send_counter;
        let mut at = 0;
        for &(start, end) in spans {
            let plan = if self.ethernet {
                Plan::of_ethernet(&frames[start..end], mtu)
            } else {
                Plan::new(&frames[start..end], mtu)
            };
            let plan = match plan {
                Ok(plan) => plan,
                Err(reason) => {
                    result.drops.add(reason);
                    result.consumed += 1;
                    continue;
                }
            };
            let segments = plan.segments();
            let tails = if self.short_tails {
                batches::most_tails(segments, plan.padded_length(0) + OVERHEAD)
            } else {
                0
            };
            let length = plan.sealed_length() + tails * OVERHEAD;
            if length > room - at {
                break;
            }
            let messages = (segments + tails) as u64;
            if !self.reserve(messages) {
                if result.consumed == 0 {
                    return Err(Exhausted);
                }
                break;
            }
            if out.len() < at + length {
                out.resize(at + length, 0);
            }
            for number in 0..segments {
                let size = plan.padded_length(number) + OVERHEAD;
                if batches.needs_tail(Some((size, plan.ecn()))) {
                    at += self.seal_tail(&mut out[at..], &mut batches)?;
                }
                self.seal_one(&mut out[at..at + size], |packet| plan.write(number, packet))?;
                batches.push(base + at, size, plan.ecn());
                at += size;
            }
            result.consumed += 1;
        }
        if batches.needs_tail(None) {
            self.seal_tail(&mut out[at..], &mut batches)?;
        }
        result.batches = batches.list;
        result.packets = (self.send_counter - before) as usize;
        Ok(result)
    }

    /// Seal an empty message at the start of `out`, as the end of the last batch; its length.
    fn seal_tail(&mut self, out: &mut [u8], batches: &mut Batches) -> Result<usize, Exhausted> {
        self.seal_one(&mut out[..OVERHEAD], |_| ())?;
        batches.push_tail();
        Ok(OVERHEAD)
    }

    /// Open the datagrams of `batch`, cut every `stride` bytes, in place, and add their packets to
    /// `frames`, which refers to the places in `batch` where they now stand.
    pub fn open(
        &mut self,
        batch: &mut [u8],
        stride: usize,
        offload: Offload,
        outer_ecn: u8,
        frames: &mut Coalescer,
    ) -> Opened {
        let mut result = Opened::default();
        let before = self.replay.next();
        let mut receiver = [4, 0, 0, 0, 0, 0, 0, 0];
        receiver[4..].copy_from_slice(&self.local_index.to_le_bytes());
        while result.consumed < batch.len() {
            let start = result.consumed;
            let length = stride.min(batch.len() - start);
            let datagram = &mut batch[start..start + length];
            if length < OVERHEAD || datagram[..8] != receiver {
                break;
            }
            result.consumed += length;
            match self.open_one(datagram, outer_ecn, &mut result) {
                Ok(None) => result.keepalives += 1,
                Ok(Some(Inner { link, packet })) => {
                    result.payload_bytes += link + packet;
                    let lead = if self.ethernet { ETHERIP.len() } else { 0 };
                    frames.add(batch, start + HEADER + lead, link, packet, offload);
                }
                Err(reason) => result.drops.add(reason),
            }
        }
        if self.replay.next() > before {
            if let Some(place) = &self.place {
                place.note_received(self.replay.next());
            }
        }
        result
    }

    /// Decrypt one datagram in place; returns where its packet is, `None` for a keepalive.
    fn open_one(
        &mut self,
        datagram: &mut [u8],
        outer_ecn: u8,
        result: &mut Opened,
    ) -> Result<Option<Inner>, Drop> {
        let length = datagram.len();
        let (header, sealed) = datagram.split_at_mut(HEADER);
        let mut counter = [0; 8];
        counter.copy_from_slice(&header[8..]);
        let counter = u64::from_le_bytes(counter);
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Drop::CounterLimit);
        }
        if !self.replay.is_new(counter) {
            return Err(Drop::Replay);
        }
        let plaintext = self
            .receive
            .open(counter, sealed)
            .ok_or(Drop::Authentication)?;
        debug_assert_eq!(plaintext.len() + HEADER + TAG, length);
        // Only now: a forged counter must not move the window.
        self.replay.mark(counter);
        result.packets += 1;
        result.wire_bytes += length;
        let Some(&first) = plaintext.first() else {
            return Ok(None);
        };
        if !self.ethernet {
            if first >> 4 == ETHERIP_VERSION {
                return Err(Drop::Ethernet);
            }
            let packet = ip::packet_length(plaintext)?;
            ip::decapsulate_ecn(&mut plaintext[..packet], outer_ecn);
            return Ok(Some(Inner { link: 0, packet }));
        }
        if !plaintext.starts_with(&ETHERIP) {
            return Err(Drop::NotEthernet);
        }
        let frame = &mut plaintext[ETHERIP.len()..];
        let (link, packet) = ethernet::parse(frame)?;
        let Some(packet) = packet else {
            let link = frame.len();
            return Ok(Some(Inner { link, packet: 0 }));
        };
        ip::decapsulate_ecn(&mut frame[link..link + packet], outer_ecn);
        Ok(Some(Inner { link, packet }))
    }
}
