"""The engine: what carries the packets of one interface. `engine.py` says how."""

from .common import LONE_AFTER, Drop, Peer, boot_time
from .engine import Engine

__all__ = ["LONE_AFTER", "Drop", "Engine", "Peer", "boot_time"]
