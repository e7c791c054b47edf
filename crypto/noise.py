"""Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s: the handshake's core, for any prologue and payload.

    IKpsk2:  <- s   ...   -> e, es, s, ss   <- e, ee, se, psk

After the Noise Protocol Framework, revision 34, in its names. WireGuard fixes the prologue
and the payloads (`handshake.py`); test vectors do not.

The symmetric state is a value: each step returns a new one, so a message that fails half-way
has altered nothing. In this pattern every key seals exactly once, always with nonce 0; the
state gives its key up on use, so that sealing twice under one key is an error and not a leak.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto.errors import HandshakeError, HandshakeFault, LowOrderPoint
from crypto.keys import PresharedKey, PrivateKey, PublicKey

PROTOCOL_NAME: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
HASH_LENGTH: Final = 32
_NONCE_ZERO: Final = bytes(12)


def hash_(*parts: bytes) -> bytes:
    """BLAKE2s of the parts one after the other (32 bytes)."""
    return hashlib.blake2s(b"".join(parts)).digest()


def hkdf(chaining_key: bytes, input_key_material: bytes, outputs: int) -> tuple[bytes, ...]:
    """Derive `outputs` (1 to 3) keys of 32 bytes: Noise's HKDF, the whitepaper's KDF_n."""
    secret = hmac.digest(chaining_key, input_key_material, "blake2s")
    keys: tuple[bytes, ...] = ()
    last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(secret, last + bytes((number,)), "blake2s")
        keys += (last,)
    return keys


@final
@dataclass(frozen=True, slots=True, eq=False)
class SymmetricState:
    """Chaining key ck, handshake hash h and, between mix and use, the cipher key k."""

    chaining_key: bytes = field(repr=False)
    handshake_hash: bytes = field(repr=False)
    key: bytes | None = field(default=None, repr=False)

    @staticmethod
    def begin(prologue: bytes) -> "SymmetricState":
        """Start a handshake that both sides bind to `prologue`."""
        # The name is longer than a hash, therefore hashed (Noise, InitializeSymmetric).
        name = hash_(PROTOCOL_NAME)
        return SymmetricState(name, hash_(name, prologue))

    def mix_hash(self, data: bytes) -> "SymmetricState":
        """Bind the transcript to `data`."""
        return SymmetricState(self.chaining_key, hash_(self.handshake_hash, data), self.key)

    def mix_key(self, input_key_material: bytes) -> "SymmetricState":
        """Fold a secret in; the next seal uses the key derived from it."""
        chaining_key, key = hkdf(self.chaining_key, input_key_material, 2)
        return SymmetricState(chaining_key, self.handshake_hash, key)

    def mix_ephemeral(self, ephemeral: bytes) -> "SymmetricState":
        """Take token e, which in a psk pattern goes into the key as well (Noise, 9.2).

        A DH token follows at once in this pattern, so the key this would yield is not made.
        """
        (chaining_key,) = hkdf(self.chaining_key, ephemeral, 1)
        return SymmetricState(chaining_key, hash_(self.handshake_hash, ephemeral))

    def mix_key_and_hash(self, input_key_material: bytes) -> "SymmetricState":
        """Take token psk (Noise, 9.2)."""
        chaining_key, data, key = hkdf(self.chaining_key, input_key_material, 3)
        return SymmetricState(chaining_key, hash_(self.handshake_hash, data), key)

    def encrypt_and_hash(self, plaintext: bytes) -> tuple["SymmetricState", bytes]:
        """Seal `plaintext` (the result is 16 bytes longer), bound to the transcript so far."""
        cipher = ChaCha20Poly1305(self._fresh_key())
        ciphertext = cipher.encrypt(_NONCE_ZERO, plaintext, self.handshake_hash)
        return self._after(ciphertext), ciphertext

    def decrypt_and_hash_untrusted(self, ciphertext: bytes) -> tuple["SymmetricState", bytes]:
        """Open what encrypt_and_hash sealed. Raises HandshakeError only."""
        cipher = ChaCha20Poly1305(self._fresh_key())
        try:
            plaintext = cipher.decrypt(_NONCE_ZERO, ciphertext, self.handshake_hash)
        except InvalidTag:
            raise HandshakeError(
                HandshakeFault.AUTHENTICATION,
                "a field of a handshake message does not open: another key, or damaged",
            ) from None
        return self._after(ciphertext), plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Return the two transport keys: initiator to responder, responder to initiator."""
        first, second = hkdf(self.chaining_key, b"", 2)
        return first, second

    def _fresh_key(self) -> bytes:
        if self.key is None:
            raise RuntimeError("no fresh key was mixed in since the last seal")
        return self.key

    def _after(self, ciphertext: bytes) -> "SymmetricState":
        return SymmetricState(self.chaining_key, hash_(self.handshake_hash, ciphertext))


@dataclass(frozen=True, slots=True, eq=False)
class FirstMessage:
    """-> e, es, s, ss: the three fields on the wire, and the sender's state after them."""

    ephemeral: bytes
    encrypted_static: bytes
    encrypted_payload: bytes
    state: SymmetricState


@dataclass(frozen=True, slots=True, eq=False)
class OpenedFirstMessage:
    """What the responder read: whose message it is, its payload and the state after it."""

    remote_static: PublicKey
    payload: bytes
    state: SymmetricState


def agree_untrusted(private_key: PrivateKey, public_key: PublicKey) -> bytes:
    """X25519 within a handshake (32 bytes). Raises HandshakeError only."""
    try:
        return private_key.exchange(public_key)
    except LowOrderPoint as error:
        raise HandshakeError(HandshakeFault.LOW_ORDER, str(error)) from None


def write_first(
    state: SymmetricState,
    *,
    static: PrivateKey,
    ephemeral: PrivateKey,
    remote_static: PublicKey,
    payload: bytes,
    static_static: bytes | None = None,
) -> FirstMessage:
    """Make -> e, es, s, ss on the state of `SymmetricState.begin`.

    `static_static` is the DH of the two static keys if the caller has kept it; it is the same
    in every handshake of a pair. Raises HandshakeError if `remote_static` is of low order.
    """
    ephemeral_public = bytes(ephemeral.public_key())
    state = state.mix_hash(bytes(remote_static)).mix_ephemeral(ephemeral_public)
    state = state.mix_key(agree_untrusted(ephemeral, remote_static))
    state, encrypted_static = state.encrypt_and_hash(bytes(static.public_key()))
    state = state.mix_key(static_static or agree_untrusted(static, remote_static))
    state, encrypted_payload = state.encrypt_and_hash(payload)
    return FirstMessage(ephemeral_public, encrypted_static, encrypted_payload, state)


def read_first_untrusted(
    state: SymmetricState,
    *,
    static: PrivateKey,
    ephemeral: bytes,
    encrypted_static: bytes,
    encrypted_payload: bytes,
    static_static: Callable[[PublicKey], bytes | None] | None = None,
) -> OpenedFirstMessage:
    """Read -> e, es, s, ss. Raises HandshakeError only.

    `ephemeral` is 32 bytes long and `encrypted_static` 48. `static_static` may know the DH of
    the two static keys by the sender's; None from it means that it is computed here.
    """
    state = state.mix_hash(bytes(static.public_key())).mix_ephemeral(ephemeral)
    state = state.mix_key(agree_untrusted(static, PublicKey(ephemeral)))
    state, plaintext = state.decrypt_and_hash_untrusted(encrypted_static)
    remote_static = PublicKey(plaintext)
    known = static_static(remote_static) if static_static is not None else None
    state = state.mix_key(known or agree_untrusted(static, remote_static))
    state, payload = state.decrypt_and_hash_untrusted(encrypted_payload)
    return OpenedFirstMessage(remote_static, payload, state)


def write_second(
    state: SymmetricState,
    *,
    ephemeral: PrivateKey,
    remote_ephemeral: PublicKey,
    remote_static: PublicKey,
    preshared_key: PresharedKey,
    payload: bytes,
) -> tuple[SymmetricState, bytes, bytes]:
    """Make <- e, ee, se, psk: the final state, the ephemeral and the sealed payload.

    Raises HandshakeError if a remote key is of low order, which `read_first_untrusted` has
    already ruled out for those it returned.
    """
    ephemeral_public = bytes(ephemeral.public_key())
    state = state.mix_ephemeral(ephemeral_public)
    state = state.mix_key(agree_untrusted(ephemeral, remote_ephemeral))
    state = state.mix_key(agree_untrusted(ephemeral, remote_static))
    state = state.mix_key_and_hash(bytes(preshared_key))
    state, encrypted_payload = state.encrypt_and_hash(payload)
    return state, ephemeral_public, encrypted_payload


def read_second_untrusted(
    state: SymmetricState,
    *,
    static: PrivateKey,
    ephemeral: PrivateKey,
    remote_ephemeral: bytes,
    preshared_key: PresharedKey,
    encrypted_payload: bytes,
) -> tuple[SymmetricState, bytes]:
    """Read <- e, ee, se, psk: the final state and the payload. Raises HandshakeError only.

    `remote_ephemeral` is 32 bytes long.
    """
    remote = PublicKey(remote_ephemeral)
    state = state.mix_ephemeral(remote_ephemeral)
    state = state.mix_key(agree_untrusted(ephemeral, remote))
    state = state.mix_key(agree_untrusted(static, remote))
    state = state.mix_key_and_hash(bytes(preshared_key))
    return state.decrypt_and_hash_untrusted(encrypted_payload)
