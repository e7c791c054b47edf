//! The pump without an interpreter: a pair of sockets as its TUN, UDP on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread;

use _native::coalesce::Offload;
use _native::pump::socket::{Descriptors, Origin};
use _native::pump::{How, Pump, Stop, Unanswered};
use _native::session::Session;

const MTU: usize = 1420;
const A: [u8; 4] = [10, 0, 0, 1];
const B: [u8; 4] = [10, 0, 0, 2];
const PEER: u64 = 1;

/// An IPv4 packet of protocol 99 behind a virtio header.
fn frame(from: [u8; 4], to: [u8; 4], size: usize) -> Vec<u8> {
    let mut frame = vec![0; 10 + size];
    frame[10] = 0x45;
    frame[12..14].copy_from_slice(&(size as u16).to_be_bytes());
    frame[18..20].copy_from_slice(&[64, 99]);
    frame[22..26].copy_from_slice(&from);
    frame[26..30].copy_from_slice(&to);
    frame
}

struct End {
    pump: Pump,
    kernel: UnixDatagram,
    tun: UnixDatagram,
    udp: UdpSocket,
    index: u32,
}

impl End {
    fn new(index: u32) -> End {
        let (kernel, tun) = UnixDatagram::pair().expect("a pair of sockets");
        kernel.set_nonblocking(true).expect("a flag");
        tun.set_nonblocking(true).expect("a flag");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        udp.set_nonblocking(true).expect("a flag");
        let pump = Pump::default();
        End {
            pump,
            kernel,
            tun,
            udp,
            index,
        }
    }

    fn teach(&mut self, address: [u8; 4], remote: SocketAddr) {
        let session = Session::new(&[1; 32], &[1; 32], self.index, 3 - self.index, 0)
            .expect("the keys have 32 bytes");
        let session = Arc::new(Mutex::new(session));
        let origin = Origin {
            remote,
            local: None,
        };
        self.pump.set_indices(PEER, vec![self.index]);
        self.pump.teach_address(IpAddr::from(address), PEER);
        self.pump
            .teach_way(PEER, session.clone(), origin, true, 10.0);
        self.pump.teach_receiver(PEER, session, origin, 10.0);
    }

    fn descriptors(&self) -> Descriptors {
        Descriptors {
            tun: self.tun.as_raw_fd(),
            v4: self.udp.as_raw_fd(),
            v6: -1,
        }
    }

    fn how(&self) -> How {
        How {
            descriptors: self.descriptors(),
            v6: false,
            now: 1.0,
            budget: 1 << 19,
            offload: Offload::ALL,
            mtu: MTU,
            lone: false,
            look: true,
            may_answer: true,
            show_forged: false,
            unanswered: Unanswered::No,
            gather: false,
        }
    }

    fn delivered(&self) -> Vec<Vec<u8>> {
        let mut room = [0; 4096];
        std::iter::from_fn(|| {
            let length = self.kernel.recv(&mut room).ok()?;
            Some(room[..length].to_vec())
        })
        .collect()
    }
}

fn joined() -> (End, End) {
    let (mut a, mut b) = (End::new(1), End::new(2));
    let (at, bt) = (a.udp.local_addr(), b.udp.local_addr());
    a.teach(B, bt.expect("an address"));
    b.teach(A, at.expect("an address"));
    (a, b)
}

#[test]
fn carries_and_answers() {
    let (mut a, mut b) = joined();
    let there: Vec<_> = (0..5).map(|n| frame(A, B, 60 + n)).collect();
    for one in &there {
        a.kernel.send(one).expect("room");
    }
    b.kernel.send(&frame(B, A, 99)).expect("room");
    let sent = a.pump.send(a.descriptors(), 1.0, MTU, 64, 1 << 19);
    assert_eq!((sent.frames, sent.is_empty), (5, true));
    assert!(sent.left.is_empty() && sent.unsent.is_none());
    let received = b.pump.receive(b.how());
    assert!(received.stop.is_none());
    assert_eq!(
        received.opened.iter().map(|one| one.packets).sum::<usize>(),
        5
    );
    assert_eq!(b.delivered(), there);
    assert_eq!(received.answer.map(|answer| answer.frames), Some(1));
    assert!(a.pump.receive(a.how()).stop.is_none());
    assert_eq!(a.delivered(), [frame(B, A, 99)]);
}

#[test]
fn gives_back_what_it_was_not_taught() {
    let (mut a, mut b) = joined();
    a.pump.forget_addresses();
    a.kernel.send(&frame(A, B, 60)).expect("room");
    let sent = a.pump.send(a.descriptors(), 1.0, MTU, 64, 1 << 19);
    let [(start, end)] = sent.left[..] else {
        panic!("one frame is left");
    };
    assert_eq!(a.pump.arena()[start..end], frame(A, B, 60));
    a.teach(B, b.udp.local_addr().expect("an address"));
    b.pump.forget();
    a.kernel.send(&frame(A, B, 60)).expect("room");
    a.pump.send(a.descriptors(), 1.0, MTU, 64, 1 << 19);
    let Some(Stop::Datagrams(received)) = b.pump.receive(b.how()).stop else {
        panic!("a datagram is given back");
    };
    assert_eq!(received.length, b.pump.received()[..received.length].len());
    assert!(b.delivered().is_empty());
}

#[test]
fn works_in_any_thread() {
    let (mut a, mut b) = joined();
    a.kernel.send(&frame(A, B, 60)).expect("room");
    let worker = thread::spawn(move || {
        a.pump.send(a.descriptors(), 1.0, MTU, 64, 1 << 19);
        a
    });
    let _a = worker.join().expect("no panic");
    b.pump.receive(b.how());
    assert_eq!(b.delivered(), [frame(A, B, 60)]);
}
