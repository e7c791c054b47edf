"""Confs from and for other programs, with a list of what is not carried.

`read` takes the files of NetworkManager, systemd-networkd, OpenWrt, RouterOS, VyOS or wg-quick,
`write` makes them. FORMATS is the one table of both.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tunnel.config import TunnelConfig, dump, parse
from tunnel.config.lookalikes import foreign_text
from tunnel.config.problems import Mistake, escape
from tunnel.config.render import render_line
from tunnel.config.values import check_name
from tunnel.convert.draft import Draft, FileLine, ForeignFile, Lost, refused
from tunnel.convert.format import Format, Output, Written, lost_keys
from tunnel.convert.networkd import NETWORKD
from tunnel.convert.networkmanager import NETWORKMANAGER
from tunnel.convert.openwrt import OPENWRT
from tunnel.convert.routeros import ROUTEROS
from tunnel.convert.vyos import VYOS
from tunnel.convert.wgquick import WG_QUICK

__all__ = [
    "FORMATS",
    "ForeignFile",
    "Format",
    "Imported",
    "Lost",
    "Output",
    "Written",
    "read",
    "write",
]

FORMATS: Final = {
    form.name: form for form in (NETWORKMANAGER, NETWORKD, OPENWRT, ROUTEROS, VYOS, WG_QUICK)
}
"""Each format by its name, in the order in which they are tried on a file."""


class Imported(NamedTuple):
    """A conf that was made of foreign files: its format, its text, and what is not in it."""

    form: Format
    config: TunnelConfig
    text: str
    lost: tuple[Lost, ...]


def read(
    sources: Sequence[ForeignFile],
    *,
    form: Format | None = None,
    interface: str = "",
    name: str = "",
    key_file: Path | None = None,
) -> Imported:
    """The conf that the files mean. Raises ConfigErrors that names file and line, and nothing else.

    `interface` is the one to take of a file with several, `name` what it is called from now on,
    `key_file` an absolute path, where the private key is.
    """
    found = form or _recognised(sources)
    _refuse_others(sources, found)
    draft = found.read(sources, interface)
    called = name or draft.name or Path(sources[0].name).stem
    try:
        check_name(called)
    except Mistake as mistake:
        fault = f"the name of an interface {mistake.fault}"
        raise refused(draft.interface.place, fault, "choose one with --name") from None
    if draft.text is not None:
        text = _with_key_file(draft, draft.text, key_file)
        config = parse(text, name=called, source=sources[0].name, folder=sources[0].folder)
        return Imported(found, config, text, tuple(draft.lost))
    if key_file is not None:
        draft.interface.clear("PrivateKey")
        draft.interface.set("PrivateKeyFile", str(key_file), draft.interface.place)
    made = dump(draft.config(called, sources[0].folder))
    files = ", ".join(dict.fromkeys(escape(Path(source.name).name) for source in sources))
    text = f"# Imported from {files} ({found.name}).\n{made}"
    config = parse(text, name=called, source=f"{called}.conf", folder=sources[0].folder)
    return Imported(found, config, text, tuple(draft.lost))


def write(config: TunnelConfig, form: Format) -> Written:
    """The files that mean the same as `config`, as far as the format can say it.

    Raises ConfigErrors for a value that no file can hold.
    """
    written = form.write(config)
    return Written(written.outputs, (*lost_keys(config, form), *written.lost))


def _refuse_others(sources: Sequence[ForeignFile], found: Format) -> None:
    """Refuse a file that is plainly of another format than `found`: it would be ignored."""
    for source in sources if len(sources) > 1 else ():
        if found.sign.search(source.text):
            continue
        fault = ""
        for other in FORMATS.values():
            if other.sign.search(source.text):
                fault = f"this file is of {other.name}, and another one of {found.name}"
                break
        if not fault and found.beside is not None and not found.beside.search(source.text):
            fault = f"this file is not of {found.name}, but another one is"
        if fault:
            raise refused(FileLine(source.name), fault, "import one at a time")


def _recognised(sources: Sequence[ForeignFile]) -> Format:
    for form in FORMATS.values():
        if any(form.sign.search(source.text) for source in sources):
            return form
    for source in sources:
        foreign = foreign_text(source.text)
        if foreign is not None:
            line, mistake = foreign
            raise refused(FileLine(source.name, line), f"this {mistake.fault}", mistake.remedy)
    names = ", ".join(FORMATS)
    remedy = f"name the format, if it is one of these: --from {names}"
    raise refused(FileLine(sources[0].name), "the format of this file is not known", remedy)


def _with_key_file(draft: Draft, text: str, key_file: Path | None) -> str:
    """The text with the private key in that file, in place of a key in itself."""
    if key_file is None:
        return text
    lines = text.split("\n")
    place = draft.interface.place
    entry = render_line(draft.name, ("PrivateKeyFile", str(key_file)))
    if draft.interface.get("PrivateKey") is not None:
        raise refused(place, "the conf has a PrivateKey", "leave out --private-key-file")
    lines.insert(place.line or 0, entry)
    return "\n".join(lines)
