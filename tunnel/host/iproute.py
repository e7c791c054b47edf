"""pyroute2's IPRoute, with its requests and messages, over a plain socket.

`import pyroute2` loads all of that library, and asyncio, multiprocessing and unittest.mock for it:
10 MiB and 110 ms of each daemon, for a dozen messages. Those messages, and what makes them of
keywords, are a small part of it, and load without the rest.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import struct
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple, Self

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ERROR, _DONE = 2, 3  # NLMSG_ERROR, NLMSG_DONE
_REQUEST, _ACK, _DUMP, _INTERRUPTED = 0x1, 0x4, 0x300, 0x10  # NLM_F_…
_REPLACE, _EXCL, _CREATE = 0x100, 0x200, 0x400
_BUFFER = 1 << 16
_TRIES = 8
"""How often something is listed again that has changed meanwhile."""

_FLAGS = {
    "add": _REQUEST | _ACK | _CREATE | _EXCL,
    "replace": _REQUEST | _ACK | _CREATE | _REPLACE,
    "set": _REQUEST | _ACK,
    "del": _REQUEST | _ACK,
    "get": _REQUEST | _ACK,
    "dump": _REQUEST | _DUMP,
}


class _Subject(NamedTuple):
    """What is changed and listed: the message types of linux/rtnetlink.h, and pyroute2's names."""

    new: int
    delete: int
    get: int
    message: str
    request: str


_SUBJECTS = {
    "link": _Subject(16, 17, 18, "ifinfmsg", "Link"),
    "addr": _Subject(20, 21, 22, "ifaddrmsg", "Address"),
    "route": _Subject(24, 25, 26, "rtmsg", "Route"),
    "rule": _Subject(32, 33, 34, "fibmsg", "Rule"),
}


class IPRoute:
    """rtnetlink of the calling thread's namespace, for one request at a time.

    Each method takes a command (add, replace, set, del, get, dump) and the keywords of pyroute2's
    method of that name, and gives messages of that library: those of the interface `index`, if a
    dump has one. What the kernel refuses is an OSError.
    """

    def __init__(self) -> None:
        load()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def link(self, command: str, **fields: Any) -> Sequence[Any]:
        """Interfaces."""
        return self._ask("link", command, fields)

    def addr(self, command: str, **fields: Any) -> Sequence[Any]:
        """Addresses."""
        return self._ask("addr", command, fields)

    def route(self, command: str, **fields: Any) -> Sequence[Any]:
        """Routes."""
        return self._ask("route", command, {"proto": "static", "type": "unicast"} | fields)

    def rule(self, command: str, **fields: Any) -> Sequence[Any]:
        """Policy rules."""
        return self._ask("rule", command, fields)

    def _ask(self, subject: str, command: str, fields: dict[str, Any]) -> Sequence[Any]:
        about = _SUBJECTS[subject]
        cls = getattr(import_module(f"pyroute2.netlink.rtnl.{about.message}"), about.message)
        kind = {"get": about.get, "dump": about.get, "del": about.delete}.get(command, about.new)
        request = cls()
        request["header"].update(type=kind, flags=_FLAGS[command], sequence_number=0, pid=0)
        _fill(request, about.request, command, fields)
        request.encode()
        for _ in range(_TRIES):
            self._socket.send(request.data)
            answers = []
            is_whole = True
            for flags, data in self._answers():
                is_whole = is_whole and not flags & _INTERRUPTED
                answer = cls(data)
                answer.decode()
                answers.append(answer)
            if is_whole:
                break
        # The kernel itself gives all there are.
        index = fields.get("index") if command == "dump" else None
        return [each for each in answers if index is None or each["index"] == index]

    def _answers(self) -> Iterator[tuple[int, bytes]]:
        """Flags and bytes of each message, until the last one, which may be an error."""
        while True:
            received = self._socket.recv(_BUFFER)
            start = 0
            while start + _HEADER.size <= len(received):
                length, kind, flags, _, _ = _HEADER.unpack_from(received, start)
                message = received[start : start + length]
                if kind in (_ERROR, _DONE):
                    number = -int.from_bytes(message[16:20], sys.byteorder, signed=True)
                    if number > 0:
                        raise OSError(number, os.strerror(number))
                    return
                yield flags, message
                start += max(_HEADER.size, length + 3 & ~3)


def _fill(request: Any, name: str, command: str, fields: dict[str, Any]) -> None:
    """Set fields and attributes of a message by keywords, as pyroute2's NetlinkRequest does."""
    from pyroute2.requests.main import RequestProcessor

    module = import_module(f"pyroute2.requests.{name.lower()}")
    processor = RequestProcessor(context=fields, prime=fields)
    processor.set_parameter("strict_check", False)
    processor.add_filter(getattr(module, f"{name}FieldFilter")())
    processor.add_filter(getattr(module, f"{name}IPRouteFilter")(command))
    processor.finalize()
    request.reset()
    for field, *_ in request.fields:
        request[field] = processor.get_value(field, default=0, mode="field")
    for key, value in processor.items():
        attribute = type(request).name2nla(key)
        if request.valid_nla(attribute) and value is not None:
            request["attrs"].append([attribute, value])
    request["attrs"].extend(processor.get("attrs", ()))


class _Package(ModuleType):
    """A package whose `__init__` runs when a name is asked for that is none of its modules."""

    def __getattr__(self, name: str) -> Any:
        module = f"{self.__name__}.{name}"
        try:
            return import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        self.__class__ = ModuleType  # type: ignore[assignment]  # a plain package from here on
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def load() -> None:
    """Load all that this room ever needs of pyroute2: later its files may be out of reach.

    Those who import pyroute2 themselves still get all of it.
    """
    if "pyroute2" not in sys.modules:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None:
            raise ModuleNotFoundError("pyroute2 is not installed", name="pyroute2")
        module = importlib.util.module_from_spec(spec)
        module.__class__ = _Package
        sys.modules.setdefault("pyroute2", module)
    import_module("pyroute2.requests.main")
    for subject in _SUBJECTS.values():
        import_module(f"pyroute2.netlink.rtnl.{subject.message}")
        import_module(f"pyroute2.requests.{subject.request.lower()}")
