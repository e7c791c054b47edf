"""`tunnel attach` and `detach`: the interface in the network namespace of a container."""

from __future__ import annotations

from typing import Annotated

import typer

from tunnel.cli.common import EXIT_USAGE, Name, fail, interface_name, refusals_printed
from tunnel.control import run_folder
from tunnel.control.client import TunnelClient

app = typer.Typer()


@app.command()
def attach(
    name: Name,
    container: Annotated[
        str, typer.Option("--container", metavar="NAME|ID", help="A container on this host.")
    ] = "",
    pid: Annotated[
        int,
        typer.Option(
            "--pid", metavar="PID", show_default=False, help="A process in the namespace."
        ),
    ] = 0,
    netns: Annotated[
        str, typer.Option("--netns", metavar="NAME", help="A name that `ip netns list` shows.")
    ] = "",
    docker_host: Annotated[
        str,
        typer.Option(
            "--docker-host",
            metavar="unix://PATH",
            envvar="DOCKER_HOST",
            help="The API socket of Docker or podman.",
        ),
    ] = "",
) -> None:
    """Move a tunnel into the network of a container, and keep it there.

    A tunnel that is down is attached when it comes up.

    Its addresses, routes, rules and name servers move with it; its UDP socket stays on the host.
    When the container or the daemon has been restarted, the tunnel is attached again, until
    `tunnel detach`.

    Example:

        tunnel attach office --container web
    """
    targets = {"container": container, "pid": str(pid or ""), "netns": netns}
    given = [(kind, value) for kind, value in targets.items() if value]
    if len(given) != 1:
        fail("give one of --container, --pid and --netns", EXIT_USAGE)
    interface = interface_name(name)
    if interface in run_folder.running_names():
        with refusals_printed(), TunnelClient(interface) as client:
            attached = client.attach(*given[0], docker_host)
        target, notes = attached.target, attached.notes
        typer.echo(f"{interface} is attached to {target}")
    else:
        target, notes = _record(interface, *given[0], docker_host)
        typer.echo(f"{interface} is not up; it will come up attached to {target}")
    for note in notes:
        typer.echo(f"note: {note}")


def _record(interface: str, kind: str, name: str, docker_host: str) -> tuple[str, tuple[str, ...]]:
    """Have a tunnel that is down come up attached: to what, in words, and what is to be known."""
    import trio

    from tunnel.daemon import attach_target
    from tunnel.errors import TunnelError

    try:
        target, _, notes = trio.run(attach_target.choose, kind, name, docker_host)
        attach_target.save(interface, target)
    except TunnelError as error:
        fail(error)
    return str(target), notes


@app.command()
def detach(name: Name) -> None:
    """Undo `tunnel attach`: the interface returns to this host. Also for a tunnel that is down.

    Example:

        tunnel detach office
    """
    interface = interface_name(name)
    if interface not in run_folder.running_names():
        # Late, as other commands should not wait for it.
        from tunnel.daemon import attach_target
        from tunnel.errors import DaemonError

        try:
            target = attach_target.load(interface)
            attach_target.save(interface, None)
        except DaemonError as error:
            fail(error)
        if target is None:
            fail(f"{interface} is not attached, and not up")
        typer.echo(f"{interface} will not be attached to {target} again")
        return
    with refusals_printed(), TunnelClient(interface) as client:
        detached = client.detach()
    typer.echo(f"{interface} is detached from {detached.target}")
