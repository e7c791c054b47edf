"""The blocking client of the control socket."""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from tunnel.control.json_socket import VERSION, ControlError
from tunnel.control.messages.events import TunnelEvent
from tunnel.control.run_folder import socket_path


class NotRunningError(ControlError):
    """No daemon answers on the socket. `killed`: one was there, and had no time to clean up."""

    def __init__(self, name: str) -> None:
        self.killed = socket_path(name).is_socket()
        message = f"no tunnel named {name} is running on this host"
        if self.killed:
            message += (
                "; its daemon was killed and has left things behind: "
                f"tunnel down {name} removes them"
            )
        super().__init__("not_running", message)


def result_of(reply: dict[str, Any]) -> Any:
    """The result in a reply. Raises ControlError for a refusal."""
    if "error" in reply:
        raise ControlError(reply["error"]["code"], reply["error"]["message"])
    return reply["result"]


def event_of(line: dict[str, Any]) -> TunnelEvent:
    """The event in a line of a stream. Raises ControlError for a stream that has failed."""
    if "error" in line:
        raise ControlError(line["error"]["code"], line["error"]["message"])
    return TunnelEvent.from_json(line["event"])


class Client:
    """A blocking client of one daemon's control socket, for the command line and for scripts.

    Use as a context manager. Raises NotRunningError when nobody listens and ControlError for a
    refusal. `timeout` is in seconds and bounds each request.
    """

    def __init__(self, name: str, *, timeout: float = 10.0) -> None:
        self.name = name
        self._next_id = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(socket_path(name)))
        except (FileNotFoundError, ConnectionRefusedError):
            self._socket.close()
            raise NotRunningError(name) from None
        except PermissionError:
            self._socket.close()
            message = f"the control socket {socket_path(name)} is for root only: use sudo"
            raise ControlError("permission", message) from None
        except OSError:
            self._socket.close()
            raise
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._file.close()
        self._socket.close()

    def call(self, method: str, **params: Any) -> Any:
        """Send one request and return its result."""
        self._next_id += 1
        request = {"v": VERSION, "id": self._next_id, "method": method, "params": params}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._file.readline()
        except TimeoutError:
            raise ControlError("timeout", f"the daemon of {self.name} does not answer") from None
        except (BrokenPipeError, ConnectionResetError):
            line = b""
        if not line:
            raise ControlError("closed", f"the daemon of {self.name} closed the connection")
        return result_of(json.loads(line))

    def peer_pid(self) -> int:
        """The daemon's process id, as the kernel knows it (SO_PEERCRED)."""
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return int.from_bytes(credentials[:4], sys.byteorder)

    def wait_closed(self, timeout: float) -> bool:
        """Wait until the daemon closes the connection, at most `timeout` seconds."""
        self._socket.settimeout(timeout)
        try:
            return self._file.read(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True
