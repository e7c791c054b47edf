"""`tunnel genkey`, `pubkey` and `genpsk`: the same as `wg`'s, for machines that have none."""

from __future__ import annotations

import os
import stat
import sys

import typer

from tunnel import config

app = typer.Typer()


@app.command()
def genkey() -> None:
    """Print a new private key.

    Keep it from others:  (umask 077; tunnel genkey > private.key)
    """
    _warn_if_others_can_read()
    typer.echo(config.PrivateKey.from_random(os.urandom(32)).to_base64())


@app.command()
def genpsk() -> None:
    """Print a new preshared key: one more secret that both ends of a tunnel may share."""
    _warn_if_others_can_read()
    typer.echo(config.PresharedKey.from_bytes(os.urandom(32)).to_base64())


@app.command()
def pubkey() -> None:
    """Read a private key from standard input and print its public key.

    Give the public key to your peers:  tunnel pubkey < private.key
    """
    text = sys.stdin.read(1024).strip()
    try:
        private = config.PrivateKey.from_base64(text)
    except config.KeyFormatError:
        typer.echo(
            "tunnel: standard input holds no private key: 44 characters of base64 are expected, "
            "as `tunnel genkey` prints them",
            err=True,
        )
        raise typer.Exit(1) from None
    typer.echo(private.public_key().to_base64())


def _warn_if_others_can_read() -> None:
    """As wg does: a secret written to a file that is open to all is worth a word."""
    try:
        status = os.fstat(sys.stdout.fileno())
    except (OSError, ValueError):
        return
    if stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_IRWXO | stat.S_IRWXG):
        typer.echo(
            "warning: others can read the file this key is written to; use umask 077", err=True
        )
