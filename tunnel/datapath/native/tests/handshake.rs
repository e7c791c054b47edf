//! Handshakes of two identities. Their bytes are compared with Python's in tests/unit/crypto.

use std::sync::Arc;

use _native::handshake::{Answer, Identity, RESPONSE, create_responses};
use _native::noise::{KEY, Secret, key_pair};

fn secret(byte: u8) -> Secret {
    Secret::new([byte; KEY])
}

fn identity(byte: u8) -> (Arc<Identity>, [u8; KEY]) {
    let (_, public) = key_pair(&secret(byte)).expect("X25519 takes every key");
    let identity = Identity::new(&secret(byte)).expect("X25519 takes every key");
    (Arc::new(identity), public)
}

#[test]
fn many_at_once_keep_their_order_and_end_in_equal_keys() {
    let (b, b_public) = identity(200);
    let initiators: Vec<_> = (0..50).map(identity).collect();
    let mut pending = Vec::new();
    let mut messages = Vec::new();
    for (number, (initiator, public)) in initiators.iter().enumerate() {
        if number % 2 == 0 {
            b.add_peer(*public);
        }
        let (message, waits) = initiator
            .create_initiation(&b_public, &secret(100), number as u32, &[0; 12])
            .expect("the key is of high order");
        messages.push(message.to_vec());
        pending.push(waits);
    }
    assert!(b.prepare(24) && !b.prepare(24));
    messages.push(Vec::new());
    let mut received = b.consume_initiations(messages).take();
    assert!(received.pop().expect("each has its place").is_none());
    let answers = received.into_iter().enumerate().map(|(number, received)| {
        let received = received.expect("each opens");
        assert_eq!(received.remote_static, initiators[number].1);
        Answer {
            received,
            ephemeral: secret(number as u8 + 1),
            index: 1000 + number as u32,
            preshared_key: secret(9),
        }
    });
    for (number, response) in create_responses(answers.collect())
        .take()
        .into_iter()
        .enumerate()
    {
        let (message, keys) = response.expect("each key is of high order");
        assert_eq!(message[4..8], (1000 + number as u32).to_le_bytes());
        let ours = &pending[number];
        assert!(ours.consume_response(&[0; RESPONSE], &secret(9)).is_err());
        assert!(ours.consume_response(&message, &secret(8)).is_err());
        let same = ours
            .consume_response(&message, &secret(9))
            .expect("it is the response");
        assert_eq!((*same.send, *same.receive), (*keys.receive, *keys.send));
        assert_ne!(*keys.send, *keys.receive);
    }
}

#[test]
fn no_secret_is_agreed_on_with_a_low_order_point() {
    let (a, _) = identity(1);
    for public in [[0; KEY], std::array::from_fn(|n| u8::from(n == 0))] {
        a.add_peer(public);
        assert!(a.static_static(&public).is_err());
        let refused = a.create_initiation(&public, &secret(2), 3, &[0; 12]);
        assert!(refused.is_err());
    }
}
