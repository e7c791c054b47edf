"""The flood of junk of a benchmark."""

from __future__ import annotations

import socket

from tunnel.bench.junk import SIZE, datagrams, flood


def test_both_kinds_in_turn_and_no_more_than_asked() -> None:
    data = datagrams(4)
    pieces = [data[at : at + SIZE] for at in range(0, len(data), SIZE)]
    assert [len(piece) for piece in pieces] == [SIZE] * 4
    assert [piece[0] for piece in pieces] == [7, 1, 7, 1]
    assert [piece[:4] for piece in pieces[1::2]] == [b"\x01\x00\x00\x00"] * 2
    assert len(set(pieces)) == 4


def test_the_kernel_cuts_batches_into_datagrams() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(10)
        sent = flood(sock.getsockname(), rate=10_000, seconds=0.02)
        assert sent >= 64
        assert len(sock.recv(2048)) == SIZE


def test_it_goes_on_where_no_one_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        nowhere = sock.getsockname()
    assert flood(nowhere, rate=50_000, seconds=0.05) >= 64
