"""The three calls of systemd-resolved that a VPN needs: org.freedesktop.resolve1(5) over D-Bus."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

from jeepney import (  # type: ignore[import-untyped]
    DBusAddress,
    DBusErrorResponse,
    new_method_call,
)
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import (  # type: ignore[import-untyped]
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
_AF = {4: 2, 6: 10}


def is_running() -> bool:
    """Whether systemd-resolved is on the system bus, or would be started by asking it."""
    try:
        with closing(_connect()) as bus:
            owned = _ask(bus, message_bus.NameHasOwner(_SERVICE))[0]
            return bool(owned) or _SERVICE in _ask(bus, message_bus.ListActivatableNames())[0]
    except (HostError, DBusErrorResponse, OSError):
        return False


def set_link(index: int, dns: Dns) -> None:
    """Make these the name servers of all names while the link is there.

    "." as a routing domain is what resolvconf calls exclusive: every name goes there.
    """
    servers = [(_AF[server.version], server.packed) for server in dns.servers]
    domains = _domains(dns.search)
    try:
        with closing(_connect()) as bus:
            _call(bus, "SetLinkDNS", "ia(iay)", (index, servers))
            _call(bus, "SetLinkDomains", "ia(sb)", (index, domains))
            _call(bus, "SetLinkDefaultRoute", "ib", (index, True))
    except (DBusErrorResponse, OSError) as error:
        raise _failure("set", str(dns), error) from error


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
    """Forget what was set for the link; no error if link or service are gone."""
    try:
        with closing(_connect()) as bus:
            if _ask(bus, message_bus.NameHasOwner(_SERVICE))[0]:
                _call(bus, "RevertLink", "i", (index,))
    except HostError:
        return  # without a bus there is no resolved that could remember anything
    except (DBusErrorResponse, OSError) as error:
        if isinstance(error, DBusErrorResponse) and error.name == _NO_SUCH_LINK:
            return
        raise _failure("unset", f"dns of link {index}", error) from error


def _connect() -> DBusConnection:
    try:
        return open_dbus_connection("SYSTEM")
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise HostError(
            "reach", "systemd-resolved", f"no system bus: {error}", "systemctl start dbus"
        ) from error


def _call(bus: DBusConnection, method: str, signature: str, body: tuple[Any, ...]) -> Any:
    return _ask(bus, new_method_call(_MANAGER, method, signature, body))


def _ask(bus: DBusConnection, message: Any) -> Any:
    return unwrap_msg(bus.send_and_get_reply(message, timeout=_TIMEOUT))


def _failure(step: str, subject: str, error: Exception) -> HostError:
    reason = f"{error.name} {error.data}" if isinstance(error, DBusErrorResponse) else str(error)
    return HostError(step, subject, reason, "resolvectl status shows what resolved knows")
