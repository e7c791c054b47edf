"""Docker's requests by their paths: what each is read as, and what the driver does with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import trio

from tunnel.containers.docker.driver import Answer, Driver
from tunnel.containers.docker.protocol import (
    CreateEndpoint,
    CreateNetwork,
    OfAddress,
    OfEndpoint,
    OfNetwork,
    RequestError,
    RequestPool,
)
from tunnel.control.connections import Failures, InternalError
from tunnel.errors import TunnelError
from tunnel.linux.json_text import read_json

log = logging.getLogger("tunnel")

_FIXED: Final[dict[str, Answer]] = {
    "/Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    "/NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "global"},
    "/NetworkDriver.DiscoverNew": {},
    "/NetworkDriver.DiscoverDelete": {},
    "/IpamDriver.GetCapabilities": {"RequiresMACAddress": False},
    "/IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": "tunnel-local",
        "GlobalDefaultAddressSpace": "tunnel-global",
    },
}
"""Questions whose answer is always the same."""


class Requests:
    """The requests to one driver, one at a time; `changed` is called after each."""

    def __init__(self, driver: Driver, failures: Failures, changed: Callable[[], None]) -> None:
        self._failures = failures
        self._changed = changed
        self.lock = trio.Lock()
        """Held while the driver is at work."""
        self._methods: dict[str, Callable[[object], Answer]] = {
            "/NetworkDriver.CreateNetwork": lambda d: driver.create_network(CreateNetwork.parse(d)),
            "/NetworkDriver.DeleteNetwork": lambda d: driver.delete_network(OfNetwork.parse(d)),
            "/NetworkDriver.CreateEndpoint": lambda d: driver.create_endpoint(
                CreateEndpoint.parse(d)
            ),
            "/NetworkDriver.DeleteEndpoint": lambda d: driver.delete_endpoint(OfEndpoint.parse(d)),
            "/NetworkDriver.EndpointOperInfo": lambda d: driver.info(OfEndpoint.parse(d)),
            "/NetworkDriver.Join": lambda d: driver.join(OfEndpoint.parse(d)),
            "/NetworkDriver.Leave": lambda d: driver.leave(OfEndpoint.parse(d)),
            "/NetworkDriver.ProgramExternalConnectivity": lambda d: driver.publish(
                OfEndpoint.parse(d)
            ),
            "/NetworkDriver.RevokeExternalConnectivity": lambda d: driver.withdraw(
                OfEndpoint.parse(d)
            ),
            "/IpamDriver.RequestPool": lambda d: driver.request_pool(RequestPool.parse(d)),
            "/IpamDriver.ReleasePool": lambda d: driver.release_pool(OfAddress.parse(d)),
            "/IpamDriver.RequestAddress": lambda d: driver.request_address(OfAddress.parse(d)),
            "/IpamDriver.ReleaseAddress": lambda d: driver.release_address(OfAddress.parse(d)),
        }

    async def answer(self, path: str, body: bytes) -> tuple[int, object]:
        """The HTTP status and the JSON for a request; Docker prints an error to its user."""
        if path in _FIXED:
            return 200, _FIXED[path]
        method = self._methods.get(path)
        if method is None:
            # Docker takes that for a method of a later version.
            return 404, _refusal(f"there is no method {path}")
        if not body:
            # So it comes when the plugin ended meanwhile: Docker has read the body away before.
            why = "Docker has sent it again, without its body, as the plugin was restarted"
            return 400, _refusal(f"{path}: {why}; give the command again")
        try:
            data = read_json(body)
        except ValueError as error:
            return 400, _refusal(f"{path}: the body is not JSON: {error}")
        try:
            with self._failures.contained(path):
                async with self.lock:
                    # Not abandoned: half a network must not be left.
                    found = await trio.to_thread.run_sync(method, data)
        except RequestError as error:
            return 400, _refusal(f"{path}: {error}")
        except InternalError as error:
            return 200, _refusal(str(error))
        except TunnelError as error:
            log.warning("%s: %s", path, error)
            return 200, _refusal(str(error))
        finally:
            self._changed()
        return 200, found


def _refusal(text: str) -> Answer:
    # Docker looks for the one with networks, for the other with addresses.
    return {"Err": text, "Error": text}
