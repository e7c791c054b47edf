"""The engine: what carries the packets of one interface. `engine.py` says how."""

from .common import LONE_AFTER, Clock, EngineDrop, Interface, Peer, boot_time
from .engine import Engine
from .instrument import Tracer

__all__ = [
    "LONE_AFTER",
    "Clock",
    "Engine",
    "EngineDrop",
    "Interface",
    "Peer",
    "Tracer",
    "boot_time",
]
