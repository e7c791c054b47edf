"""The handshake copied line by line from the whitepaper (5.4.2, 5.4.3): a slow, obvious oracle.

It shares nothing with the code under test but the libraries; its names are the paper's.
"""

from dataclasses import dataclass

from tests.conformance.noise import CONSTRUCTION, IDENTIFIER, aead, dh, hash_, kdf, mac, pub


@dataclass
class Paper:
    """Both messages without mac2, and the two transport keys."""

    initiation: bytes
    response: bytes
    initiator_to_responder: bytes
    responder_to_initiator: bytes


def handshake(
    s_i: bytes, e_i: bytes, s_r: bytes, e_r: bytes, q: bytes, timestamp: bytes, i_i: int, i_r: int
) -> Paper:
    """Run a whole handshake knowing all private keys (32 bytes each), psk `q` and indices."""
    # First message: initiator to responder
    c = hash_(CONSTRUCTION)
    h = hash_(c + IDENTIFIER)
    h = hash_(h + pub(s_r))
    msg = b"\x01\0\0\0" + i_i.to_bytes(4, "little")
    (c,) = kdf(1, c, pub(e_i))
    msg += pub(e_i)
    h = hash_(h + pub(e_i))
    c, k = kdf(2, c, dh(e_i, pub(s_r)))
    static = aead(k, 0, pub(s_i), h)
    msg += static
    h = hash_(h + static)
    c, k = kdf(2, c, dh(s_i, pub(s_r)))
    stamp = aead(k, 0, timestamp, h)
    msg += stamp
    h = hash_(h + stamp)
    initiation = msg + mac(hash_(b"mac1----" + pub(s_r)), msg)

    # Second message: responder to initiator
    msg = b"\x02\0\0\0" + i_r.to_bytes(4, "little") + i_i.to_bytes(4, "little")
    (c,) = kdf(1, c, pub(e_r))
    msg += pub(e_r)
    h = hash_(h + pub(e_r))
    (c,) = kdf(1, c, dh(e_r, pub(e_i)))
    (c,) = kdf(1, c, dh(e_r, pub(s_i)))
    c, tau, k = kdf(3, c, q)
    h = hash_(h + tau)
    empty = aead(k, 0, b"", h)
    msg += empty
    response = msg + mac(hash_(b"mac1----" + pub(s_i)), msg)

    first, second = kdf(2, c, b"")
    return Paper(initiation, response, first, second)
