"""Keys and confs that the tests of the room share. The keys guard nothing."""

from tunnel.config import TunnelConfig, parse

PRIVATE = "EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
PEER = "nu27NTFqyF4vHsb3pXyQy0b1GxppWnieUOy5+xEdzz8="
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
PSK = "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak="

INTERFACE = f"[Interface]\nPrivateKey = {PRIVATE}\n"
"""Two lines that are a conf by themselves."""
WITH_PEER = f"{INTERFACE}[Peer]\nPublicKey = {PEER}\n"
"""Four lines with a peer."""


def read(text: str) -> TunnelConfig:
    """Parse a conf called office from peer.conf."""
    return parse(text, name="office", source="peer.conf")
