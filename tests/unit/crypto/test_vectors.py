"""Published vectors: Noise IKpsk2 (cacophony) and wycheproof's X25519 and AEADs, all of them.

wycheproof's "acceptable" means that the standards leave the choice open. Ours: a low-order
public key is refused (WireGuard must refuse an all-zero result), everything else, that is
points on the twist and non-canonical encodings, must be accepted with the result given,
as RFC 7748 asks.
"""

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from crypto import noise, xchacha20poly1305
from crypto.keys import LowOrderPoint, PresharedKey, PrivateKey, PublicKey
from tests.support.vectors import load, wycheproof


def test_x25519() -> None:
    seen = {"valid": 0, "acceptable": 0, "refused": 0}
    for case in wycheproof("x25519_test.json"):
        private, public = PrivateKey.from_bytes(case["private"]), PublicKey(case["public"])
        low_order = "ZeroSharedSecret" in case.flags
        assert public.is_low_order is low_order, case
        if low_order:
            assert case.result == "acceptable", case
            assert case["shared"] == bytes(32), case
            with pytest.raises(LowOrderPoint):
                private.exchange(public)
            seen["refused"] += 1
        else:
            assert private.exchange(public) == case["shared"], case
            seen[case.result] += 1
    assert seen == {"valid": 264, "acceptable": 223, "refused": 31}


def _chacha_open(key: bytes, nonce: bytes, sealed: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(key).decrypt(nonce, sealed, data)


def _chacha_seal(key: bytes, nonce: bytes, plain: bytes, data: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(nonce, plain, data)


Cipher = Callable[[bytes, bytes, bytes, bytes], bytes]

AEADS = [
    pytest.param("chacha20_poly1305_test.json", _chacha_seal, _chacha_open, (256, 69), id="chacha"),
    pytest.param(
        "xchacha20_poly1305_test.json",
        xchacha20poly1305.encrypt,
        xchacha20poly1305.decrypt,
        (246, 69),
        id="xchacha",
    ),
]


@pytest.mark.parametrize(("name", "seal", "open_", "counts"), AEADS)
def test_aead(name: str, seal: Cipher, open_: Cipher, counts: tuple[int, int]) -> None:
    valid = invalid = 0
    for case in wycheproof(name):
        key, nonce, data = case["key"], case["iv"], case["aad"]
        sealed = case["ct"] + case["tag"]
        if case.result == "valid":
            assert open_(key, nonce, sealed, data) == case["msg"], case
            assert seal(key, nonce, case["msg"], data) == sealed, case
            valid += 1
            continue
        assert case.result == "invalid", case
        # A nonce of the wrong length is a mistake of the caller, a wrong tag one of the sender.
        wrong_nonce = "InvalidNonceSize" in case.flags
        with pytest.raises(ValueError if wrong_nonce else InvalidTag):
            open_(key, nonce, sealed, data)
        if wrong_nonce:
            with pytest.raises(ValueError, match=r"[Nn]once"):
                seal(key, nonce, case["msg"], data)
        invalid += 1
    assert (valid, invalid) == counts


def test_hchacha20_of_the_draft() -> None:
    # draft-irtf-cfrg-xchacha-03, section 2.2.1
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    expected = "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    assert xchacha20poly1305.hchacha20(key, nonce).hex() == expected


def _noise_case() -> dict[str, Any]:
    (case,) = load("noise_ikpsk2_25519_chachapoly_blake2s.json")["vectors"]
    assert case["protocol_name"].encode() == noise.PROTOCOL_NAME
    return dict(case)


def test_noise_ikpsk2_handshake_and_transport() -> None:
    case = _noise_case()

    def private(name: str) -> PrivateKey:
        return PrivateKey.from_hex(case[name])

    initiator, responder = private("init_static"), private("resp_static")
    ephemeral_i, ephemeral_r = private("init_ephemeral"), private("resp_ephemeral")
    assert responder.public_key() == PublicKey.from_hex(case["init_remote_static"])
    messages = [
        (bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in case["messages"]
    ]

    payload, ciphertext = messages[0]
    first = noise.write_first(
        noise.SymmetricState.begin(bytes.fromhex(case["init_prologue"])),
        static=initiator,
        ephemeral=ephemeral_i,
        remote_static=responder.public_key(),
        payload=payload,
    )
    assert first.ephemeral + first.encrypted_static + first.encrypted_payload == ciphertext
    opened = noise.read_first_untrusted(
        noise.SymmetricState.begin(bytes.fromhex(case["resp_prologue"])),
        static=responder,
        ephemeral=ciphertext[:32],
        encrypted_static=ciphertext[32:80],
        encrypted_payload=ciphertext[80:],
    )
    assert opened.remote_static == initiator.public_key()
    assert opened.payload == payload

    payload, ciphertext = messages[1]
    state_r, ephemeral, sealed = noise.write_second(
        opened.state,
        ephemeral=ephemeral_r,
        remote_ephemeral=PublicKey(first.ephemeral),
        remote_static=opened.remote_static,
        preshared_key=PresharedKey.from_hex(case["resp_psks"][0]),
        payload=payload,
    )
    assert ephemeral + sealed == ciphertext
    state_i, read = noise.read_second_untrusted(
        first.state,
        static=initiator,
        ephemeral=ephemeral_i,
        remote_ephemeral=ciphertext[:32],
        preshared_key=PresharedKey.from_hex(case["init_psks"][0]),
        encrypted_payload=ciphertext[32:],
    )
    assert read == payload
    assert state_i.handshake_hash == state_r.handshake_hash
    assert state_i.handshake_hash.hex() == case["handshake_hash"]

    keys = state_i.split()
    assert keys == state_r.split()
    for number, (payload, ciphertext) in enumerate(messages[2:]):
        nonce = bytes(4) + (number // 2).to_bytes(8, "little")
        sealed = ChaCha20Poly1305(keys[number % 2]).encrypt(nonce, payload, b"")
        assert sealed == ciphertext


def test_a_key_seals_once() -> None:
    state = noise.SymmetricState.begin(b"").mix_key(bytes(32))
    state, _ = state.encrypt_and_hash(b"once")
    with pytest.raises(RuntimeError, match="fresh key"):
        state.encrypt_and_hash(b"twice")
