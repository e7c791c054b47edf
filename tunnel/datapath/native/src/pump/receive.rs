//! The way in: receive, look up, open, check, merge, write; and the kernel's answer out again.

use std::mem;
use std::net::SocketAddr;

use nix::errno::Errno;

use super::initiations::Initiation;
use super::send::Outgoing;
use super::socket::{self, Descriptors, Origin, Received};
use super::{LOOK_COST, Pump, READ_COST, Side, address, lock};
use crate::coalesce::Offload;
use crate::drops::Drops;
use crate::limits::OVERHEAD;
use crate::macs;

/// How a transport data message begins.
const TRANSPORT: [u8; 4] = [4, 0, 0, 0];
/// How a cookie reply begins.
const COOKIE_REPLY: [u8; 4] = [3, 0, 0, 0];
/// The ECN field of a datagram that met congestion.
const CE: u8 = 3;
/// How handshake messages with a mac1 begin, and how long they are.
pub(super) const INITIATION: ([u8; 4], usize) = ([1, 0, 0, 0], 148);
const RESPONSE: ([u8; 4], usize) = ([2, 0, 0, 0], 92);
/// mac2 of one who has no cookie. It ends the message.
const NO_MAC: [u8; 16] = [0; 16];

/// What one session opened of one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The session's.
    pub index: u32,
    /// Datagrams that were authentic and new.
    pub packets: usize,
    /// Those without a packet.
    pub keepalives: usize,
    /// Bytes of these datagrams.
    pub bytes: usize,
}

/// What has to be decided before the next call.
#[derive(Clone, Debug)]
pub enum Stop {
    /// A batch in `Pump::received` that the pump cannot take.
    Datagrams(Received),
    /// Frames of the session, in `Pump::sealed`, that it does not know to come from an allowed
    /// source, or that the TUN refused; and those behind them.
    Frames(u32, Vec<(usize, usize)>),
    /// What the socket answered in place of a batch.
    Error(Errno),
}

/// A count of handshake messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forged {
    /// Initiations without a mac2: what the filter of a flood knows as one kind.
    pub bare: usize,
    /// All others.
    pub rest: usize,
}

/// What `Pump::receive` did.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// Batches received, without that of `Stop::Datagrams`.
    pub batches: usize,
    /// What they took off the budget.
    pub cost: usize,
    /// What was opened.
    pub opened: Vec<Opening>,
    /// Datagrams and packets dropped.
    pub drops: Drops,
    /// Datagrams of no session.
    pub unknown: usize,
    /// Handshake messages with a wrong mac1.
    pub forged: Forged,
    /// Initiations without a mac2 from senders that are sent no cookie.
    pub unanswered: usize,
    /// Datagrams that are no message at all.
    pub malformed: usize,
    /// Packets in datagrams that were marked CE on their way.
    pub congested: usize,
    /// Frames that the TUN had no room for.
    pub busy: usize,
    /// Initiations that were gathered, in order.
    pub initiations: Vec<Initiation>,
    /// Why it ended, unless there was nothing more or the budget was used up.
    pub stop: Option<Stop>,
    /// Whether one packet came alone, was written, and nothing else was looked for.
    pub is_alone: bool,
    /// What became of the kernel's answer to a packet that came alone.
    pub answer: Option<Outgoing>,
}

/// How to receive: what holds for a whole call.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// The TUN and both sockets.
    pub descriptors: Descriptors,
    /// Whether to receive from the socket of IPv6, or of IPv4.
    pub v6: bool,
    /// Seconds.
    pub now: f64,
    /// Bytes.
    pub budget: usize,
    /// Kinds of packets to merge.
    pub offload: Offload,
    /// Of a packet to be sealed, should there be an answer.
    pub mtu: usize,
    /// Whether a packet is taken to come alone: the kernel's answer is sent at once.
    pub lone: bool,
    /// Whether others are looked for behind a lone one all the same.
    pub look: bool,
    /// Whether an answer may be sent.
    pub may_answer: bool,
    /// Whether Python wants to see the next message with a wrong mac1.
    pub show_forged: bool,
    /// Whose initiations without a mac2 are dropped.
    pub unanswered: Unanswered,
    /// Whether initiations with a right mac1 are gathered; if not, they are given back.
    pub gather: bool,
}

/// Who is sent no cookie, under load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unanswered {
    /// Each may be sent one, or there is no load.
    #[default]
    No,
    /// Not this one.
    One(SocketAddr),
    /// None.
    All,
}

impl Pump {
    /// Receive and write until there is nothing, `budget` is used up, or something has to be
    /// decided.
    pub fn receive(&mut self, how: How) -> Incoming {
        let mut incoming = Incoming::default();
        let mut room = mem::take(&mut self.received);
        let mut lone = how.lone;
        let mut has_written = false;
        let Descriptors { v4, v6, .. } = how.descriptors;
        let socket = if how.v6 { v6 } else { v4 };
        while incoming.cost < how.budget {
            let received = match socket::receive(socket, &mut room) {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    incoming.cost += LOOK_COST;
                    incoming.stop = Some(Stop::Error(error));
                    break;
                }
            };
            let length = received.length;
            let single = length <= received.stride;
            let written = if self.knows(&room[..length], &received, how.now) {
                incoming.batches += 1;
                self.deliver(&mut room[..length], &received, how, &mut incoming)
            } else if self.refuses(&room[..length], &received, how, &mut incoming) {
                incoming.batches += 1;
                0
            } else if let Some(found) = how
                .gather
                .then(|| self.initiations(&room[..length], &received))
                .flatten()
            {
                incoming.batches += 1;
                incoming.initiations.extend(found);
                0
            } else {
                incoming.stop = Some(Stop::Datagrams(received));
                break;
            };
            incoming.cost += length + if written > 0 { READ_COST } else { LOOK_COST };
            if incoming.stop.is_some() {
                break;
            }
            has_written |= written > 0;
            lone = lone && written > 0 && single;
            if lone && !how.look {
                incoming.is_alone = true;
                break;
            }
            lone = false;
        }
        self.received = room;
        if has_written && how.may_answer && incoming.stop.is_none() {
            // What the kernel answered within the writes is there already: an echo reply, most
            // acknowledgements, and the data that these let out.
            let most = if incoming.is_alone { 1 } else { usize::MAX };
            let budget = how.budget.saturating_sub(incoming.cost).max(1);
            incoming.answer = Some(self.send(how.descriptors, how.now, how.mtu, most, budget));
        }
        incoming
    }

    /// Whether all of the batch is data of one session that it was taught, from where that sends.
    fn knows(&self, batch: &[u8], received: &Received, now: f64) -> bool {
        let Some(origin) = usable(received) else {
            return false;
        };
        let known = batch
            .get(4..8)
            .and_then(|_| self.receivers.get(&index_of(batch)));
        let Some(Some(receiver)) = known else {
            return false;
        };
        now < receiver.until
            && receiver.origin == *origin
            && batch.chunks(received.stride).all(|datagram| {
                datagram.len() >= OVERHEAD
                    && datagram[..4] == TRANSPORT
                    && datagram[4..8] == batch[4..8]
            })
    }

    /// Open and write a batch that it knows; how many frames were written.
    fn deliver(
        &mut self,
        batch: &mut [u8],
        received: &Received,
        how: How,
        incoming: &mut Incoming,
    ) -> usize {
        let index = index_of(batch);
        let Some(Some(receiver)) = self.receivers.get(&index) else {
            return 0;
        };
        self.frames.clear();
        let opened = lock(&receiver.session).open(
            batch,
            received.stride,
            how.offload,
            received.ecn,
            &mut self.frames,
        );
        debug_assert_eq!(opened.consumed, batch.len());
        incoming.drops.add_all(&opened.drops);
        if opened.packets == 0 {
            return 0;
        }
        if received.ecn == CE {
            incoming.congested += opened.packets;
        }
        incoming.opened.push(Opening {
            index,
            packets: opened.packets,
            keepalives: opened.keepalives,
            bytes: opened.wire_bytes,
        });
        let peer = receiver.peer;
        let (addresses, kept) = (&self.addresses, &mut self.sealed);
        let mut written = 0;
        let mut left = Vec::new();
        self.frames.each_frame(batch, |packet, parts| {
            // Once one is left, the others are: none overtakes it.
            if left.is_empty() {
                let source = address(packet, Side::Source);
                if source.is_some_and(|source| addresses.get(&source) == Some(&peer)) {
                    match socket::write_frame(how.descriptors.tun, parts) {
                        Ok(true) => {
                            written += 1;
                            return;
                        }
                        Ok(false) => {
                            incoming.busy += 1;
                            return;
                        }
                        Err(_) => {}
                    }
                }
                kept.clear();
            }
            let begin = kept.len();
            for part in parts {
                kept.extend_from_slice(part);
            }
            left.push((begin, kept.len()));
        });
        if !left.is_empty() {
            incoming.stop = Some(Stop::Frames(index, left));
        }
        written
    }

    /// Whether nothing in the batch is worth a look; it is counted then.
    fn refuses(
        &self,
        batch: &[u8],
        received: &Received,
        how: How,
        incoming: &mut Incoming,
    ) -> bool {
        let (Some(key), Some(origin)) = (self.mac1_key, usable(received)) else {
            return false;
        };
        let is_unanswered = match how.unanswered {
            Unanswered::No => false,
            Unanswered::One(refused) => refused == origin.remote,
            Unanswered::All => true,
        };
        let (mut unknown, mut malformed, mut unanswered) = (0, 0, 0);
        let mut forged = Vec::new();
        for datagram in batch.chunks(received.stride) {
            if datagram[0] == TRANSPORT[0] && datagram.len() >= OVERHEAD {
                if self.receivers.contains_key(&index_of(datagram)) {
                    return false;
                }
                unknown += 1;
            } else if is_unanswered
                && datagram.len() == INITIATION.1
                && datagram.starts_with(&INITIATION.0)
                && datagram.ends_with(&NO_MAC)
            {
                unanswered += 1;
            } else if [INITIATION, RESPONSE]
                .iter()
                .any(|(start, length)| datagram.len() == *length && datagram.starts_with(start))
            {
                forged.push(datagram);
            } else if datagram.starts_with(&COOKIE_REPLY) {
                return false;
            } else {
                malformed += 1;
            }
        }
        if !forged.is_empty() && how.show_forged {
            return false;
        }
        for datagram in &forged {
            let is_right = macs::check_mac1(&key, datagram, datagram.len());
            if is_right.is_none_or(|right| right.contains(&true)) {
                return false;
            }
        }
        let is_bare = |one: &&&[u8]| one.starts_with(&INITIATION.0) && one.ends_with(&NO_MAC);
        let bare = forged.iter().filter(is_bare).count();
        incoming.forged.bare += bare;
        incoming.forged.rest += forged.len() - bare;
        incoming.unknown += unknown;
        incoming.unanswered += unanswered;
        incoming.malformed += malformed;
        true
    }
}

pub(super) fn usable(received: &Received) -> Option<&Origin> {
    let origin = received.origin.as_ref()?;
    (received.flags == 0 && received.length > 0 && origin.remote.port() != 0).then_some(origin)
}

fn index_of(datagram: &[u8]) -> u32 {
    u32::from_le_bytes([datagram[4], datagram[5], datagram[6], datagram[7]])
}
