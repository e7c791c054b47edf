"""Text to TunnelConfig. Every mistake of a conf is reported in one go, in ConfigErrors.

lexer.py makes tokens of lines, sections.py puts them under their sections, build.py turns the
values (values.py) into the dataclasses of model.py, and checks.py looks at them together.
"""

import os
from pathlib import Path

from tunnel.config import checks, files
from tunnel.config.build import Builder
from tunnel.config.keys import check_name
from tunnel.config.lexer import tokenize
from tunnel.config.model import TunnelConfig
from tunnel.config.problems import ConfigErrors, Mistake, Problems, quote
from tunnel.config.sections import sort

__all__ = ["decode", "load", "parse"]


def load(path: str | os.PathLike[str]) -> TunnelConfig:
    """Read the conf at `path`, which is named INTERFACE.conf.

    Doubts are in `warnings` of the result. Raises ConfigErrors for everything else that is
    wrong, a file that cannot be read included.
    """
    path = Path(path)
    problems = Problems(str(path))
    try:
        if path.suffix != ".conf":
            raise Mistake(
                "a name ending in .conf", "rename it to INTERFACE.conf", found=quote(path.name)
            )
        check_name(path.stem)
        content = files.read(path, limit=files.CONF_LIMIT, what="a conf")
    except Mistake as mistake:
        raise _whole_file(mistake, problems) from None
    text = decode(content.data, problems)
    return _read(text, path.stem, path.parent, problems, path=path, status=content.status)


def parse(
    text: str, *, name: str, source: str = "conf", folder: str | os.PathLike[str] = "."
) -> TunnelConfig:
    """Read the conf in `text` for an interface called `name`.

    `source` stands for the file's name in messages; key files are looked for in `folder`.
    Raises ConfigErrors and nothing else, whatever the text.
    """
    problems = Problems(source)
    try:
        check_name(name)
    except Mistake as mistake:
        raise _whole_file(mistake, problems) from None
    return _read(text, name, Path(folder), problems)


def decode(data: bytes, problems: Problems) -> str:
    """Decode the bytes of a conf. Raises ConfigErrors on anything but UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        problems.error(
            data.count(b"\n", 0, error.start) + 1,
            "",
            f"a byte 0x{data[error.start]:02x} that is no UTF-8",
            "text in UTF-8",
            "save the file as UTF-8 in your editor, or convert it by iconv",
        )
    raise ConfigErrors(problems.errors)


def _whole_file(mistake: Mistake, problems: Problems) -> ConfigErrors:
    problems.error(None, "", mistake.found or "nothing", mistake.expected, mistake.remedy)
    return ConfigErrors(problems.errors)


def _read(
    text: str,
    name: str,
    folder: Path,
    problems: Problems,
    *,
    path: Path | None = None,
    status: os.stat_result | None = None,
) -> TunnelConfig:
    text = text.removeprefix("\ufeff")  # editors of another system put it there
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        problems.error(
            line, "", "a NUL character", "plain text", "check that this file is a conf at all"
        )
        raise ConfigErrors(problems.errors)
    sections = sort(tokenize(text), problems)
    builder = Builder(sections, folder, problems)
    interface = builder.interface()
    peers = []
    for group in sections.peers:
        peer = builder.peer(group)
        if peer is not None:
            peers.append((group.get("publickey")[-1].line, peer))
    own_key = None if interface is None else interface.private_key.public_key()
    checks.check_peers(peers, own_key, problems)
    bare_peers = tuple(peer for _, peer in peers)
    if interface is not None:
        mtu = sections.interface.get("mtu")
        checks.check_mtu(interface, bare_peers, mtu[-1].line if mtu else None, problems)
        if path is not None and status is not None:
            checks.check_permissions(interface, bare_peers, path, status, problems)
    problems.raise_if_any()
    if interface is None:
        # A missing key was reported above; this states it to the type checker.
        raise ConfigErrors(problems.errors)
    return TunnelConfig(name, interface, bare_peers, path, status, problems.all_warnings())
