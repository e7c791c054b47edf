"""`tunnel firewall`: a tunnel's one nftables table, as it is or as `tunnel up` would set it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypedDict

import typer

from tunnel.cli.common import Json, Name, fail, interface_name, load_config, print_json
from tunnel.errors import TunnelError

app = typer.Typer()


@app.command()
def firewall(
    conf: Name,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what `tunnel up` would set, from the conf.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a tunnel's firewall and address translation: nft's rules, and packets counted.

    Each rule has the entry of the conf as its comment. Kernel settings that go with the rules come
    first, as comments. The output of --dry-run can be given to `nft -f -`.

    Example:

        tunnel firewall office
    """
    try:
        text, sysctls = _planned(conf) if dry_run else _standing(interface_name(conf))
    except TunnelError as error:
        fail(error)
    if as_json:
        found: Rules = {"rules": text.splitlines(), "sysctls": dict(sysctls)}
        print_json(found)
        return
    for name, value in sysctls:
        typer.echo(f"# sysctl -w {name}={value}")
    typer.echo(text, nl=False)


class Rules(TypedDict):
    """nftables rules, one a line, and the sysctls that go with them by name."""

    rules: list[str]
    sysctls: dict[str, str]


def _standing(name: str) -> tuple[str, list[tuple[str, str]]]:
    from tunnel import host

    record = host.load_record(name)
    sysctls = _sysctls(record.items) if record is not None and record.is_here() else []
    has_rules = host.has_firewall(name)
    if not has_rules and not sysctls:
        fail(
            f"{name} has no firewall here: it is for tunnels that are up, and have a /0 in "
            "AllowedIPs or a gateway's keys in [Tunnel] (docs/gateway.md); "
            "--dry-run shows what a conf would set"
        )
    return host.list_firewall(name) if has_rules else "", sysctls


def _planned(conf: str) -> tuple[str, list[tuple[str, str]]]:
    import trio

    from tunnel import host
    from tunnel.daemon import host_state

    config = load_config(conf)
    state = trio.run(host_state.compute, config, ()).state
    text = host.render_firewall(config.name, state.firewall) if state.firewall else ""
    return text, _sysctls(state.sysctls)


def _sysctls(items: Iterable[object]) -> list[tuple[str, str]]:
    from tunnel.host.state import Sysctl

    return [(item.name, item.value) for item in items if isinstance(item, Sysctl)]
