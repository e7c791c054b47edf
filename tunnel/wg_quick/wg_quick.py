"""What wg-quick(8) does, for any userspace implementation: `tunnel-wg-quick`.

`up` starts the program that carries the packets, configures it over its UAPI socket, and sets up
the machine around it with the same parts as `tunnel up`; then it leaves. What it did is in the
host room's record, so that `down`, another process, undoes that and no more. Three things are
not as in wg-quick, all as in `tunnel up`: PreUp finds the interface there, a hook that fails on
the way down stops nothing, and other tunnels keep their rules.
"""

from __future__ import annotations

import contextlib
import errno
import math
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Literal

import trio

from tunnel import host
from tunnel.config import EndpointConfig, InterfaceConfig, PublicKey, TunnelConfig, place_of
from tunnel.control import uapi_client
from tunnel.control.snapshot import DeviceSnapshot
from tunnel.daemon import host_state, redaction, reload
from tunnel.daemon.lock import hold
from tunnel.daemon.run import STAYS_SHUT
from tunnel.daemon.save import merge_running, write, write_copy
from tunnel.daemon.teardown import refuse_taken
from tunnel.device import signals
from tunnel.device.look_up import resolve_all
from tunnel.device.resolve import ResolveError, resolve
from tunnel.device.uapi import socket_path
from tunnel.errors import AlreadyRunningError, DaemonError, TunnelError, unwrapped
from tunnel.io.endpoint import Endpoint

OWNER = "tunnel-wg-quick"
"""Who has to take such a tunnel down; it stands in its record."""

STDERR = 2
"""Where hooks print to by themselves: this program is gone before what they leave behind."""

ENDING = 5.0
"""Seconds for a program to end once its interface is gone."""

Echo = Callable[[str], None]
"""Prints a line: the steps begin with [#], as wg-quick's do."""


async def up(config: TunnelConfig, program: str, echo: Echo, retries: str = "") -> None:
    """Set up the tunnel of `config`, its packets carried by `program`, a command that is given the
    interface's name and returns once that is there.

    `retries` is the value of WG_ENDPOINT_RESOLUTION_RETRIES, which `wg` knows: a number,
    "infinity", or nothing. Raises TunnelError, also when asked to stop; then nothing is left.
    """
    name = config.name
    redaction.hide_secrets(config)
    reload.check_hooks(config)
    options = config.interface.options
    # What an admin relies on must not be left out without a word.
    for key, is_set in (
        ("NetNS", options.netns),
        ("Mode = tap", options.is_tap),
        ("RateLimit", any(any(peer.rate_limit) for peer in config.peers)),
        ("Quota", any(peer.quota.size for peer in config.peers)),
        ("Records", options.records != "off"),
        ("PeerUp", options.peer_up),
        ("PeerDown", options.peer_down),
    ):
        if is_set:
            raise DaemonError(
                f"{key} is for tunnel up alone; take the line out of the conf, or: tunnel up {name}"
            )
    with hold(name):
        await trio.to_thread.run_sync(_refuse_taken, name)
        with unwrapped():
            async with trio.open_nursery() as nursery:
                await nursery.start(signals.follow, nursery.cancel_scope.cancel, _no_reload)
                await _set_up(config, program, echo, retries)
                nursery.cancel_scope.cancel()
                return
        raise DaemonError(f"{name} was stopped while starting; all changes were undone")


def _refuse_taken(name: str) -> None:
    record = host.load_record(name)
    if record is not None and record.owner == OWNER and host.is_standing(record):
        raise DaemonError(f"`{name}' already exists: {OWNER} down {name} takes it down")
    refuse_taken(name)


async def _resolve(config: TunnelConfig, retries: str) -> Mapping[PublicKey, Sequence[Endpoint]]:
    if not retries:
        return await resolve_all(config.peers)
    if retries == "infinity":
        return await resolve_all(config.peers, tries=None, bound=math.inf)
    if not retries.isascii() or not retries.isdecimal():
        raise DaemonError(
            f"WG_ENDPOINT_RESOLUTION_RETRIES is {retries!r}: it must be a number, or infinity"
        )
    return await resolve_all(config.peers, tries=1 + int(retries[:9]), bound=math.inf)


async def _set_up(config: TunnelConfig, program: str, echo: Echo, retries: str) -> None:
    name, interface = config.name, config.interface
    found = await _resolve(config, retries)
    endpoints = {key: addresses[0] for key, addresses in found.items()}
    around = await host_state.compute(config, endpoints.values())
    async with _shut(config, around.state, echo):
        await trio.to_thread.run_sync(_start, program, name, echo)
        async with _undone_on_failure(name, echo):
            await _run_hooks("PreUp", interface.pre_up, config, echo)
            await _configure(config, endpoints, around.mark, echo)
            await host_state.settle(
                config,
                around,
                endpoints.values(),
                moved=lambda now: _set_mark(name, now.mark, echo),
                apply=partial(host.apply, owner=OWNER, report=_step_printer(name, echo)),
            )
            await _run_hooks("PostUp", interface.post_up, config, echo)
            await trio.to_thread.run_sync(host.keep_hooks, name, _down_hooks(config))
            # To stop it after this point is what `down` is for.
            await trio.lowlevel.checkpoint_if_cancelled()


async def _set_mark(name: str, mark: int, echo: Echo) -> None:
    echo(f"[#] wg set {name} fwmark {mark}")
    await trio.to_thread.run_sync(uapi_client.set_fwmark, socket_path(name), mark)


def _down_hooks(config: TunnelConfig) -> host.DownHooks:
    interface = config.interface
    return host.DownHooks(
        interface.pre_down, interface.post_down, save_config=interface.save_config
    )


async def down(name: str, config: TunnelConfig | None, echo: Echo) -> None:
    """Take down what `up` set up, also where its program or interface has gone meanwhile.

    Without `config`, as when there is none any more, and where others can write it, by the hooks
    on record. Goes on after a failure, and raises the first one at the end, a TunnelError.
    """
    failures: list[Exception] = []
    if config is not None:
        redaction.hide_secrets(config)
        try:
            reload.check_hooks(config)
        except host.HostError as error:
            echo(f"Warning: {error}; the hooks of the time of up are run")
            config = None

    @contextlib.contextmanager
    def going_on() -> Iterator[None]:
        try:
            yield
        except TunnelError as error:
            failures.append(error)

    with _alone(name):
        record, is_there = await trio.to_thread.run_sync(_is_there, name)
        hooks = record.hooks if config is None else _down_hooks(config)
        if is_there:
            failures += await _run_down_hooks("PreDown", hooks, name, config, echo)
            if hooks.save_config:
                with going_on():
                    await _save_at_end(name, config, echo)
        # What is not there may be in another namespace: nothing of it is ours to touch then.
        with going_on() if is_there else contextlib.nullcontext():
            await _take_down(name, echo, is_there=is_there)
        failures += await _run_down_hooks("PostDown", hooks, name, config, echo)
    if failures:
        for other in failures[1:]:
            echo(f"{OWNER}: {other}")
        raise failures[0]


async def save(config: TunnelConfig, echo: Echo) -> None:
    """Write what runs into the conf, comments kept. Raises TunnelError."""
    redaction.hide_secrets(config)
    _, is_there = await trio.to_thread.run_sync(_is_there, config.name)
    if not is_there:
        raise DaemonError(f"`{config.name}' is gone; tunnel-wg-quick down {config.name}")
    await _save(config, echo)


async def _save_at_end(name: str, config: TunnelConfig | None, echo: Echo) -> None:
    """SaveConfig; where the conf cannot be written, a copy is kept, and DaemonError raised."""
    why: TunnelError = DaemonError(f"{name}.conf cannot be used")
    if config is not None:
        try:
            return await _save(config, echo)
        except TunnelError as error:
            why = error
    running = await _running(config or TunnelConfig(name, InterfaceConfig()))
    kept = await trio.to_thread.run_sync(write_copy, running)
    raise DaemonError(
        f"SaveConfig: {why}; what was running is in {kept} until the machine is restarted"
    )


async def _save(config: TunnelConfig, echo: Echo) -> None:
    echo(f"[#] save {config.path}")
    for note in (await write(await _running(config))).notes:
        echo(f"Warning: {note}")


async def _running(config: TunnelConfig) -> TunnelConfig:
    """The conf that would set up what runs."""
    device = await trio.to_thread.run_sync(uapi_client.get, socket_path(config.name))
    link = await trio.to_thread.run_sync(host.interface_status, config.name)
    record = await trio.to_thread.run_sync(host.load_record, config.name)
    rules = [item for item in record.items if isinstance(item, host.Rule)] if record else []
    return merge_running(
        config,
        link,
        device,
        auto_mark=rules[0].mark if rules else 0,
        names=await _names_that_stay(config, device),
    )


async def _names_that_stay(
    config: TunnelConfig, device: DeviceSnapshot
) -> Mapping[PublicKey, EndpointConfig]:
    """The names that still mean where their peers are, or that cannot be resolved now."""
    now = {peer.public_key: peer.endpoint for peer in device.peers}
    found: dict[PublicKey, EndpointConfig] = {}
    for peer in config.peers:
        name, at = peer.endpoint, now.get(peer.public_key)
        if name is None or name.address is not None or at is None:
            continue
        try:
            addresses = await resolve(name, tries=1)
        except ResolveError:
            found[peer.public_key] = name
        else:
            if any(at.same_remote(address) for address in addresses):
                found[peer.public_key] = name
    return found


async def _configure(
    config: TunnelConfig, endpoints: Mapping[PublicKey, Endpoint], mark: int, echo: Echo
) -> None:
    echo(f"[#] wg setconf {config.name} {config.path}")
    call = partial(uapi_client.set_config, socket_path(config.name), config, endpoints, fwmark=mark)
    try:
        await trio.to_thread.run_sync(call)
    except uapi_client.UapiClientError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise DaemonError(
            f"UDP port {config.interface.listen_port} is taken; stop what listens there, or choose "
            f"another as ListenPort ({place_of(config, 'ListenPort')})"
        ) from error


def _start(program: str, name: str, echo: Echo) -> None:
    echo(f"[#] {program} {name}")
    try:
        status = subprocess.run([program, name], stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        raise DaemonError(f"{program}: {error.strerror}") from error
    if status != 0:
        raise DaemonError(f"{program} {name} ended with status {status}")


@contextlib.asynccontextmanager
async def _shut(config: TunnelConfig, state: host.DesiredState, echo: Echo) -> AsyncIterator[None]:
    """The kill switch is there before all else, and stays when the tunnel does not come up, unless
    that was stopped.
    """
    if not config.interface.options.kill_switch:
        yield
        return
    echo("[#] nft -f - (kill switch)")
    await trio.to_thread.run_sync(host.shut, state)
    try:
        yield
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(host.remove, config.name)
        raise
    except BaseException as error:
        error.add_note(STAYS_SHUT.format(config.name))
        raise


@contextlib.asynccontextmanager
async def _undone_on_failure(name: str, echo: Echo) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as error:
        with trio.CancelScope(shield=True):
            try:
                await _take_down(name, echo, is_there=True, fail_closed=True)
            except TunnelError as failure:
                error.add_note(f"while undoing: {failure}")
        raise


async def _take_down(name: str, echo: Echo, *, is_there: bool, fail_closed: bool = False) -> None:
    """Undo what is recorded; delete our interface and wait for its program to be gone.

    With `fail_closed`, a kill switch stays.
    """
    remove = partial(host.remove, name, report=_step_printer(name, echo), fail_closed=fail_closed)
    try:
        await trio.to_thread.run_sync(remove)
    finally:
        if is_there:
            echo(f"[#] ip link delete dev {name}")
            await trio.to_thread.run_sync(host.delete_link, name)
            with trio.move_on_after(ENDING):
                while socket_path(name).exists():
                    await trio.sleep(0.02)


def _is_there(name: str) -> tuple[host.Record, bool]:
    """The record, and whether the interface that we set up is there still. Raises DaemonError when
    we set up none of that name, or `tunnel up` did.
    """
    record = host.load_record(name)
    if record is None or record.owner != OWNER:
        raise DaemonError(f"`{name}' is not an interface of {OWNER}")
    return record, host.is_standing(record)


@contextlib.contextmanager
def _alone(name: str) -> Iterator[None]:
    try:
        with hold(name):
            yield
    except AlreadyRunningError:
        raise DaemonError(f"`{name}' is not an interface of {OWNER}; tunnel down {name}") from None


async def _run_hooks(kind: str, commands: Sequence[str], config: TunnelConfig, echo: Echo) -> None:
    if commands:
        run = partial(host.run_hooks, hide=redaction.hook_hider(config), output=STDERR)
        call = partial(run, kind, commands, config.name, _hook_printer(kind, echo))
        await trio.to_thread.run_sync(call)


async def _run_down_hooks(
    kind: Literal["PreDown", "PostDown"],
    hooks: host.DownHooks,
    name: str,
    config: TunnelConfig | None,
    echo: Echo,
) -> list[host.HostError]:
    run = partial(host.run_down_hooks, hide=redaction.hook_hider(config), output=STDERR)
    return await trio.to_thread.run_sync(run, kind, hooks, name, _hook_printer(kind, echo))


def _hook_printer(kind: str, echo: Echo) -> Echo:
    """Echoes the command of a hook as a step."""
    start = f"{kind}: "

    def tell(line: str) -> None:
        echo(f"[#] {line.removeprefix(start)}" if line.startswith(start) else line)

    return tell


def _step_printer(name: str, echo: Echo) -> Callable[[str, host.Item], None]:
    """Echoes the steps of the host room as the commands that would take them."""

    def tell(verb: str, item: host.Item) -> None:
        echo(f"[#] {_command(verb, item, name)}")

    return tell


def _command(verb: str, item: host.Item, name: str) -> str:
    match item:
        case host.Address(value):
            return f"ip -{value.version} address {verb} {value} dev {name}"
        case host.Link(mtu):
            return f"ip link set {f'mtu {mtu} up' if verb == 'add' else 'down'} dev {name}"
        case host.Route(destination, table):
            place = "" if table == host.MAIN_TABLE else f" table {table}"
            return f"ip -{destination.version} route {verb} {destination} dev {name}{place}"
        case host.Rule():
            return (
                f"ip -{item.version} rule {verb} {'not ' if item.invert else ''}"
                f"fwmark {item.mark} table {item.table} priority {item.priority}"
                + (" suppress_prefixlength 0" if item.suppress_default else "")
            )
        case _:
            return f"{verb} {item}"


async def _no_reload() -> None:
    """SIGHUP from elsewhere than the terminal: there is nothing to read again."""
