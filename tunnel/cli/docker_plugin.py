"""`tunnel docker-plugin`: the network driver that Docker asks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tunnel.cli.common import fail, need_folder_of
from tunnel.errors import TunnelError
from tunnel.linux.files import state_folder
from tunnel.log import output

app = typer.Typer()

_SOCKET = Path("/run/docker/plugins/tunnel.sock")
"""Where Docker looks; its folder is not there before there is a plugin."""


@app.command("docker-plugin")
def docker_plugin(
    listen: Annotated[
        Path,
        typer.Option("--socket", metavar="PATH", help="The socket on which Docker calls it."),
    ] = _SOCKET,
    docker: Annotated[
        str,
        typer.Option("--docker", metavar="PATH", help="The API socket of Docker."),
    ] = "/run/docker.sock",
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="DIR", help="The folder for its state."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Serve Docker networks whose containers reach each other through a tunnel, on all its hosts.

    See docs/containers.md. A network of the tunnel `office`, on each host:

        docker network create -d tunnel -o conf=office \\
            --ipam-driver tunnel --ipam-opt conf=office \\
            --subnet 10.90.0.0/24 containers
    """
    if listen.parent != _SOCKET.parent:
        need_folder_of(listen)
    output.log_to_stream(verbose=verbose)
    from tunnel.containers.docker import plugin

    folder = state or state_folder(plugin.STATE)
    try:
        plugin.run(plugin.PluginOptions(listen, docker.removeprefix("unix://"), folder))
    except TunnelError as error:
        output.flush()
        fail(error)
