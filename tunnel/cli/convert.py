"""`tunnel import` and `tunnel export`: confs from and for other programs."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypedDict

import typer

from tunnel import convert
from tunnel.cli.common import (
    EXIT_USAGE,
    Json,
    Name,
    complain,
    conf_of_running,
    fail,
    load_config,
    print_json,
    warn_if_others_can_read,
    write_new,
)
from tunnel.config import ConfigErrors, Problem, files
from tunnel.config.files import folders
from tunnel.config.lookalikes import foreign_bytes
from tunnel.config.problems import Mistake, escape
from tunnel.convert import ForeignFile, Lost, Output

app = typer.Typer()


class FormatName(StrEnum):
    """The formats, as `tunnel.convert` has them."""

    NETWORKMANAGER = "networkmanager"
    NETWORKD = "networkd"
    OPENWRT = "openwrt"
    ROUTEROS = "routeros"
    VYOS = "vyos"
    WG_QUICK = "wg-quick"


_NAMES = "`networkmanager`, `networkd`, `openwrt`, `routeros`, `vyos` or `wg-quick`."
Strict = Annotated[
    bool, typer.Option("--strict", help="Fail, and write nothing, if anything cannot be converted.")
]


@app.command("import")
def import_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="The files of one tunnel; `-` is standard input."),
    ],
    source: Annotated[
        FormatName | None,
        typer.Option(
            "--from", metavar="FORMAT", help=f"{_NAMES} Default: what the content looks like."
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="NEW-NAME", help="The tunnel's name. Default: as there.")
    ] = "",
    interface: Annotated[
        str, typer.Option(metavar="INTERFACE", help="Which tunnel of a file with several.")
    ] = "",
    key: Annotated[
        Path | None,
        typer.Option(
            "--private-key-file",
            metavar="FILE",
            help="Where the private key is, if it is not in FILE.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="Where to write. Default: /etc/tunnel/NAME.conf; `-` prints.",
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Make a conf from the configuration of another program.

    Reads NetworkManager, systemd-networkd, OpenWrt, MikroTik RouterOS, VyOS and wg-quick. What
    cannot be converted is listed on standard error, with its line, and so are the hooks of the new
    conf: shell commands, to be read before `tunnel up`. The conf has mode 0600; an existing file is
    not overwritten.

    Examples:

        cd /etc/systemd/network; tunnel import wg0.netdev wg0.network
        tunnel import router.rsc --interface wireguard1 --name office
        tunnel import office.nmconnection -o -
    """
    try:
        found = convert.read(
            [_source(path) for path in files],
            form=convert.FORMATS[source] if source is not None else None,
            interface=interface,
            name=name,
            key_file=key.absolute() if key is not None else None,
        )
    except ConfigErrors as errors:
        complain(errors)
        raise typer.Exit(EXIT_USAGE) from None
    for warning in found.config.warnings:
        complain(f"warning: {warning}", logging.WARNING)
    if hooks := found.config.interface.hooks:
        # They come from somebody else.
        lines = "\n".join(f"  {name} = {command}" for name, command in hooks)
        complain(f"shell commands, which the tunnel runs as root:\n{lines}", logging.WARNING)
    conf = found.config.name
    home = folders()[0] if output is None else output
    target = home / f"{conf}.conf" if output is None or output.is_dir() else output
    places = [] if str(target) == "-" else [target]
    made = [convert.Output(f"{conf}.conf", found.text)]
    _deliver(found.form.name, conf, made, places, found.lost, strict=strict, as_json=as_json)
    if places and not as_json and target.suffix == ".conf":
        is_path = output is None or "/" in str(target)
        shown = conf if output is None else target if is_path else f"./{target}"
        typer.echo(f"start it with: tunnel up {shown}", err=True)


@app.command()
def export(
    conf: Name,
    form: Annotated[FormatName, typer.Option("--to", metavar="FORMAT", help=_NAMES)],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="PATH", help="A new file, or a folder. Default: print."
        ),
    ] = None,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Write a conf as the configuration of another program.

    What that program has no setting for, such as hooks, is listed on standard error. The output
    contains the private key; files with keys have mode 0600, and no existing file is overwritten.

    Examples:

        tunnel export office --to networkd -o /etc/systemd/network
        tunnel export office --to routeros -o office.rsc
    """
    loaded = load_config(conf_of_running(conf) or conf)
    try:
        written = convert.write(loaded, convert.FORMATS[form])
    except ConfigErrors as errors:
        complain(errors)
        raise typer.Exit(EXIT_USAGE) from None
    outputs = written.outputs
    if output is None or str(output) == "-":
        places: list[Path] = []
    elif output.is_dir():
        places = [output / each.name for each in outputs]
    elif len(outputs) == 1:
        places = [output]
    else:
        names = " and ".join(each.name for each in outputs)
        fail(f"{output} is not a folder, but there are two files to write, {names}", EXIT_USAGE)
    _deliver(form, loaded.name, outputs, places, written.lost, strict=strict, as_json=as_json)


def _source(path: Path) -> ForeignFile:
    """A foreign file. Raises ConfigErrors."""
    try:
        if str(path) == "-":
            if sys.stdin is None:
                raise Mistake("is closed", "redirect standard input from a file")
            data, folder = sys.stdin.buffer.read(files.CONF_LIMIT), Path.cwd()
        else:
            data, folder = files.read(path, limit=files.CONF_LIMIT).data, path.parent.absolute()
        foreign = foreign_bytes(data)
        if foreign is not None:
            raise foreign
    except Mistake as mistake:
        fault = f"the file {mistake.fault}"
        raise ConfigErrors([Problem(escape(str(path)), None, "", fault, mistake.remedy)]) from None
    return ForeignFile(
        str(path), data.decode("utf-8", "surrogateescape").removeprefix("\ufeff"), folder
    )


def _deliver(
    form: str,
    name: str,
    outputs: Sequence[Output],
    places: Sequence[Path],
    lost: Sequence[Lost],
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Write the outputs to their places, or print them without; and say what is not carried."""
    if lost and not as_json:
        complain("not carried:\n" + "\n".join(f"  {each}" for each in lost), logging.WARNING)
    if lost and strict:
        if as_json:
            print_json(_as_json(form, name, (), (), lost))
        fail("--strict: something is not carried, and nothing was written")
    if places:
        if places[0].parent == folders()[0]:
            try:
                # It is there where the package made it.
                places[0].parent.mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                fail(f"cannot write {places[0]}: {error.strerror}; nothing was written")
        pairs = list(zip(places, outputs, strict=True))
        texts = {place: each.text for place, each in pairs}
        write_new(texts, public=[place for place, each in pairs if not each.secret])
    else:
        warn_if_others_can_read()
    if as_json:
        print_json(_as_json(form, name, outputs, places, lost))
    elif places:
        typer.echo(f"wrote {' and '.join(map(str, places))}", err=True)
    else:
        # As the files would be written, whatever the locale.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
        for each in outputs:
            if len(outputs) > 1:
                typer.echo(f"# {each.name}")
            typer.echo(each.text, nl=False)


class ConvertedFile(TypedDict):
    """A file of a conversion: where it was written, or its text if it was not."""

    name: str
    path: str | None
    text: str | None


class ConversionReport(TypedDict):
    """What became of a conf, or of the files of another program."""

    format: str
    name: str
    files: list[ConvertedFile]
    not_carried: list[Lost]


def _as_json(
    form: str,
    name: str,
    outputs: Sequence[Output],
    places: Sequence[Path],
    lost: Sequence[Lost],
) -> ConversionReport:
    files: list[ConvertedFile] = [
        {
            "name": each.name,
            "path": str(places[number]) if places else None,
            "text": None if places else each.text,
        }
        for number, each in enumerate(outputs)
    ]
    return {"format": form, "name": name, "files": files, "not_carried": list(lost)}
