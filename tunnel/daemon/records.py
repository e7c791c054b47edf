"""Records of who was connected and of what was carried: JSON lines, if the conf wants them.

A session record is written when a peer disconnects, a flow record when a flow is over. The file is
opened for each batch of lines, so it may be moved or removed at any time. A thread writes, and
packets never wait for it: what cannot be written is counted, and lost.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from tunnel.config.options import RecordKind
from tunnel.engine import Engine, FlowRecord, Flows, Way
from tunnel.linux.files import append_whole
from tunnel.packet.headers import address_text

log = logging.getLogger("tunnel")

MAX_WAITING: Final = 1 << 14
"""Lines that wait to be written."""
PERIOD: Final = 1.0
"""Seconds between two writes at least: many lines are one."""
SWEEP: Final = 10.0
"""Seconds between two looks for flows that are over."""


@dataclass(frozen=True, slots=True)
class _Session:
    """Since when a peer is connected, and its counters then."""

    start: float
    rx_bytes: int
    tx_bytes: int


class Records:
    """One per daemon: writes into the file `path`, while `kind` is not "off"."""

    def __init__(self, name: str, path: Path, name_of: Callable[[str], str]) -> None:
        self.kind: RecordKind = "off"
        self.lost = 0
        self.problem = ""
        self._name = name
        self._path = path
        self._name_of = name_of
        self._lines: deque[str] = deque()
        self._has_news = trio.Event()
        self._sessions: dict[str, _Session] = {}
        self._flows: Flows | None = None
        self._writing = trio.Lock()

    def follow(self, engine: Engine, kind: RecordKind) -> None:
        """Record this from now on. Peers that are connected already count from this moment."""
        if kind == self.kind:
            return
        if self.kind == "off":
            for key, peer in engine.interface.peers.items():
                if peer.is_connected:
                    start = _Session(time.time(), peer.rx_bytes, peer.tx_bytes)
                    self._sessions[key.to_base64()] = start
        elif kind == "off":
            self._sessions.clear()
        if (kind == "flows") != (self._flows is not None):
            if self._flows is not None:
                self._flows.end()
            self._flows = None
            if kind == "flows":
                self._flows = Flows(time.time, self._add_flow, ethernet=engine.tun.tap)
            engine.metering.set_flows(self._flows)
        self.kind = kind

    def handle_event(self, kind: str, details: Mapping[str, Any]) -> None:
        """Note that a peer connects, and record its session when it disconnects."""
        if self.kind == "off":
            return
        if kind == "connected":
            start = _Session(time.time(), details["rx_bytes"], details["tx_bytes"])
            self._sessions[details["peer"]] = start
        elif kind == "disconnected":
            self._end_session(details["peer"], details)

    def end(self, engine: Engine, reason: str) -> None:
        """Record all sessions and flows as they are: this daemon ends."""
        if self._flows is not None:
            self._flows.end()
        for key, peer in engine.interface.peers.items():
            endpoint = None if peer.endpoint is None else str(peer.endpoint)
            details = {
                "endpoint": endpoint,
                "reason": reason,
                "rx_bytes": peer.rx_bytes,
                "tx_bytes": peer.tx_bytes,
            }
            self._end_session(key.to_base64(), details)

    async def run(self) -> None:
        """Write what there is to write, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                await self._has_news.wait()
                await self.write()
                await trio.sleep(PERIOD)

    async def write(self) -> None:
        """Write all lines that wait."""
        async with self._writing:
            lines = list(self._lines)
            self._lines.clear()
            self._has_news = trio.Event()
            if lines:
                await trio.to_thread.run_sync(self._append, lines)

    def troubles(self) -> Sequence[str]:
        """What was lost, in words."""
        if not self.lost:
            return ()
        return (f"{self.lost} records ({self.problem})",)

    async def _sweep(self) -> None:
        while True:
            await trio.sleep(SWEEP)
            if self._flows is not None:
                self._flows.sweep()

    def _end_session(self, key: str, details: Mapping[str, Any]) -> None:
        session = self._sessions.pop(key, None)
        if session is None:
            return
        self._add(
            "session",
            key,
            {
                "endpoint": details["endpoint"],
                "start": round(session.start, 3),
                "end": round(time.time(), 3),
                "rx_bytes": details["rx_bytes"] - session.rx_bytes,
                "tx_bytes": details["tx_bytes"] - session.tx_bytes,
                "reason": details["reason"],
            },
        )

    def _add_flow(self, flow: FlowRecord) -> None:
        self._add(
            "flow",
            flow.public_key.to_base64(),
            {
                "protocol": flow.protocol,
                "local": address_text(flow.near[0]),
                "local_port": flow.near[1],
                "remote": address_text(flow.far[0]),
                "remote_port": flow.far[1],
                "first": round(flow.first, 3),
                "last": round(flow.last, 3),
                "tx_packets": flow.packets[Way.OUT],
                "tx_bytes": flow.size[Way.OUT],
                "rx_packets": flow.packets[Way.IN],
                "rx_bytes": flow.size[Way.IN],
            },
        )

    def _add(self, kind: str, key: str, details: Mapping[str, Any]) -> None:
        if len(self._lines) >= MAX_WAITING:
            self._lose(1, "they came faster than they could be written")
            return
        whose = {"interface": self._name, "peer": key, "name": self._name_of(key)}
        self._lines.append(json.dumps({"type": kind, **whose, **details}))
        self._has_news.set()

    def _append(self, lines: Sequence[str]) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            append_whole(self._path, data)
        except OSError as error:
            self._lose(len(lines), f"{self._path}: {error.strerror}")

    def _lose(self, count: int, problem: str) -> None:
        if problem != self.problem:
            log.warning("records are lost: %s", problem)
        self.lost += count
        self.problem = problem
