"""What would make `tunnel up` fail, found without bringing anything up: for the doctor.

Each check is the one that `run` makes, so both give the same reasons and remedies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import trio

from tunnel import host
from tunnel.config import TunnelConfig
from tunnel.daemon import reload
from tunnel.daemon.descriptors import check_descriptors
from tunnel.daemon.host_state import compute, line_of_port, place_in_conf
from tunnel.daemon.teardown import refuse_others, who_has_name
from tunnel.errors import TunnelError
from tunnel.host import Obstacle
from tunnel.io.endpoint import Endpoint
from tunnel.io.errors import UdpError
from tunnel.io.tun import check_device_file
from tunnel.io.udp import Udp


async def rehearse(config: TunnelConfig, endpoints: Iterable[Endpoint]) -> tuple[Obstacle, ...]:
    """All that stands in the way of a tunnel that is not up; `endpoints` are those of its peers.

    Binds its UDP port for a moment, if that is free. Needs the privileges of `up`.
    """
    found: list[Obstacle] = []
    for check in _checks(config):
        try:
            found += await trio.to_thread.run_sync(check)
        except TunnelError as error:
            found.append(_other(error))
    try:
        around = await compute(config, endpoints)
        foresee = partial(host.foresee, netns=place_in_conf(config).netns)
        found += await trio.to_thread.run_sync(foresee, around.state)
    except host.HostError as error:
        found.append(_other(error))
    return tuple(found)


def _checks(config: TunnelConfig) -> Iterator[Callable[[], list[Obstacle]]]:
    yield lambda: _passes(check_descriptors)
    yield lambda: _passes(lambda: refuse_others(host.load_record(config.name)))
    yield lambda: _check_name(config.name)
    yield lambda: _passes(lambda: reload.check_hooks(config))
    yield lambda: _passes(check_device_file)
    yield lambda: _check_port(config)


def _passes(check: Callable[[], None]) -> list[Obstacle]:
    check()
    return []


def _check_name(name: str) -> list[Obstacle]:
    taken = who_has_name(name)
    return [] if taken is None else [Obstacle("interface", *taken)]


def _check_port(config: TunnelConfig) -> list[Obstacle]:
    try:
        with line_of_port(config):
            Udp.open(config.interface.listen_port).close()
    except UdpError as error:
        return [Obstacle("port", error.reason, error.remedy)]
    return []


def _other(error: TunnelError) -> Obstacle:
    if isinstance(error, host.HostError):
        return Obstacle.from_error("other", error)
    return Obstacle("other", str(error))
