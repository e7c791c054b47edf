"""WireGuard's cryptography in the whitepaper's names: keys, handshake, messages, cookies.

No I/O, no clock, and no randomness but what the caller hands in.
"""
