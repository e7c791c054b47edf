"""`tunnel qr`: a conf as the QR code that the WireGuard app of a phone scans."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from tunnel.cli.common import (
    EXIT_USAGE,
    Name,
    complain,
    conf_of_running,
    fail,
    load_config,
    warn_if_others_can_read,
    write_new,
)
from tunnel.config import TunnelConfig
from tunnel.config.phone import phone_code
from tunnel.config.problems import Mistake

if TYPE_CHECKING:
    import segno

app = typer.Typer()

_BORDER = 4
"""Modules of white around it, as ISO/IEC 18004 asks for."""

_SCALE = 8
"""Pixels of a module in a PNG."""


@app.command()
def qr(
    conf: Name,
    png: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a new PNG file, mode 0600.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write it to a new SVG file, mode 0600.")
    ] = None,
) -> None:
    """Show a conf as a QR code, for the WireGuard app of a phone.

    The code has the private key of the conf: scan it with one device only, and let no other
    camera see it. Settings that the app does not have, such as hooks, are left out, and named on
    standard error.

    Examples:

        tunnel qr ./phone.conf
        tunnel qr ./phone.conf --png phone.png
    """
    show(load_config(conf_of_running(conf) or conf), png=png, svg=svg)


def show(config: TunnelConfig, *, png: Path | None = None, svg: Path | None = None) -> None:
    """Draw the QR code of a conf on standard output, or write it into files; leaves on failure."""
    try:
        code, left_out = phone_code(config)
    except Mistake as mistake:
        fail(f"{config.name} {mistake.fault}: {mistake.remedy}", EXIT_USAGE)
    if left_out:
        complain(
            f"left out, as the app does not know it: {', '.join(left_out)}",
            logging.INFO,
        )
    if not any(peer.endpoint for peer in config.peers):
        complain(
            "warning: no peer has an Endpoint: a phone cannot start a handshake", logging.WARNING
        )
    for path, kind in ((png, "png"), (svg, "svg")):
        if path is not None:
            data = io.BytesIO()
            code.save(data, kind=kind, scale=_SCALE, border=_BORDER)
            write_new({path: data.getvalue()})
            typer.echo(f"wrote {path}", err=True)
    if png is None and svg is None:
        _draw(code)


def _draw(code: segno.QRCode) -> None:
    rows = [list(row) for row in code.matrix_iter(border=_BORDER)]
    width = len(rows[0])
    console = Console(stderr=False)
    if console.is_terminal and console.width < width:
        fail(
            f"the QR code is {width} columns wide, and this terminal {console.width}: make the "
            "terminal wider, or write a picture with --png FILE",
            EXIT_USAGE,
        )
    warn_if_others_can_read()
    if len(rows) % 2:
        rows.append([0] * width)
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        blocks = (" ▄▀█"[2 * upper + lower] for upper, lower in zip(above, below, strict=True))
        # Black on white whatever the colours of the terminal are; without them, in a pipe.
        typer.echo(typer.style("".join(blocks), fg=(0, 0, 0), bg=(255, 255, 255)))
