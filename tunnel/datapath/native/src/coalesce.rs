//! From packets to frames for the TUN: receive offload for TCP and UDP, as
//! `interface.Session.open` describes it.
//!
//! Packets stay where they were decrypted. `Coalescer` only notes which belong together;
//! `write_frames` then copies each byte once to where it is wanted.

use std::io::IoSlice;

use crate::checksum;
use crate::ethernet::LONGEST_HEADER;
use crate::ip::{self, read_u16, read_u32, write_u16};
use crate::limits::{MAX_BATCH_SEGMENTS, MAX_FRAME_PACKET};
use crate::split::tcp_header_length;
use crate::virtio;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// In the word of flags and offset: the reserved flag, MF and the offset.
const NOT_PLAIN: u16 = 0xbfff;
const DONT_FRAGMENT: u8 = 0x40;
/// Bytes of addresses and ports, of which IPv4 uses the first 12.
const FLOW: usize = 36;

/// Kinds of packets that may be merged: the bits of `interface.Offload`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload(pub u8);

impl Offload {
    /// TCP and UDP over IPv4 and IPv6.
    pub const ALL: Offload = Offload(15);

    fn has(self, v4: bool, tcp: bool) -> bool {
        let bit = if tcp { 0 } else { 2 } + u8::from(!v4);
        self.0 >> bit & 1 != 0
    }
}

/// A TCP or UDP packet whose flow can be told.
#[derive(Clone, Copy, Debug)]
struct Plain {
    v4: bool,
    tcp: bool,
    /// Where the transport header begins.
    transport: usize,
    /// Bytes of all headers.
    headers: usize,
    /// May be merged.
    mergeable: bool,
    psh: u8,
    flow: [u8; FLOW],
}

impl Plain {
    fn parse(packet: &[u8], offload: Offload) -> Option<Plain> {
        let v4 = ip::is_v4(packet);
        let (transport, protocol) = if v4 {
            if packet[0] != 0x45 || read_u16(packet, 6) & NOT_PLAIN != 0 {
                return None;
            }
            (ip::IPV4_HEADER, packet[9])
        } else {
            (ip::IPV6_HEADER, packet[6])
        };
        let above = &packet[transport..];
        let (tcp, header) = match protocol {
            ip::TCP => (true, tcp_header_length(above)?),
            ip::UDP if above.len() >= 8 => (false, 8),
            _ => return None,
        };
        // Addresses stand right in front of the ports, in both versions.
        let addresses = pseudo_start(v4);
        let mut flow = [0; FLOW];
        flow[..transport + 4 - addresses].copy_from_slice(&packet[addresses..transport + 4]);
        let fits = if tcp {
            above[13] | PSH == ACK | PSH && above[12] & 15 == 0
        } else {
            usize::from(read_u16(above, 4)) == above.len() && read_u16(above, 6) != 0
        };
        let mergeable = fits
            && above.len() > header
            && offload.has(v4, tcp)
            && (!v4 || checksum::fold(checksum::sum(&packet[..transport])) == 0xffff)
            && checksum::fold(
                checksum::sum(&packet[addresses..]) + u64::from(protocol) + above.len() as u64,
            ) == 0xffff;
        Some(Plain {
            v4,
            tcp,
            transport,
            headers: transport + header,
            mergeable,
            psh: if tcp { above[13] & PSH } else { 0 },
            flow,
        })
    }

    fn same_flow(&self, other: &Plain) -> bool {
        self.v4 == other.v4 && self.tcp == other.tcp && self.flow == other.flow
    }
}

/// Where the part of the header begins that the pseudo-header covers.
const fn pseudo_start(v4: bool) -> usize {
    if v4 { 12 } else { 8 }
}

/// Whether all headers are equal but for lengths, identification, checksums, sequence and PSH.
///
/// Both packets are of one flow.
fn same_headers(first: &[u8], other: &[u8], plain: &Plain) -> bool {
    let equal = |from: usize, to: usize| first[from..to] == other[from..to];
    let outer = if plain.v4 {
        first[1] == other[1] && first[6] == other[6] && first[8] == other[8]
    } else {
        equal(0, 4) && first[7] == other[7]
    };
    let at = plain.transport;
    outer
        && (!plain.tcp
            || equal(at + 8, at + 13)
                && (first[at + 13] ^ other[at + 13]) & !PSH == 0
                && equal(at + 14, at + 16)
                && equal(at + 18, plain.headers))
}

/// Part of the batch's buffer that goes into a frame as it is.
#[derive(Clone, Copy, Debug)]
struct Piece {
    start: usize,
    length: usize,
    /// The next one of the same frame.
    next: usize,
}

const NONE: usize = usize::MAX;

/// A frame in the making.
#[derive(Clone, Debug)]
struct Run {
    /// What the first packet is; `None` if it is not plain.
    plain: Option<Plain>,
    /// The whole first packet, behind `link` bytes of the header of Ethernet.
    link: usize,
    start: usize,
    first_length: usize,
    /// Bytes of the merged packet.
    length: usize,
    count: usize,
    sequence: u32,
    psh: u8,
    /// The payloads behind the first packet, as a list in `Coalescer::pieces`.
    head: usize,
    tail: usize,
}

/// Notes which packets of one batch belong together. Reusable: `clear` keeps the memory.
#[derive(Debug, Default)]
pub struct Coalescer {
    runs: Vec<Run>,
    pieces: Vec<Piece>,
    /// Runs that may still grow, the latest last. At most one for each flow.
    open: Vec<usize>,
}

impl Coalescer {
    /// Forget all packets.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.pieces.clear();
        self.open.clear();
    }

    /// Take the packet of `length` bytes behind the `link` bytes at `begin`, the header of
    /// Ethernet. `ip::packet_length` accepted it, and it has just that length; or it is empty. The
    /// buffer's earlier packets must not have changed.
    pub fn add(
        &mut self,
        buffer: &[u8],
        begin: usize,
        link: usize,
        length: usize,
        offload: Offload,
    ) {
        let start = begin + link;
        let packet = &buffer[start..start + length];
        let plain = if packet.is_empty() {
            None
        } else {
            Plain::parse(packet, offload)
        };
        let Some(plain) = plain else {
            self.open.clear();
            self.begin(start, link, length, None, 0);
            return;
        };
        let sequence = if plain.tcp {
            read_u32(packet, plain.transport + 4)
        } else {
            0
        };
        let size = length - plain.headers;
        let place = self.open.iter().rposition(|&index| {
            let run = &self.runs[index];
            run.link(buffer) == &buffer[begin..start]
                && run
                    .plain
                    .as_ref()
                    .is_some_and(|other| other.same_flow(&plain))
        });
        if let Some(place) = place {
            let index = self.open[place];
            if plain.mergeable && self.runs[index].takes(buffer, packet, &plain, sequence, size) {
                self.join(index, start + plain.headers, size, plain.psh);
                let run = &self.runs[index];
                if plain.psh != 0 || size < run.payload() {
                    self.open.remove(place);
                }
                return;
            }
            self.open.remove(place);
        }
        if plain.mergeable && plain.psh == 0 {
            self.open.push(self.runs.len());
        }
        self.begin(
            start,
            link,
            length,
            Some(plain),
            sequence.wrapping_add(size as u32),
        );
    }

    fn begin(
        &mut self,
        start: usize,
        link: usize,
        length: usize,
        plain: Option<Plain>,
        sequence: u32,
    ) {
        self.runs.push(Run {
            plain,
            link,
            start,
            first_length: length,
            length,
            count: 1,
            sequence,
            psh: 0,
            head: NONE,
            tail: NONE,
        });
    }

    fn join(&mut self, index: usize, start: usize, length: usize, psh: u8) {
        let piece = self.pieces.len();
        self.pieces.push(Piece {
            start,
            length,
            next: NONE,
        });
        let run = &mut self.runs[index];
        match self.pieces.get_mut(run.tail) {
            Some(tail) => tail.next = piece,
            None => run.head = piece,
        }
        run.tail = piece;
        run.length += length;
        run.count += 1;
        run.sequence = run.sequence.wrapping_add(length as u32);
        run.psh = psh;
    }

    /// Hand out the frames in order: `write(at, bytes)` for each of their parts, `at` counting from
    /// 0 without gaps. Returns where each frame lies.
    pub fn write_frames(
        &self,
        buffer: &[u8],
        mut write: impl FnMut(usize, &[u8]),
    ) -> Vec<(usize, usize)> {
        let mut at = 0;
        let mut frames = Vec::with_capacity(self.runs.len());
        self.each_frame(buffer, |_, parts| {
            let begin = at;
            for part in parts {
                write(at, part);
                at += part.len();
            }
            frames.push((begin, at));
        });
        frames
    }

    /// Hand out the frames in order, each as its first packet and the parts that it is made of.
    pub fn each_frame(&self, buffer: &[u8], mut each: impl FnMut(&[u8], &[IoSlice<'_>])) {
        for run in &self.runs {
            let first = &buffer[run.start..run.start + run.first_length];
            let link = run.link(buffer);
            match &run.plain {
                Some(plain) if run.count > 1 => {
                    let mut head = [0; virtio::LENGTH + LONGEST_HEADER + 100];
                    let length = run.write_headers(link, first, plain, &mut head);
                    let mut parts = Vec::with_capacity(run.count + 1);
                    parts.push(IoSlice::new(&head[..length]));
                    parts.push(IoSlice::new(&first[plain.headers..]));
                    let mut next = run.head;
                    while let Some(piece) = self.pieces.get(next) {
                        let part = &buffer[piece.start..piece.start + piece.length];
                        parts.push(IoSlice::new(part));
                        next = piece.next;
                    }
                    each(first, &parts);
                }
                _ => {
                    let parts = [&[0; virtio::LENGTH][..], link, first].map(IoSlice::new);
                    each(first, &parts);
                }
            }
        }
    }
}

impl Run {
    /// The header of Ethernet before the first packet.
    fn link<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.start - self.link..self.start]
    }

    /// Payload of the first packet.
    fn payload(&self) -> usize {
        self.first_length - self.plain.as_ref().map_or(0, |plain| plain.headers)
    }

    /// Whether a mergeable packet of this run's flow continues it.
    fn takes(
        &self,
        buffer: &[u8],
        packet: &[u8],
        plain: &Plain,
        sequence: u32,
        size: usize,
    ) -> bool {
        let first = &buffer[self.start..self.start + self.first_length];
        let goes_on = if plain.tcp {
            sequence == self.sequence
        } else {
            self.count < MAX_BATCH_SEGMENTS
        };
        // Without DF the identification must count up; with it, it means nothing (RFC 6864).
        let counts = !plain.v4
            || first[6] & DONT_FRAGMENT != 0
            || read_u16(packet, 4) == read_u16(first, 4).wrapping_add(self.count as u16);
        goes_on
            && counts
            && size <= self.payload()
            && self.length + size <= MAX_FRAME_PACKET
            && plain.headers == first.len() - self.payload()
            && same_headers(first, packet, plain)
    }

    /// Write the virtio header, `link` and the headers of the merged packet; returns their length.
    fn write_headers(&self, link: &[u8], first: &[u8], plain: &Plain, out: &mut [u8]) -> usize {
        let (transport, headers) = (plain.transport, plain.headers);
        let csum_offset: u16 = if plain.tcp { 16 } else { 6 };
        let virtio = virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type: match (plain.tcp, plain.v4) {
                (true, true) => virtio::GSO_TCPV4,
                (true, false) => virtio::GSO_TCPV6,
                (false, _) => virtio::GSO_UDP_L4,
            },
            hdr_len: (link.len() + headers) as u16,
            gso_size: self.payload() as u16,
            csum_start: (link.len() + transport) as u16,
            csum_offset,
        };
        let (head, out) = out.split_at_mut(virtio::LENGTH);
        head.copy_from_slice(&virtio.emit());
        let (before, out) = out.split_at_mut(link.len());
        before.copy_from_slice(link);
        let packet = &mut out[..headers];
        packet.copy_from_slice(&first[..headers]);
        let length = self.length - transport;
        let protocol = if plain.v4 {
            write_u16(packet, 2, self.length as u16);
            write_u16(packet, 10, 0);
            let sum = checksum::sum(&packet[..transport]);
            write_u16(packet, 10, checksum::finish(sum));
            packet[9]
        } else {
            write_u16(packet, 4, (self.length - ip::IPV6_HEADER) as u16);
            packet[6]
        };
        if plain.tcp {
            packet[transport + 13] |= self.psh;
        } else {
            write_u16(packet, transport + 4, length as u16);
        }
        let pseudo = checksum::sum(&packet[pseudo_start(plain.v4)..transport])
            + u64::from(protocol)
            + length as u64;
        let field = transport + usize::from(csum_offset);
        write_u16(packet, field, checksum::fold(pseudo));
        virtio::LENGTH + link.len() + headers
    }
}
