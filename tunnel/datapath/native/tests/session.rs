//! Frames through two sessions: sealed by one, opened by the other.

use _native::batches::Batch;
use _native::checksum;
use _native::coalesce::{Coalescer, Offload};
use _native::drops::Drop;
use _native::limits::{REJECT_AFTER_MESSAGES, SEAL_OUT_SIZE};
use _native::session::{Exhausted, Opened, Sealed, Session};
use _native::virtio;

const MTU: usize = 1420;

fn session(local: u32, remote: u32, counter: u64) -> Session {
    Session::new(&[1; 32], &[1; 32], local, remote, counter).expect("the keys have 32 bytes")
}

/// A TCP frame over IPv4 with the kernel's checksum fields, to be cut into `gso_size` bytes.
fn tcp_frame(payload: usize, gso_size: usize, flags: u8, tos: u8) -> Vec<u8> {
    let length = 40 + payload;
    let mut packet = vec![0; length];
    packet[..2].copy_from_slice(&[0x45, tos]);
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[4..10].copy_from_slice(&[0xff, 0xff, 0, 0, 64, 6]);
    let header = checksum::finish(checksum::sum(&packet[..20]));
    packet[10..12].copy_from_slice(&header.to_be_bytes());
    packet[24..28].copy_from_slice(&(u32::MAX - 99).to_be_bytes());
    packet[32..34].copy_from_slice(&[0x50, flags]);
    packet[36..38].copy_from_slice(&(6 + (length - 20) as u16).to_be_bytes());
    for (i, byte) in packet[40..].iter_mut().enumerate() {
        *byte = i as u8;
    }
    let header = virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_TCPV4 | virtio::GSO_ECN,
        hdr_len: 7,
        gso_size: gso_size as u16,
        csum_start: 20,
        csum_offset: 16,
    };
    [&header.emit()[..], &packet].concat()
}

fn seal(from: &mut Session, frame: &[u8]) -> (Sealed, Vec<u8>) {
    let mut out = Vec::new();
    let spans = [(0, frame.len())];
    let sealed = from
        .seal(frame, &spans, MTU, &mut out, SEAL_OUT_SIZE, 0)
        .expect("far from the limit");
    (sealed, out)
}

fn open(to: &mut Session, batch: &[u8], stride: usize, offload: u8) -> (Opened, Vec<Vec<u8>>) {
    let (mut batch, mut coalescer) = (batch.to_vec(), Coalescer::default());
    let opened = to.open(&mut batch, stride, Offload(offload), 0, &mut coalescer);
    let mut out = Vec::new();
    let spans = coalescer.write_frames(&batch, |_, bytes| out.extend(bytes));
    let frame = |(start, end)| out[start..end].to_vec();
    (opened, spans.into_iter().map(frame).collect())
}

#[test]
fn a_frame_survives_the_way() {
    let (mut a, mut b) = (session(1, 2, 0), session(2, 1, 0));
    let frame = tcp_frame(2500, 1000, 0x18, 1);
    let (sealed, out) = seal(&mut a, &frame);
    let batch = Batch {
        start: 0,
        end: 2 * (1040 + 32) + 544 + 32,
        stride: 1072,
        ecn: 1,
    };
    assert_eq!(sealed.batches, [batch]);
    assert_eq!((sealed.packets, a.send_counter()), (3, 3));
    let (opened, frames) = open(&mut b, &out[..batch.end], batch.stride, 15);
    assert_eq!((opened.packets, opened.payload_bytes), (3, 2500 + 120));
    assert_eq!(opened.wire_bytes, batch.end);
    // The first frame as it was, but for the hints: hdr_len is right, the ECN bit is gone.
    let mut expected = frame;
    expected[1] = virtio::GSO_TCPV4;
    expected[2] = 40;
    assert_eq!(frames, [expected]);
}

#[test]
fn segments_differ_where_they_must() {
    let (mut a, mut b) = (session(1, 2, 0), session(2, 1, 0));
    let (sealed, out) = seal(&mut a, &tcp_frame(250, 100, 0x99, 0));
    let batch = sealed.batches[0];
    let (_, frames) = open(&mut b, &out[..batch.end], batch.stride, 0);
    let field = |at: usize| {
        frames
            .iter()
            .map(|frame| frame[10 + at])
            .collect::<Vec<_>>()
    };
    assert_eq!(field(33), [0x90, 0x10, 0x19]);
    assert_eq!(field(4), [0xff, 0, 0]);
    assert_eq!(field(5), [0xff, 0, 1]);
    assert_eq!(field(27), [(u32::MAX - 99) as u8, 0, 100]);
    assert_eq!(field(3), [140, 140, 90]);
    for frame in frames {
        let packet = &frame[10..];
        assert_eq!(checksum::fold(checksum::sum(&packet[..20])), 0xffff);
        let pseudo = 6 + (packet.len() - 20) as u64;
        assert_eq!(
            checksum::fold(checksum::sum(&packet[12..]) + pseudo),
            0xffff
        );
    }
}

#[test]
fn a_corrupt_segment_is_never_merged() {
    let (mut a, mut b) = (session(1, 2, 0), session(2, 1, 0));
    let mut frame = tcp_frame(300, 100, 0x10, 0);
    let (sealed, mut out) = seal(&mut a, &frame);
    let batch = sealed.batches[0];
    // A peer may seal whatever it likes: here the second segment, with one bit of payload changed.
    frame[1] = virtio::GSO_NONE;
    let (_, frames) = open(&mut b, &out[..batch.end], batch.stride, 0);
    let mut packet = frames[1][10..].to_vec();
    packet[60] ^= 1;
    packet.resize(batch.stride - 32, 0);
    let mut forged = vec![0; batch.stride];
    let mut again = session(1, 2, 10);
    assert_eq!(again.seal_bytes(&packet, &mut forged), Ok(()));
    out[batch.stride..2 * batch.stride].copy_from_slice(&forged);
    let (opened, frames) = open(&mut session(2, 1, 0), &out[..batch.end], batch.stride, 15);
    assert_eq!(opened.packets, 3);
    assert_eq!(frames.len(), 3);
    assert!(frames.iter().all(|frame| frame[..10] == [0; 10]));
}

#[test]
fn hostile_datagrams() {
    let (mut a, mut b) = (session(1, 2, 0), session(2, 1, 0));
    let keepalive = a.seal_keepalive().expect("far from the limit");
    let (opened, frames) = open(&mut b, &keepalive, 32, 15);
    assert_eq!((opened.packets, opened.keepalives, frames.len()), (1, 1, 0));
    let (opened, _) = open(&mut b, &keepalive, 32, 15);
    assert_eq!((opened.packets, opened.consumed), (0, 32));
    assert_eq!(opened.drops.count(Drop::Replay), 1);

    let mut forged = a.seal_keepalive().expect("far from the limit");
    forged[31] ^= 0x80;
    let (opened, _) = open(&mut b, &forged, 32, 15);
    assert_eq!(opened.drops.count(Drop::Authentication), 1);
    forged[31] ^= 0x80;
    assert_eq!(open(&mut b, &forged, 32, 15).0.keepalives, 1);

    forged[8..16].copy_from_slice(&REJECT_AFTER_MESSAGES.to_le_bytes());
    let (opened, _) = open(&mut b, &forged, 32, 15);
    assert_eq!(opened.drops.count(Drop::CounterLimit), 1);

    forged[4] ^= 1;
    assert_eq!(open(&mut b, &forged, 32, 15).0, Opened::default());
    assert_eq!(open(&mut b, &forged[..31], 32, 15).0, Opened::default());
}

#[test]
fn the_message_limit_holds() {
    let mut a = session(1, 2, REJECT_AFTER_MESSAGES - 2);
    let frame = tcp_frame(300, 100, 0x10, 0);
    let mut out = Vec::new();
    let spans = [(0, frame.len())];
    let result = a.seal(&frame, &spans, MTU, &mut out, SEAL_OUT_SIZE, 0);
    assert_eq!(result, Err(Exhausted));
    assert_eq!(a.send_counter(), REJECT_AFTER_MESSAGES - 2);
    assert!(a.seal_keepalive().is_ok());
    assert!(a.seal_keepalive().is_ok());
    assert_eq!(a.seal_keepalive(), Err(Exhausted));
}

#[test]
fn a_frame_is_taken_whole_or_not_at_all() {
    let mut a = session(1, 2, 0);
    let frame = tcp_frame(300, 100, 0x10, 0);
    let one = 3 * (144 + 32);
    let mut out = Vec::new();
    let spans = [(0, frame.len()); 3];
    let sealed = a
        .seal(&frame, &spans, MTU, &mut out, 2 * one + 100, 5)
        .expect("far from the limit");
    assert_eq!((sealed.consumed, sealed.packets), (2, 6));
    assert_eq!(
        (sealed.batches[0].start, sealed.batches[0].end),
        (5, 5 + 2 * one)
    );
}
