"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), on the `cryptography` package's ciphers.

The package has no HChaCha20. One ChaCha20 block is HChaCha20's permutation of the same
16 words plus those words, so taking them away again leaves HChaCha20: no primitive is ours.
"""

import struct
from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

NONCE_LENGTH: Final = 24
KEY_LENGTH: Final = 32

_CONSTANTS: Final = struct.unpack("<4I", b"expand 32-byte k")
_FOUR: Final = struct.Struct("<4I")
_EIGHT: Final = struct.Struct("<8I")
_BLOCK: Final = bytes(64)
_WORD: Final = 0xFFFF_FFFF


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Derive a 32-byte key from a key (32 bytes) and a nonce (16 bytes) (the draft, 2.2).

    Raises ValueError on other lengths.
    """
    if len(nonce) != 16:
        raise ValueError(f"an HChaCha20 nonce is 16 bytes long, found {len(nonce)}")
    block = Cipher(algorithms.ChaCha20(key, nonce), mode=None).encryptor().update(_BLOCK)
    # The result is the first and the last row, and those began as constants and nonce.
    first = _FOUR.unpack_from(block)
    last = _FOUR.unpack_from(block, 48)
    start = _FOUR.unpack(nonce)
    words = [(a - b) & _WORD for a, b in zip(first, _CONSTANTS, strict=True)]
    words += [(a - b) & _WORD for a, b in zip(last, start, strict=True)]
    return _EIGHT.pack(*words)


def encrypt(key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Seal `plaintext` under a 32-byte key and a 24-byte nonce; the result is 16 bytes longer.

    Raises ValueError on other lengths of key or nonce.
    """
    cipher, short_nonce = _derive(key, nonce)
    return cipher.encrypt(short_nonce, plaintext, associated_data)


def decrypt(key: bytes, nonce: bytes, ciphertext: bytes, associated_data: bytes) -> bytes:
    """Open what `encrypt` sealed.

    Raises cryptography's InvalidTag if it was not sealed so, ValueError on other lengths of
    key or nonce.
    """
    cipher, short_nonce = _derive(key, nonce)
    return cipher.decrypt(short_nonce, ciphertext, associated_data)


def _derive(key: bytes, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
    if len(nonce) != NONCE_LENGTH:
        raise ValueError(f"an XChaCha20 nonce is 24 bytes long, found {len(nonce)}")
    return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
