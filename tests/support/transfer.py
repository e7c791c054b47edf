"""A file sent through a tunnel, and the same file at the other end."""

import hashlib
import os
import secrets
import sys
from pathlib import Path

from tunnel.lab import Host

PORT = 7000
PROGRAM = str(Path(__file__).with_name("transfer_program.py"))


def check_transfer(sender: Host, receiver: Host, address: str, size: int) -> None:
    """Send `size` random bytes to `address` of `receiver`; the SHA-256 on both sides is equal."""
    sent, received = sender.directory / "sent", receiver.directory / "received"
    with sent.open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(os.urandom(min(1 << 20, size - start)))
    program = [sys.executable, PROGRAM]
    port = str(PORT + secrets.randbelow(2000))
    server = receiver.popen([*program, "receive", address, port, str(received)])
    server.wait_for_output("listening")
    sender.run([*program, "send", address, port, str(sent)], timeout=90)
    assert server.wait(30) == 0, server.log()
    with sent.open("rb") as ours, received.open("rb") as theirs:
        assert (
            hashlib.file_digest(ours, "sha256").hexdigest()
            == hashlib.file_digest(theirs, "sha256").hexdigest()
        )
    assert received.stat().st_size == size
