//! How fast the core is without Python around it:
//! `cargo run --release --example bench`.

use std::time::Instant;

use _native::coalesce::{Coalescer, Offload};
use _native::limits::SEAL_OUT_SIZE;
use _native::session::Session;
use _native::virtio;

const SEGMENTS: usize = 46;
const PAYLOAD: usize = 1400;
const ROUNDS: usize = 2000;

/// A TSO frame of 46 segments, 1,452 bytes of packet each; its checksums are right when it is cut.
fn frame() -> Vec<u8> {
    let header = virtio::Header {
        flags: virtio::NEEDS_CSUM,
        gso_type: virtio::GSO_TCPV4,
        hdr_len: 52,
        gso_size: PAYLOAD as u16,
        csum_start: 20,
        csum_offset: 16,
    };
    let length = 52 + SEGMENTS * PAYLOAD;
    let mut packet = vec![0u8; length];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8..10].copy_from_slice(&[64, 6]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[32..34].copy_from_slice(&[0x80, 0x10]);
    let pseudo = 2 * 0x0a00 + 1 + 2 + 6 + (length - 20) as u32;
    let pseudo = (pseudo & 0xffff) + (pseudo >> 16);
    packet[36..38].copy_from_slice(&(pseudo as u16).to_be_bytes());
    for (i, byte) in packet[52..].iter_mut().enumerate() {
        *byte = ((i * 7919) >> 5) as u8;
    }
    [&header.emit()[..], &packet].concat()
}

fn main() {
    let (key, frame) = ([7; 32], frame());
    let session = |local, remote| Session::new(&key, &key, local, remote, 0);
    let (Some(mut a), Some(mut b)) = (session(1, 2), session(2, 1)) else {
        return;
    };
    let spans = [(0, frame.len())];
    let (mut out, mut frames, mut written) = (Vec::new(), Coalescer::default(), vec![0; 65_536]);
    let (mut seal, mut open) = (Vec::new(), Vec::new());
    let mut merged = 0;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let sealed = a.seal(&frame, &spans, 1452, &mut out, SEAL_OUT_SIZE, 0);
        seal.push(begin.elapsed());
        let Ok(sealed) = sealed else { return };
        for batch in sealed.batches {
            let bytes = &mut out[batch.start..batch.end];
            let begin = Instant::now();
            frames.clear();
            b.open(bytes, batch.stride, Offload::ALL, 0, &mut frames);
            let spans = frames.write_frames(bytes, |at, part| {
                written[at..at + part.len()].copy_from_slice(part);
            });
            let took = begin.elapsed();
            if batch.start == 0 {
                open.push(took);
                merged = spans.len();
            }
        }
    }
    for (name, mut times) in [("seal 46 x 1452", seal), ("open 44 x 1452", open)] {
        times.sort();
        let median = times[times.len() / 2];
        println!("{name}: median {median:?}, best {:?}", times[0]);
    }
    println!("frames of the last batch: {merged}");
}
