"""`tunnel genkey`, `pubkey`, `genpsk`: what `wg` has of that name, where there is no `wg`.

And `tunnel strip`, which makes a conf fit for `wg`.
"""

from __future__ import annotations

import os
import sys
from typing import BinaryIO, Final, NoReturn

import typer

from tunnel import config
from tunnel.cli.common import Name, conf_of_running, load_config, warn_if_others_can_read

app = typer.Typer()

_KEY_LENGTH: Final = 44
_SPACE: Final = b" \t\n\v\f\r\0"
"""What may follow a key; `wg` forgives NUL as well."""
_AS_PRINTED: Final = "a private key is 44 characters, as `tunnel genkey` prints them"


@app.command()
def genkey() -> None:
    """Print a new private key: the secret that makes this host what it is to its peers.

    It goes behind PrivateKey in the conf, or into a file for PrivateKeyFile, and
    never to another host:

        (umask 077; tunnel genkey > private.key)

    What the peers need is the public key that belongs to it: `tunnel pubkey`.
    """
    warn_if_others_can_read()
    _print(config.PrivateKey.from_random(os.urandom(32)).to_base64())


@app.command()
def genpsk() -> None:
    """Print a new preshared key: one more secret, shared by the two ends of a tunnel.

    It goes behind PresharedKey on both ends. A tunnel is safe without; with it,
    what is recorded today stays secret even if the other keys are broken one day.

    Example:

        (umask 077; tunnel genpsk > preshared.key)
    """
    warn_if_others_can_read()
    _print(config.PresharedKey.from_bytes(os.urandom(32)).to_base64())


@app.command()
def pubkey() -> None:
    """Read a private key from standard input and print the public key that belongs to it.

    The private key is what `tunnel genkey` printed:

        tunnel pubkey < private.key

    The public key is no secret: peers write it behind PublicKey.
    """
    # Closed by the shell (`<&-`), it is None whatever its type says.
    if sys.stdin is None:
        _refuse_key("Key is not the correct length or format", "standard input is closed")
    if sys.stdin.isatty():
        typer.echo("Paste the private key, then press Enter and Ctrl-D.", err=True)
    text = _read_key(sys.stdin.buffer)
    try:
        # wg makes no exception of the all-zero key, and neither does this.
        private = config.PrivateKey.from_base64(text.decode("latin-1"))
    except config.KeyFormatError:
        found = (
            f"standard input holds {len(text)} bytes"
            if len(text) < _KEY_LENGTH
            else "these are not"
        )
        _refuse_key("Key is not the correct length or format", found)
    _print(private.public_key().to_base64())


@app.command()
def strip(
    conf: Name,
) -> None:
    """Print a conf without the keys that plain `wg` does not know.

    The name of a running tunnel means the conf it was set up from, wherever that lies.
    What is left are keys and peers, for instance for:

        wg syncconf office <(tunnel strip office)

    The output holds secrets in clear, those from key files too.
    """
    loaded = load_config(conf_of_running(conf) or conf)
    warn_if_others_can_read()
    _print(config.strip(loaded).removesuffix("\n"))


def _read_key(stream: BinaryIO) -> bytes:
    """Read as `wg` does: 44 bytes, then nothing but white space until the end."""
    try:
        text = stream.read(_KEY_LENGTH)
        # In blocks and no further than the first stray byte: the input may never end.
        while rest := stream.read(4096) if len(text) == _KEY_LENGTH else b"":
            if rest.strip(_SPACE):
                _refuse_key("Trailing characters found after key", "there is more")
    except OSError as error:
        _refuse_key("Key is not the correct length or format", f"{error.strerror}")
    return text


def _refuse_key(reason: str, found: str) -> NoReturn:
    """Leave with `wg`'s own words, for scripts, and with the remedy, for people."""
    typer.echo(f"tunnel: {reason}: {found}; {_AS_PRINTED}", err=True)
    raise typer.Exit(1)


def _print(text: str) -> None:
    """Print a result; one that has nowhere to go is lost, and that is a failure."""
    if sys.stdout is None:
        typer.echo("tunnel: cannot write the output: standard output is closed", err=True)
        raise typer.Exit(1)
    sys.stdout.write(text + "\n")
