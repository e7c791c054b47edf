//! From a frame of the TUN or TAP to plaintexts: segmentation (TSO, USO) and checksums, as
//! `interface.Session.seal` describes them.

use crate::checksum;
use crate::drops::Drop;
use crate::ethernet::{self, ETHERIP};
use crate::ip::{self, read_u16, read_u32, write_u16};
use crate::limits::{MAX_PACKET, MAX_SEALED_FRAME, OVERHEAD, padded_length};
use crate::virtio;

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// What is left to do for the checksum of each packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checksum {
    /// Nothing: the packet leaves as it came.
    Done,
    /// Sum from `start` to the packet's end, store at `field`.
    Complete { start: usize, field: usize },
}

/// A frame that was found to be in order, with how it is to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// What comes before the packet in each segment: the header of EtherIP, of which a TUN has
    /// none, and that of Ethernet.
    lead: (&'static [u8], &'a [u8]),
    /// An IP packet, or all of an Ethernet frame that holds none.
    packet: &'a [u8],
    /// The ECN field of the packets.
    ecn: u8,
    checksum: Checksum,
    protocol: u8,
    /// Bytes of all headers, which each segment repeats; the whole packet if it is not split.
    headers: usize,
    gso_size: usize,
    /// What is not padded past. 0: nothing is padded.
    mtu: usize,
}

/// A frame has at least one segment, numbered from 0.
impl<'a> Plan<'a> {
    /// Check a frame of a TUN (virtio header and packet) and plan its segments.
    pub fn new(frame: &'a [u8], mtu: usize) -> Result<Self, Drop> {
        let (virtio, bytes) = virtio::Header::parse(frame).ok_or(Drop::Truncated)?;
        let packet = &bytes[..ip::packet_length(bytes)?];
        Plan::of_packet(virtio, (&[], &[]), packet, mtu)
    }

    /// Check a frame of a TAP (virtio header and Ethernet frame) and plan its segments.
    pub fn of_ethernet(frame: &'a [u8], mtu: usize) -> Result<Self, Drop> {
        let (mut virtio, bytes) = virtio::Header::parse(frame).ok_or(Drop::Truncated)?;
        let (link, length) = ethernet::parse(bytes)?;
        if let Some(length) = length {
            let (link, rest) = bytes.split_at(link);
            if virtio.flags & virtio::NEEDS_CSUM != 0 {
                let start = usize::from(virtio.csum_start).checked_sub(link.len());
                // The start of an IP packet is no place for it either.
                virtio.csum_start = start.unwrap_or(0) as u16;
            }
            let mtu = mtu.saturating_add(ethernet::OVERHEAD);
            return Plan::of_packet(virtio, (&ETHERIP, link), &rest[..length], mtu);
        }
        if virtio.gso_type != virtio::GSO_NONE {
            return Err(Drop::GsoType);
        }
        // Not padded: nothing would say where the frame ends.
        Plan::whole(virtio, (&ETHERIP, &[]), bytes, ethernet::HEADER, 0, 0)
    }

    /// What is not to be split. Its checksum covers what begins `least` bytes behind the start of
    /// `packet`, or later.
    fn whole(
        virtio: virtio::Header,
        lead: (&'static [u8], &'a [u8]),
        packet: &'a [u8],
        least: usize,
        ecn: u8,
        mtu: usize,
    ) -> Result<Self, Drop> {
        let mut checksum = Checksum::Done;
        if virtio.flags & virtio::NEEDS_CSUM != 0 {
            let start = usize::from(virtio.csum_start);
            let field = start + usize::from(virtio.csum_offset);
            if start < least || field + 2 > packet.len() {
                return Err(Drop::ChecksumOffset);
            }
            checksum = Checksum::Complete { start, field };
        }
        if lead.0.len() + lead.1.len() + packet.len() > MAX_PACKET {
            return Err(Drop::TooLong);
        }
        Ok(Plan {
            lead,
            packet,
            ecn,
            checksum,
            protocol: 0,
            headers: packet.len(),
            gso_size: 1,
            mtu,
        })
    }

    fn of_packet(
        virtio: virtio::Header,
        lead: (&'static [u8], &'a [u8]),
        packet: &'a [u8],
        mtu: usize,
    ) -> Result<Self, Drop> {
        let ecn = ip::ecn(packet);
        if virtio.gso_type == virtio::GSO_NONE {
            return Plan::whole(virtio, lead, packet, ip::header_length(packet), ecn, mtu);
        }
        let needs_csum = virtio.flags & virtio::NEEDS_CSUM != 0;
        let start = usize::from(virtio.csum_start);
        let field = start + usize::from(virtio.csum_offset);

        let wanted = match (virtio.gso_type & !virtio::GSO_ECN, ip::is_v4(packet)) {
            (virtio::GSO_TCPV4, true) | (virtio::GSO_TCPV6, false) => ip::TCP,
            (virtio::GSO_UDP_L4, _) => ip::UDP,
            _ => return Err(Drop::GsoType),
        };
        let gso_size = usize::from(virtio.gso_size);
        if gso_size == 0 {
            return Err(Drop::GsoSize);
        }
        let (protocol, offset) = ip::transport(packet)?;
        if protocol != wanted {
            return Err(Drop::GsoType);
        }
        let transport = &packet[offset..];
        let (header, csum_offset) = if protocol == ip::TCP {
            (tcp_header_length(transport).ok_or(Drop::IpLength)?, 16)
        } else if transport.len() < 8 {
            return Err(Drop::IpLength);
        } else {
            (8, 6)
        };
        if !needs_csum || start != offset || field != offset + csum_offset {
            return Err(Drop::ChecksumOffset);
        }
        let plan = Plan {
            lead,
            packet,
            ecn,
            checksum: Checksum::Complete { start, field },
            protocol,
            headers: offset + header,
            gso_size,
            mtu,
        };
        if plan.plain_length(0) > MAX_PACKET {
            return Err(Drop::TooLong);
        }
        if plan.sealed_length() > MAX_SEALED_FRAME {
            return Err(Drop::TooManySegments);
        }
        Ok(plan)
    }

    /// How many packets the frame becomes.
    pub fn segments(&self) -> usize {
        (self.packet.len() - self.headers)
            .div_ceil(self.gso_size)
            .max(1)
    }

    /// The ECN field of the packets.
    pub fn ecn(&self) -> u8 {
        self.ecn
    }

    /// Bytes of all datagrams of this frame.
    pub fn sealed_length(&self) -> usize {
        let last = self.segments() - 1;
        last * (self.padded_length(0) + OVERHEAD) + self.padded_length(last) + OVERHEAD
    }

    /// Length of one segment, padded.
    pub fn padded_length(&self, number: usize) -> usize {
        padded_length(self.plain_length(number), self.mtu)
    }

    fn lead_length(&self) -> usize {
        self.lead.0.len() + self.lead.1.len()
    }

    fn plain_length(&self, number: usize) -> usize {
        self.lead_length() + self.segment_length(number)
    }

    fn segment_length(&self, number: usize) -> usize {
        let rest = self.packet.len() - self.headers - number * self.gso_size;
        self.headers + rest.min(self.gso_size)
    }

    /// Write segment `number` and its padding to `out`, which has `padded_length(number)` bytes.
    pub fn write(&self, number: usize, out: &mut [u8]) {
        let (etherip, out) = out.split_at_mut(self.lead.0.len());
        etherip.copy_from_slice(self.lead.0);
        let (link, out) = out.split_at_mut(self.lead.1.len());
        link.copy_from_slice(self.lead.1);
        let (segment, padding) = out.split_at_mut(self.segment_length(number));
        padding.fill(0);
        let (headers, payload) = segment.split_at_mut(self.headers);
        headers.copy_from_slice(&self.packet[..self.headers]);
        let at = self.headers + number * self.gso_size;
        payload.copy_from_slice(&self.packet[at..at + payload.len()]);
        let Checksum::Complete { start, field } = self.checksum else {
            return;
        };
        if self.protocol != 0 {
            self.adapt_headers(number, segment, start, field);
        }
        let sum = checksum::sum(&segment[start..]);
        write_u16(segment, field, checksum::finish_transport(sum));
    }

    fn adapt_headers(&self, number: usize, segment: &mut [u8], start: usize, field: usize) {
        let length = segment.len();
        if ip::is_v4(segment) {
            write_u16(segment, 2, length as u16);
            let identification = read_u16(segment, 4).wrapping_add(number as u16);
            write_u16(segment, 4, identification);
            write_u16(segment, 10, 0);
            let sum = checksum::sum(&segment[..start]);
            write_u16(segment, 10, checksum::finish(sum));
        } else {
            write_u16(segment, 4, (length - ip::IPV6_HEADER) as u16);
        }
        if self.protocol == ip::TCP {
            let sequence =
                read_u32(segment, start + 4).wrapping_add((number * self.gso_size) as u32);
            segment[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
            let flags = &mut segment[start + 13];
            if number > 0 {
                *flags &= !CWR;
            }
            if number + 1 < self.segments() {
                *flags &= !FIN_PSH;
            }
        } else {
            write_u16(segment, start + 4, (length - start) as u16);
        }
        // The field holds the pseudo-header's sum. Exchange the length in it: subtract the old one,
        // which is to add its complement, and add the new one.
        let sum = u64::from(read_u16(segment, field))
            + u64::from(!((self.packet.len() - start) as u16))
            + (length - start) as u64;
        write_u16(segment, field, checksum::fold(sum));
    }
}

/// The length of the TCP header at the start of `transport`, if it is whole.
pub fn tcp_header_length(transport: &[u8]) -> Option<usize> {
    if transport.len() < 20 {
        return None;
    }
    let length = usize::from(transport[12] >> 4) * 4;
    (20..=transport.len()).contains(&length).then_some(length)
}
