"""The calls of systemd-resolved that a VPN needs: org.freedesktop.resolve1(5) over D-Bus.

D-Bus is used on trio. The steps around it block and have a thread of their own: a thread
that trio started hands the call back to its event loop, any other runs one for it. So the caller
sees a step like all others, in its place among those to be undone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    DBusErrorResponse,
    HeaderFields,
    Properties,
    new_method_call,
)
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.trio import (  # type: ignore[import-untyped]
    DBusConnection,
    open_dbus_connection,
)
from jeepney.wrappers import unwrap_msg  # type: ignore[import-untyped]

from tunnel.host.errors import HostError
from tunnel.host.state import Dns

_SERVICE = "org.freedesktop.resolve1"
_MANAGER = DBusAddress(
    "/org/freedesktop/resolve1", bus_name=_SERVICE, interface=f"{_SERVICE}.Manager"
)
_NO_SUCH_LINK = f"{_SERVICE}.NoSuchLink"
_TIMEOUT = 10.0
"""Seconds for all that one of these functions asks the bus."""
_AF = {4: 2, 6: 10}


def is_running() -> bool:
    """Whether systemd-resolved is on the system bus, or would be started by asking it."""

    async def ask(bus: DBusConnection) -> bool:
        owned = (await _ask(bus, message_bus.NameHasOwner(_SERVICE)))[0]
        return bool(owned) or _SERVICE in (await _ask(bus, message_bus.ListActivatableNames()))[0]

    try:
        return bool(_on_bus("look for", "systemd-resolved", ask))
    except HostError:
        return False


def set_link(index: int, dns: Dns) -> None:
    """Make these the name servers of all names while the link is there.

    "." as a routing domain is what resolvconf calls exclusive: every name goes there.
    """
    servers = [(_AF[server.version], server.packed) for server in dns.servers]

    async def ask(bus: DBusConnection) -> None:
        await _call(bus, "SetLinkDNS", "ia(iay)", (index, servers))
        await _call(bus, "SetLinkDomains", "ia(sb)", (index, _domains(dns.search)))
        await _call(bus, "SetLinkDefaultRoute", "ib", (index, True))

    _on_bus("set", str(dns), ask)


def still_stands(index: int, dns: Dns) -> bool:
    """Whether the link has the servers of `dns` still: a restart of systemd-resolved forgets them.

    True as well if it cannot be asked: that shows no change.
    """

    async def ask(bus: DBusConnection) -> bool:
        (path,) = await _call(bus, "GetLink", "i", (index,))
        link = DBusAddress(path, bus_name=_SERVICE, interface=f"{_SERVICE}.Link")
        ((_, servers),) = await _ask(bus, Properties(link).get("DNS"))
        return {bytes(address) for _, address in servers} == {s.packed for s in dns.servers}

    try:
        return bool(_on_bus("look at", str(dns), ask))
    except HostError:
        return True


def _domains(search: Iterable[str]) -> list[tuple[str, bool]]:
    """Each domain once, with whether it only says which names go this way (`~domain`), as
    resolvectl reads them. The root cannot be searched, so it is always of that kind.
    """
    found: dict[str, bool] = {}
    for text in (*search, "~."):
        name = text.removeprefix("~").removesuffix(".") or "."
        only_routes = text.startswith("~") or name == "."
        found[name] = only_routes and found.get(name, True)
    return list(found.items())


def revert_link(index: int) -> None:
    """Forget what was set for the link; no error if link, service or bus are gone."""

    async def ask(bus: DBusConnection) -> None:
        if (await _ask(bus, message_bus.NameHasOwner(_SERVICE)))[0]:
            try:
                await _call(bus, "RevertLink", "i", (index,))
            except DBusErrorResponse as error:
                if error.name != _NO_SUCH_LINK:
                    raise

    try:
        _on_bus("unset", f"dns of link {index}", ask)
    except _NoBusError:
        return  # without a bus there is no resolved that could remember anything


class _NoBusError(HostError):
    """There is no bus to ask."""


def _on_bus(step: str, subject: str, ask: Callable[[DBusConnection], Awaitable[Any]]) -> Any:
    """What `ask` gives for a connection to the system bus. Raises HostError. Blocks."""

    async def run() -> Any:
        try:
            # No cancellation comes in between: there is the time limit, and what is begun is undone
            # or recorded by the thread that waits.
            with trio.CancelScope(shield=True), trio.fail_after(_TIMEOUT):
                async with _connected() as bus:
                    return await ask(bus)
        except DBusErrorResponse as error:
            raise _failure(step, subject, f"{error.name} {error.data}") from error
        except trio.TooSlowError as error:
            reason = f"no answer from the system bus within {_TIMEOUT:g} s"
            raise _failure(step, subject, reason) from error
        except (OSError, trio.BrokenResourceError, trio.EndOfChannel) as error:
            raise _failure(step, subject, f"the system bus: {error}") from error

    return trio.from_thread.run(run) if _is_trios_thread() else trio.run(run)


def _is_trios_thread() -> bool:
    try:
        trio.from_thread.check_cancelled()
    except RuntimeError:
        return False
    except trio.Cancelled:
        return True
    return True


@asynccontextmanager
async def _connected() -> AsyncIterator[DBusConnection]:
    try:
        bus = await open_dbus_connection("SYSTEM")
    # A group: jeepney greets the bus in a nursery of its own.
    except (OSError, KeyError, ValueError, RuntimeError, ExceptionGroup) as error:
        raise _NoBusError(
            "reach", "systemd-resolved", f"no system bus: {error}", "systemctl start dbus"
        ) from error
    async with bus:
        yield bus


async def _call(bus: DBusConnection, method: str, signature: str, body: tuple[Any, ...]) -> Any:
    return await _ask(bus, new_method_call(_MANAGER, method, signature, body))


async def _ask(bus: DBusConnection, message: Any) -> Any:
    serial = next(bus.outgoing_serial)
    await bus.send(message, serial=serial)
    while True:
        reply = await bus.receive()
        if reply.header.fields.get(HeaderFields.reply_serial) == serial:
            return unwrap_msg(reply)


def _failure(step: str, subject: str, reason: str) -> HostError:
    return HostError(step, subject, reason, "resolvectl status shows what resolved knows")
