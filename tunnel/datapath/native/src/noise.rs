//! The symmetric state of a handshake and X25519: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, in Noise's
//! names. `crypto/noise.py` is its twin.
//!
//! Every key seals or opens exactly once, always with nonce 0: `mix_key` hands it out, and `seal` and
//! `open` take it away.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use blake2::{Blake2s256, Digest};
use hmac::{KeyInit, Mac, SimpleHmac};
use zeroize::Zeroizing;

use crate::limits::TAG;

/// Bytes of a key, a hash and a Diffie-Hellman result.
pub const KEY: usize = 32;

const NAME: &[u8] = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
const PROLOGUE: &[u8] = b"WireGuard v1 zx2c4 Jason@zx2c4.com";

/// Key material, overwritten when it is dropped.
pub type Secret = Zeroizing<[u8; KEY]>;

type Hmac = SimpleHmac<Blake2s256>;

/// A message that is not authentic, or a public key of low order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// The private key of `scalar`, which X25519 clamps, and its public key.
pub fn key_pair(scalar: &[u8; KEY]) -> Result<(PrivateKey, [u8; KEY]), Refused> {
    let private = PrivateKey::from_private_key(&X25519, scalar).map_err(|_| Refused)?;
    let mut public = [0; KEY];
    public.copy_from_slice(private.compute_public_key().map_err(|_| Refused)?.as_ref());
    Ok((private, public))
}

/// X25519; refused if the result is all zeros.
pub fn agree(private: &PrivateKey, public: &[u8; KEY]) -> Result<Secret, Refused> {
    let public = UnparsedPublicKey::new(&X25519, public);
    agreement::agree(private, public, Refused, |shared| {
        let mut secret = Secret::default();
        secret.copy_from_slice(shared);
        Ok(secret)
    })
}

fn hash(first: &[u8], second: &[u8]) -> [u8; KEY] {
    let hasher = Blake2s256::new().chain_update(first).chain_update(second);
    hasher.finalize().into()
}

fn hmac(key: &[u8; KEY]) -> Hmac {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn secret(mac: Hmac) -> Secret {
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Derive `N` keys: Noise's HKDF, the whitepaper's KDF_n.
fn hkdf<const N: usize>(chaining_key: &Secret, input: &[u8]) -> [Secret; N] {
    let keyed = hmac(&secret(hmac(chaining_key).chain_update(input)));
    let mut keys: [Secret; N] = std::array::from_fn(|_| Secret::default());
    for number in 0..N {
        let mut mac = keyed.clone();
        if number > 0 {
            mac.update(&*keys[number - 1]);
        }
        mac.update(&[number as u8 + 1]);
        keys[number] = secret(mac);
    }
    keys
}

fn cipher(key: &Secret) -> Result<LessSafeKey, Refused> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, &key[..]).map_err(|_| Refused)?;
    Ok(LessSafeKey::new(key))
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

/// Chaining key ck and handshake hash h.
#[derive(Clone)]
pub struct State {
    chaining_key: Secret,
    hash: [u8; KEY],
}

impl State {
    /// A handshake of WireGuard with the owner of `responder`.
    pub fn begin(responder: &[u8; KEY]) -> State {
        // The name is longer than a hash, therefore hashed (Noise, InitializeSymmetric).
        let name = hash(NAME, b"");
        let mut state = State {
            chaining_key: Zeroizing::new(name),
            hash: hash(&name, PROLOGUE),
        };
        state.mix_hash(responder);
        state
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&self.hash, data);
    }

    /// Fold a secret in; the result is the key of the next seal or open.
    pub fn mix_key(&mut self, input: &Secret) -> Secret {
        let [chaining_key, key] = hkdf(&self.chaining_key, &input[..]);
        self.chaining_key = chaining_key;
        key
    }

    /// Take token e, which in a psk pattern goes into the key as well (Noise, 9.2).
    pub fn mix_ephemeral(&mut self, ephemeral: &[u8; KEY]) {
        [self.chaining_key] = hkdf(&self.chaining_key, ephemeral);
        self.mix_hash(ephemeral);
    }

    /// Take token psk (Noise, 9.2).
    pub fn mix_key_and_hash(&mut self, preshared_key: &Secret) -> Secret {
        let [chaining_key, data, key] = hkdf(&self.chaining_key, &preshared_key[..]);
        self.chaining_key = chaining_key;
        self.mix_hash(&data[..]);
        key
    }

    /// Seal `plaintext` into `out`, which is `TAG` longer, bound to the transcript so far.
    pub fn seal(&mut self, key: Secret, plaintext: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let (sealed, tag) = out.split_at_mut(plaintext.len());
        sealed.copy_from_slice(plaintext);
        let written = cipher(&key)?
            .seal_in_place_separate_tag(nonce(), Aad::from(&self.hash), sealed)
            .map_err(|_| Refused)?;
        tag.copy_from_slice(written.as_ref());
        self.mix_hash(out);
        Ok(())
    }

    /// Open what `seal` sealed: `N` bytes.
    pub fn open<const N: usize>(
        &mut self,
        key: Secret,
        ciphertext: &[u8],
    ) -> Result<[u8; N], Refused> {
        // The longest is a public key.
        let mut buffer = [0; KEY + TAG];
        let sealed = buffer.get_mut(..N + TAG).ok_or(Refused)?;
        if ciphertext.len() != sealed.len() {
            return Err(Refused);
        }
        sealed.copy_from_slice(ciphertext);
        let plaintext = cipher(&key)?
            .open_in_place(nonce(), Aad::from(&self.hash), sealed)
            .map_err(|_| Refused)?;
        let mut opened = [0; N];
        opened.copy_from_slice(plaintext);
        self.mix_hash(ciphertext);
        Ok(opened)
    }

    /// The two transport keys: initiator to responder, responder to initiator.
    pub fn split(self) -> [Secret; 2] {
        hkdf(&self.chaining_key, b"")
    }
}
