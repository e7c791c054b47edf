"""Key types: strict text forms, clamping, comparison, redaction, low-order points."""

import base64
import copy
import pickle
import subprocess

import pytest

from crypto.keys import KeyFormatError, LowOrderPoint, PresharedKey, PrivateKey, PublicKey

RAW = bytes(range(100, 132))
KINDS = [PrivateKey, PublicKey, PresharedKey]
Kind = type[PrivateKey] | type[PublicKey] | type[PresharedKey]

P = 2**255 - 19
# https://cr.yp.to/ecdh.html#validate: the seven, then the same with the ignored top bit set.
LOW_ORDER = [
    0,
    1,
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
    P - 1,
    P,
    P + 1,
]


def test_public_key_of_rfc_7748() -> None:
    # Bob's, section 6.1
    bob = PrivateKey.from_hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    public = "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"
    assert bob.public_key().to_hex() == public
    other = PrivateKey(RAW)
    assert other.exchange(bob.public_key()) == bob.exchange(other.public_key())


@pytest.mark.parametrize("kind", KINDS)
def test_text_forms_round_trip(kind: Kind) -> None:
    key = kind.from_bytes(RAW)
    assert kind.from_base64(key.to_base64()) == key
    assert kind.from_hex(key.to_hex()) == key
    assert kind.from_hex(key.to_hex().upper()) == key
    assert kind.from_bytes(bytes(key)) == key


GOOD = base64.b64encode(RAW).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "=",
        GOOD + "\n",
        " " + GOOD,
        " " + GOOD[1:],
        GOOD[:20] + "\n" + GOOD[21:],
        GOOD[:20] + "-" + GOOD[21:],
        GOOD[:20] + "_" + GOOD[21:],
        GOOD[:20] + "=" + GOOD[21:],
        GOOD[:20] + "é" + GOOD[21:],
        GOOD[:20] + "\0" + GOOD[21:],
        GOOD[:-1] + "A",
        GOOD[:-2] + "==",
        base64.b64encode(RAW[:31]).decode(),
        base64.b64encode(RAW + b"x").decode(),
        # The last character holds two bits that no byte uses.
        GOOD[:-2] + chr(ord(GOOD[-2]) + 1) + "=",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_base64_is_strict_and_discreet(kind: Kind, text: str) -> None:
    with pytest.raises(KeyFormatError) as caught:
        kind.from_base64(text)
    assert GOOD[:12] not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "00" * 31, "00" * 33, "0" * 63, "0x" + "0" * 62, "g" * 64, "٣" * 64, "0 " * 32]
)
def test_hex_is_strict(text: str) -> None:
    with pytest.raises(KeyFormatError, match="64 hexadecimal digits"):
        PublicKey.from_hex(text)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 31, 33])
def test_length_is_strict(kind: Kind, length: int) -> None:
    with pytest.raises(KeyFormatError, match=f"found {length}"):
        kind.from_bytes(bytes(length))


@pytest.mark.parametrize("raw", [bytes(32), b"\xff" * 32, RAW])
def test_private_keys_are_always_clamped(raw: bytes) -> None:
    keys = [
        PrivateKey.from_random(raw),
        PrivateKey.from_bytes(raw),
        PrivateKey.from_hex(raw.hex()),
        PrivateKey.from_base64(base64.b64encode(raw).decode()),
    ]
    for key in keys:
        scalar = bytes(key)
        assert scalar[0] & 7 == 0
        assert scalar[31] & 0xC0 == 0x40
        assert key == keys[0]


def test_secrets_show_nothing_of_themselves() -> None:
    for key in (PrivateKey(RAW), PresharedKey(RAW)):
        for shown in (repr(key), str(key), f"{key}", f"{[key]}"):
            assert "redacted" in shown
            assert key.to_base64()[:8] not in shown
            assert key.to_hex()[:8] not in shown
        with pytest.raises(TypeError, match="secret"):
            pickle.dumps(key)
        with pytest.raises(TypeError, match="unhashable"):
            hash(key)


def test_public_keys_are_shown_and_are_table_keys() -> None:
    key = PublicKey(RAW)
    assert repr(key) == f"PublicKey({GOOD})"
    assert {key: 1}[PublicKey(bytes(RAW))] == 1
    assert pickle.loads(pickle.dumps(key)) == key


@pytest.mark.parametrize("kind", KINDS)
def test_keys_are_immutable_values(kind: Kind) -> None:
    key = kind(RAW)
    with pytest.raises(AttributeError, match="cannot be changed"):
        key._raw = bytes(32)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del key._raw
    assert copy.copy(key) is key
    assert copy.deepcopy(key) is key
    assert key == kind(bytes(bytearray(RAW)))
    assert key != kind(bytes(32))
    assert key != RAW


def test_kinds_never_compare_equal() -> None:
    assert len({type(k) for k in (PrivateKey(RAW), PublicKey(RAW), PresharedKey(RAW))}) == 3
    assert PublicKey(RAW).__eq__(PresharedKey(RAW)) is NotImplemented


def test_zero_preshared_key_means_none() -> None:
    assert PresharedKey.ZERO.is_zero
    assert PresharedKey(bytes(32)) == PresharedKey.ZERO
    assert not PresharedKey(RAW).is_zero


@pytest.mark.parametrize("top_bit", [0, 1 << 255])
@pytest.mark.parametrize("point", LOW_ORDER)
def test_low_order_points_are_known_and_agree_on_nothing(point: int, top_bit: int) -> None:
    key = PublicKey((point | top_bit).to_bytes(32, "little"))
    assert key.is_low_order
    with pytest.raises(LowOrderPoint):
        PrivateKey(RAW).exchange(key)


def test_an_ordinary_point_is_not_of_low_order() -> None:
    assert not PrivateKey(RAW).public_key().is_low_order


def test_public_keys_differ_by_the_bit_that_x25519_ignores() -> None:
    plain = PrivateKey(RAW).public_key()
    raised = PublicKey(bytes(plain)[:31] + bytes((bytes(plain)[31] | 0x80,)))
    assert plain != raised
    assert PrivateKey(bytes(32)).exchange(plain) == PrivateKey(bytes(32)).exchange(raised)


@pytest.mark.foreign("wg")
def test_as_wg_pubkey_does() -> None:
    key = PrivateKey(RAW)
    done = subprocess.run(
        ["wg", "pubkey"], input=key.to_base64(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == key.public_key().to_base64()
