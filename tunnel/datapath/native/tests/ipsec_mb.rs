//! ipsec-mb against AWS-LC. Where it cannot be used, there is nothing to compare.

use std::sync::Mutex;

use _native::ipsec_mb::{self, SHORTEST};
use _native::limits::TAG;
use _native::transport_key::{TransportKey, use_aws_lc, use_ipsec_mb};

const KEY: [u8; 32] = [0x5A; 32];

/// The choice holds for the whole process.
static CHOICE: Mutex<()> = Mutex::new(());

/// A key for AWS-LC, and the same for ipsec-mb if there is one.
fn keys() -> Option<(TransportKey, TransportKey)> {
    let _choice = CHOICE.lock().expect("no test fails in here");
    let version = use_ipsec_mb();
    if let Err(reason) = version {
        eprintln!("ipsec-mb is not used: {reason}");
        return None;
    }
    let faster = TransportKey::new(&KEY)?;
    use_aws_lc();
    Some((TransportKey::new(&KEY)?, faster))
}

fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + length) as u8).collect()
}

fn sealed(key: &TransportKey, counter: u64, mut packet: Vec<u8>) -> Vec<u8> {
    let tag = key.seal(counter, &mut packet).expect("it is short");
    packet.extend_from_slice(&tag);
    packet
}

#[test]
fn both_seal_alike_and_open_what_the_other_sealed() {
    let Some((slower, faster)) = keys() else {
        return;
    };
    for length in (0..2100).chain([4095, 4096, 9000, 65_475]) {
        let counter = (length as u64) << 40 | 0xFFFF_FF00;
        let mut expected = sealed(&slower, counter, plain(length));
        let mut found = sealed(&faster, counter, plain(length));
        assert_eq!(found, expected, "{length}");
        assert_eq!(
            slower
                .open(counter, &mut found)
                .map(|opened| opened.to_vec()),
            Some(plain(length))
        );
        assert_eq!(
            faster
                .open(counter, &mut expected)
                .map(|opened| opened.to_vec()),
            Some(plain(length))
        );
    }
}

#[test]
fn what_was_changed_is_refused_and_nothing_of_it_is_left() {
    let Some((_, faster)) = keys() else {
        return;
    };
    for length in [0, 1, 100, SHORTEST, 1424] {
        let right = sealed(&faster, 7, plain(length));
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x80;
            assert!(faster.open(7, &mut wrong).is_none(), "{length}, {at}");
            assert!(
                wrong[..length].iter().all(|&byte| byte == 0),
                "{length}, {at}"
            );
        }
        assert!(faster.open(8, &mut right.clone()).is_none());
    }
    for short in 0..TAG {
        assert!(faster.open(7, &mut vec![0; short]).is_none());
    }
}

#[test]
fn another_thread_does_not_wait_for_it() {
    let Some((_, faster)) = keys() else {
        return;
    };
    let expected = sealed(&faster, 9, plain(1424));
    // Another test may have it for a moment.
    let held = (0..).find_map(|_| ipsec_mb::cipher(SHORTEST));
    assert_eq!(sealed(&faster, 9, plain(1424)), expected);
    let mut opened = expected.clone();
    assert_eq!(faster.open(9, &mut opened), Some(&mut plain(1424)[..]));
    drop(held);
}

#[test]
fn many_threads_at_once_get_what_one_gets() {
    let Some((slower, faster)) = keys() else {
        return;
    };
    let expected = sealed(&slower, 3, plain(1424));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5_000 {
                    assert_eq!(sealed(&faster, 3, plain(1424)), expected);
                }
            });
        }
    });
}

#[test]
fn a_key_is_not_printed() {
    let Some((_, faster)) = keys() else {
        return;
    };
    let printed = format!("{faster:?}");
    assert!(printed.contains("faster: Some(Key)"), "{printed}");
    assert!(!printed.contains("90"), "{printed}");
}
