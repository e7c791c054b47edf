"""The engine: what carries the packets of one interface. `engine.py` says how."""

from .common import LONE_AFTER, Clock, EngineDrop, Interface, Peer, boot_time
from .engine import Engine
from .instrument import Tracer
from .session_record import SessionRecord, SessionRecordError

__all__ = [
    "LONE_AFTER",
    "Clock",
    "Engine",
    "EngineDrop",
    "Interface",
    "Peer",
    "SessionRecord",
    "SessionRecordError",
    "Tracer",
    "boot_time",
]
