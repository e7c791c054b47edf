//! What must hold for every input: shared by the targets of cargo-fuzz, which `make fuzz`
//! runs with stable Rust, and by `examples/fuzz.rs`, which both turn bytes into calls.

use _native::checksum;
use _native::coalesce::{Coalescer, Offload};
use _native::ethernet::{self, ETHERIP};
use _native::handshake::{INITIATION, Identity, RESPONSE};
use _native::ip;
use _native::limits::{MAX_SEALED_FRAME, OVERHEAD, REJECT_AFTER_MESSAGES};
use _native::macs::{check_mac1, check_mac2};
use _native::noise::{KEY, Secret, key_pair};
use _native::session::Session;
use _native::split::Plan;
use _native::virtio;

/// Takes bytes off the front of the input; zeros when it is used up.
pub struct Source<'a>(pub &'a [u8]);

impl Source<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    /// The next two bytes as a number.
    pub fn word(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    /// Up to `length` bytes.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken.to_vec()
    }

    /// Whether there is more.
    pub fn more(&self) -> bool {
        !self.0.is_empty()
    }
}

fn packets_of(frame: &[u8]) -> Option<Vec<Vec<u8>>> {
    let plan = Plan::new(frame, 0).ok()?;
    let cut = |number| {
        let mut packet = vec![0; plan.padded_length(number)];
        plan.write(number, &mut packet);
        packet
    };
    Some((0..plan.segments()).map(cut).collect())
}

/// A frame is refused, or cut into whole packets that are as long as they say and fit the limits.
pub fn split(data: &[u8]) {
    let mut source = Source(data);
    let mtu = source.word();
    let frame = source.0;
    split_ethernet(frame, mtu);
    let Ok(plan) = Plan::new(frame, mtu) else {
        return;
    };
    let mut total = 0;
    for number in 0..plan.segments() {
        let length = plan.padded_length(number);
        let mut packet = vec![0xa5; length];
        plan.write(number, &mut packet);
        let claimed = ip::packet_length(&packet).expect("a segment is a packet");
        assert!(claimed <= length && length <= claimed.next_multiple_of(16));
        assert!(packet[claimed..].iter().all(|&byte| byte == 0));
        total += length + OVERHEAD;
    }
    assert_eq!(total, plan.sealed_length());
    assert!(total <= MAX_SEALED_FRAME);
}

/// The same frame as one of a TAP: each message begins as EtherIP, and the sizes add up.
fn split_ethernet(frame: &[u8], mtu: usize) {
    let Ok(plan) = Plan::of_ethernet(frame, mtu) else {
        return;
    };
    let mut total = 0;
    for number in 0..plan.segments() {
        let mut plain = vec![0xa5; plan.padded_length(number)];
        plan.write(number, &mut plain);
        assert!(plain.starts_with(&ETHERIP));
        let inner = &plain[ETHERIP.len()..];
        let (link, packet) = ethernet::parse(inner).expect("a segment is a frame");
        if let Some(packet) = packet {
            assert!(inner[link + packet..].iter().all(|&byte| byte == 0));
        }
        total += plain.len() + OVERHEAD;
    }
    assert_eq!(total, plan.sealed_length());
    assert!(total <= MAX_SEALED_FRAME);
}

/// Hostile datagrams are taken whole or left, never counted twice, and fit the output.
pub fn open(data: &[u8]) {
    let mut source = Source(data);
    let (stride, ecn, mode) = (source.word().max(1), source.byte() & 3, source.byte());
    let key = [9; 32];
    let sender = Session::new(&key, &key, 2, 1, 0);
    let receiver = Session::new(&key, &key, 1, 2, 0);
    let (Some(mut sender), Some(receiver)) = (sender, receiver) else {
        return;
    };
    let mut receiver = receiver.with_ethernet(mode & 64 != 0);
    let mut batch = source.0.to_vec();
    if mode & 1 != 0 {
        // Well-addressed junk.
        for datagram in batch.chunks_exact_mut(stride).filter(|it| it.len() >= 16) {
            datagram[..8].copy_from_slice(&[4, 0, 0, 0, 1, 0, 0, 0]);
        }
    }
    if mode & 2 != 0 && stride >= OVERHEAD {
        // Well-sealed junk, as a hostile peer sends it.
        let mut sealed = Vec::new();
        for plain in batch.chunks(stride - OVERHEAD + usize::from(stride == OVERHEAD)) {
            let mut datagram = vec![0; plain.len() + OVERHEAD];
            if sender.seal_bytes(plain, &mut datagram).is_ok() {
                sealed.extend(datagram);
            }
        }
        batch = sealed;
    }
    let length = batch.len();
    let mut frames = Coalescer::default();
    let opened = receiver.open(&mut batch, stride, Offload(mode >> 2), ecn, &mut frames);
    let dropped: u32 = opened.drops.iter().map(|(_, count)| count).sum();
    assert!(opened.consumed <= length);
    assert!(opened.consumed == length || opened.consumed % stride == 0);
    let taken = opened.consumed.div_ceil(stride);
    assert!(opened.packets + dropped as usize >= taken && opened.packets <= taken);
    let mut end = 0;
    for (start, stop) in frames.write_frames(&batch, |_, _| ()) {
        assert_eq!(start, end);
        end = stop;
    }
    assert!(end <= length);
    assert!(sender.send_counter() < REJECT_AFTER_MESSAGES);
}

/// One packet that is mostly in order, as the input's bytes say.
fn packet(source: &mut Source<'_>, count: u16, sequence: &mut u32) -> Vec<u8> {
    let choice = source.byte();
    let (v4, tcp) = (choice & 1 != 0, choice & 2 != 0);
    let size = usize::from(source.byte() & 0x3f);
    let payload = source.take(size);
    let header = if tcp { 20 } else { 8 };
    let start = if v4 { 20 } else { 40 };
    let mut packet = vec![0; start + header];
    packet.extend(&payload);
    let length = packet.len();
    if v4 {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&count.to_be_bytes());
        packet[6] = choice & 0x40;
        packet[9] = if tcp { ip::TCP } else { ip::UDP };
    } else {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((length - start) as u16).to_be_bytes());
        packet[6] = if tcp { ip::TCP } else { ip::UDP };
    }
    if tcp {
        packet[start + 4..start + 8].copy_from_slice(&sequence.to_be_bytes());
        packet[start + 12] = 0x50;
        packet[start + 13] = if choice & 0x30 == 0 { 0x18 } else { 0x10 };
        *sequence = sequence.wrapping_add(payload.len() as u32);
    } else {
        packet[start + 4..start + 6].copy_from_slice(&((length - start) as u16).to_be_bytes());
    }
    if choice & 0x0c == 0 {
        let (at, value) = (usize::from(source.byte()), source.byte());
        if let Some(byte) = packet.get_mut(at) {
            *byte = value;
        }
    }
    if choice & 0x80 == 0 {
        let from = if v4 { 12 } else { 8 };
        let protocol = if tcp { 6 } else { 17 };
        let sum = checksum::sum(&packet[from..]) + protocol + (length - start) as u64;
        let field = start + if tcp { 16 } else { 6 };
        let value = checksum::finish_transport(sum);
        packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
        if v4 {
            packet[10..12].fill(0);
            let value = checksum::finish(checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&value.to_be_bytes());
        }
    }
    packet
}

/// The packet without what has no meaning: the identification under DF, and the two spellings of a
/// checksum of zero.
fn normal(mut packet: Vec<u8>) -> Vec<u8> {
    if ip::is_v4(&packet) {
        if packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        if packet[9] == ip::TCP && packet.len() >= 40 && packet[36..38] == [0, 0] {
            packet[36..38].fill(0xff);
        }
    } else if packet[6] == ip::TCP && packet.len() >= 60 && packet[56..58] == [0, 0] {
        packet[56..58].fill(0xff);
    }
    packet
}

/// Merged packets, split again, are the packets that came in: none lost, none changed, and a
/// corrupt one as corrupt as before.
pub fn coalesce(data: &[u8]) {
    let mut source = Source(data);
    let offload = Offload(source.byte() & 15);
    let mut sequence = u32::MAX - source.word() as u32;
    let (mut buffer, mut frames) = (Vec::new(), Coalescer::default());
    let mut places = Vec::new();
    while source.more() && places.len() < 300 {
        let packet = packet(&mut source, places.len() as u16, &mut sequence);
        if let Ok(length) = ip::packet_length(&packet) {
            places.push((buffer.len(), length));
            buffer.extend(&packet[..length]);
        }
    }
    for &(start, length) in &places {
        frames.add(&buffer, start, 0, length, offload);
    }
    let mut out = Vec::new();
    let spans = frames.write_frames(&buffer, |_, bytes| out.extend(bytes));
    let mut before: Vec<_> = places
        .iter()
        .map(|&(start, length)| normal(buffer[start..start + length].to_vec()))
        .collect();
    let mut after = Vec::new();
    for (start, end) in spans {
        let frame = &out[start..end];
        if frame[0] == 0 {
            after.push(normal(frame[virtio::LENGTH..].to_vec()));
        } else {
            let packets = packets_of(frame).expect("a merged frame can be split");
            assert!(packets.len() > 1);
            after.extend(packets.into_iter().map(normal));
        }
    }
    before.sort();
    after.sort();
    assert_eq!(before, after);
}

/// Handshake messages: a genuine one is accepted as it is, and refused with any bit of what is sealed
/// or sealed over changed; arbitrary bytes are refused. Each datagram of a batch has its verdict.
pub fn handshake(data: &[u8]) {
    let mut source = Source(data);
    let (mode, stride) = (source.byte(), source.word().max(1));
    let (key, psk) = (Secret::new([mode >> 2 | 1; KEY]), Secret::new([3; KEY]));
    let (Ok(ours), Ok((_, public))) = (Identity::new(&key), key_pair(&key)) else {
        return;
    };
    let pending = Identity::new(&Secret::new([201; KEY])).and_then(|theirs| {
        theirs.create_initiation(&public, &Secret::new([202; KEY]), 7, &[1; 12])
    });
    let (mut initiation, pending) = pending.expect("the keys are of high order");
    let is_changed = mode & 1 == 0;
    if is_changed {
        // Of what is signed: type, ephemeral key, static key and timestamp. Not the sender's index.
        let at = 8 + source.word() % 108;
        // The highest bit of an X25519 key means nothing.
        initiation[at] ^= (1 << (source.byte() % 7)) as u8;
    }
    let received = ours.consume_initiation(&initiation);
    assert_eq!(received.is_err(), is_changed);
    assert!(initiation[116..].iter().all(|&byte| byte == 0));
    let mut junk = source.0.to_vec();
    junk.resize(INITIATION, 0);
    junk[..4].copy_from_slice(&[1, 0, 0, 0]);
    assert!(ours.consume_initiation(&junk).is_err());
    junk.resize(RESPONSE, 0);
    junk[..4].copy_from_slice(&[2, 0, 0, 0]);
    junk[8..12].copy_from_slice(&7u32.to_le_bytes());
    assert!(pending.consume_response(&junk, &psk).is_err());
    assert!(ours.consume_initiation(source.0).is_err());
    assert!(pending.consume_response(source.0, &psk).is_err());
    for verdicts in [
        check_mac1(&[9; 32], source.0, stride),
        check_mac2(&[9; 16], source.0, stride),
    ] {
        let verdicts = verdicts.expect("the keys have their length");
        assert_eq!(verdicts.len(), source.0.len().div_ceil(stride));
        assert!(!verdicts.contains(&true), "forged by chance");
    }
}
