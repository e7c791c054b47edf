"""What the blocking and the asynchronous client of the control socket share; it asks no daemon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunnel.control.json_protocol import VERSION, ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.run_folder import has_holder, socket_path
from tunnel.linux.files import RUN_FOLDER


class NotRunningError(ControlError):
    """No daemon answers on the socket. `killed`: one was there, and had no time to clean up;
    `is_between`: it has ended, and another one is about to start.
    """

    def __init__(self, name: str) -> None:
        self.killed = socket_path(name).is_socket()
        self.is_between = has_holder(name)
        message = f"no tunnel named {name} is running on this host"
        if self.is_between:
            message = (
                f"the tunnel {name} stands, but its daemon has ended; its holder starts another "
                f"one in a moment: try again. If it stays so, see {RUN_FOLDER}/{name}.log, or take "
                f"the tunnel down: tunnel down {name}"
            )
        elif self.killed:
            message += (
                "; its daemon was killed and has left things behind: "
                f"tunnel up with its conf starts it again, tunnel down {name} removes them, a kill "
                "switch, too"
            )
        super().__init__("not_running", message)


def connect_error(name: str, error: OSError) -> Exception:
    """What to raise for a failure to connect to the daemon of interface `name`."""
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return NotRunningError(name)
    if isinstance(error, BlockingIOError | TimeoutError):
        return ControlError("timeout", f"the daemon of {name} does not accept connections")
    if isinstance(error, PermissionError):
        message = f"the control socket {socket_path(name)} is for root only: use sudo"
        return ControlError("permission", message)
    return error


def silence_error(name: str, pid: int) -> ControlError:
    """What to raise for a daemon that does not answer; `pid` is its process, 0 if unknown."""
    if not pid:
        return ControlError("timeout", f"the daemon of {name} does not answer")
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        state = ""
    if state in ("T", "t"):
        text = f"is stopped (process {pid}): kill -CONT {pid} lets it go on"
    else:
        text = (
            f"does not answer (process {pid}); if it stays so: kill -9 {pid}, and then tunnel up "
            f"with its conf, or tunnel down {name}, which removes what it leaves behind, a kill "
            "switch, too"
        )
    return ControlError("timeout", f"the daemon of {name} {text}")


def closed_error(name: str) -> ControlError:
    """What to raise for a connection that ended before its answer."""
    return ControlError("closed", f"the daemon of {name} closed the connection")


class Dialogue:
    """The client's side of one connection: what to send, and what the bytes mean that come."""

    def __init__(self) -> None:
        self._last_id = 0
        self._buffer = bytearray()
        self._searched = 0
        self._failure: ControlError | None = None

    def request(self, method: str, params: dict[str, Any]) -> bytes:
        """A request, to be sent."""
        self._last_id += 1
        line = {"v": VERSION, "id": self._last_id, "method": method, "params": params}
        return json.dumps(line).encode() + b"\n"

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes that have come."""
        self._buffer += data

    def has_line(self) -> bool:
        """Whether a whole line has come and was not taken yet."""
        # What was searched in vain is not searched again: a status may have megabytes.
        found = self._buffer.find(b"\n", self._searched)
        self._searched = len(self._buffer) if found < 0 else found
        return found >= 0

    def take_result(self) -> Any:
        """The result of the request, once its line has come. Raises ControlError for a refusal."""
        return self._take("result")

    def take_event(self) -> TunnelEvent:
        """The next event of a stream, once its line has come.

        Raises ControlError if the stream has failed.
        """
        return TunnelEvent.from_json(self._take("event"))

    def take_events(self) -> list[TunnelEvent]:
        """The events of a stream whose lines have come.

        Raises ControlError if the stream has failed; events that came before that are returned
        first, and the next call raises.
        """
        events: list[TunnelEvent] = []
        while self._failure is None and self.has_line():
            try:
                events.append(self.take_event())
            except ControlError as error:
                self._failure = error
        if self._failure is not None and not events:
            raise self._failure
        return events

    def _take(self, kind: str) -> Any:
        end = self._buffer.index(b"\n", self._searched)
        line = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        if "error" in line:
            raise ControlError(line["error"]["code"], line["error"]["message"])
        return line[kind]
