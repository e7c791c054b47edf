"""The engine: what carries the packets of one interface. `engine.py` says how."""

from .common import LONE_AFTER, Clock, EngineDrop, Interface, Peer, boot_time
from .engine import Engine
from .flows import FlowRecord, Flows
from .instrument import Tracer
from .limits import Way
from .quota_file import QuotaFile
from .session_record import SessionRecord, SessionRecordError

__all__ = [
    "LONE_AFTER",
    "Clock",
    "Engine",
    "EngineDrop",
    "FlowRecord",
    "Flows",
    "Interface",
    "Peer",
    "QuotaFile",
    "SessionRecord",
    "SessionRecordError",
    "Tracer",
    "Way",
    "boot_time",
]
