"""Text to TunnelConfig. Every error of a conf is reported in one go, in ConfigErrors.

lexer.py sorts the lines under their sections, `_Reader` reads their values as the table of keys
(model.py) says, and checks.py looks at them together.
"""

import os
import re
import shlex
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from tunnel.config import checks, files, values
from tunnel.config.expiry import expiry
from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.lexer import HOOKS, Entry, Kind, SectionLines, Token, sort, tokenize
from tunnel.config.lookalikes import explain, foreign_bytes, foreign_text
from tunnel.config.model import InterfaceConfig, PeerConfig, Section, TunnelConfig, TunnelOptions
from tunnel.config.problems import ConfigErrors, Mistake, Problems, escape, quote

__all__ = ["load", "parse", "place_of", "read_text"]

_KEY_LIMIT = 4096
"""Bytes of the largest key file read; a key and its newline are 45."""

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")
"""What "surrogateescape" makes of a byte that is not valid UTF-8."""


def load(path: str | os.PathLike[str]) -> TunnelConfig:
    """Read the conf at `path`, which is named INTERFACE.conf.

    Doubts are in `warnings` of the result. Raises ConfigErrors for everything else that is
    wrong, a file that cannot be read included.
    """
    path = Path(path)
    problems = Problems(str(path))
    if path.suffix != ".conf":
        problems.error(None, "", *_other_file(path))
        raise problems.failure()
    _check_name(path.stem, problems)
    text, status = read_text(path, problems)
    return _read(text, path.stem, path.parent, problems, path=path, status=status)


def parse(
    text: str, *, name: str, source: str = "conf", folder: str | os.PathLike[str] = "."
) -> TunnelConfig:
    """Read the conf in `text` for an interface called `name`.

    `source` stands for the file's name in messages; key files are looked for in `folder`.
    Raises ConfigErrors and nothing else, whatever the text.
    """
    problems = Problems(source)
    _check_name(name, problems)
    return _read(text, name, Path(folder), problems)


def place_of(config: TunnelConfig, name: str) -> str:
    """Where the key `name` stands last in the file of `config`: FILE:LINE, or FILE if it is gone.

    Looks at the file again; "" if the conf came from none.
    """
    if config.path is None:
        return ""
    try:
        text, _ = read_text(config.path, Problems(str(config.path)))
    except ConfigErrors:
        return str(config.path)
    lines = [token.line for token in tokenize(text) if token.name.lower() == name.lower()]
    return f"{config.path}:{lines[-1]}" if lines else str(config.path)


def read_text(path: Path, problems: Problems) -> tuple[str, os.stat_result]:
    """The text of the conf at `path` and its status as it was read. Raises ConfigErrors."""
    try:
        data, status = files.read(path, limit=files.CONF_LIMIT)
    except Mistake as mistake:
        problems.error(None, "", f"the file {mistake.fault}", mistake.remedy)
        raise problems.failure() from None
    foreign = foreign_bytes(data)
    if foreign is not None:
        problems.error(None, "", f"the file {foreign.fault}", foreign.remedy)
        raise problems.failure()
    # Comments may be in any encoding, as for wg-quick: `_check_encoding` sees to the rest.
    return data.decode("utf-8", "surrogateescape"), status


def _check_encoding(tokens: list[Token], problems: Problems) -> None:
    """Refuse bytes that are no UTF-8 where they are more than a comment or a shell's own."""
    for token in tokens:
        is_free = token.kind in (Kind.FRIENDLY_NAME, Kind.EXPIRES) or token.name.lower() in HOOKS
        found = None if is_free else _ESCAPED_BYTE.search(token.name + token.value)
        if found is not None:
            problems.error(
                token.line,
                "",
                f"byte 0x{ord(found[0]) & 0xFF:02x} of this line is not valid UTF-8",
                "save the file as UTF-8 in your editor, or convert it with iconv",
            )
    problems.raise_if_any()


def _other_file(path: Path) -> tuple[str, str]:
    """Fault and remedy of a path that is not named as a conf is."""
    try:
        data = files.read(path, limit=_KEY_LIMIT).data
    except Mistake as mistake:
        if path.is_dir() or not path.exists():
            remedy = "name a conf in it" if path.is_dir() else mistake.remedy
            return f"the file {mistake.fault}", remedy
        data = b""
    foreign = foreign_text(data.decode("latin-1"))
    if foreign is not None:
        return f"the file {foreign[1].fault}", foreign[1].remedy
    return "the file's name must end in .conf", "if it is a conf, copy it to INTERFACE.conf"


def _check_name(name: str, problems: Problems) -> None:
    try:
        values.check_name(name)
    except Mistake as mistake:
        fault = f"the name of an interface {mistake.fault}"
        problems.error(None, "", fault, mistake.remedy)
        raise problems.failure() from None


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
        fault = "this line has a NUL character, which no text has"
        problems.error(line, "", fault, "check that this file is a conf at all")
        raise problems.failure()
    foreign = foreign_text(text)
    if foreign is not None:
        line, mistake = foreign
        problems.error(line, "", f"this {mistake.fault}", mistake.remedy)
        raise problems.failure()
    if "\r" in text and "\n" not in text:
        fault = "the lines end in carriage returns alone, as on very old systems"
        problems.error(1, "", fault, r"convert it: tr '\r' '\n' < OLD > NEW")
        raise problems.failure()
    if not text.strip():
        problems.error(None, "", "the conf is empty", "begin it with [Interface] and PrivateKey")
        raise problems.failure()
    tokens = tokenize(text)
    _check_encoding(tokens, problems)
    sections = sort(tokens, problems)
    reader = _Reader(folder, problems)
    options = reader.section(sections.tunnel, TunnelOptions)
    found = reader.section(sections.interface, InterfaceConfig)
    interface = None
    if found is not None and options is not None:
        interface = InterfaceConfig(**found, options=TunnelOptions(**options))
    peers = []
    for lines in sections.peers:
        peer = reader.section(lines, PeerConfig)
        if peer is not None:
            line = lines.get("PublicKey")[-1].line
            expires = _expiry(lines.expires, problems)
            named = PeerConfig(**peer, friendly_name=lines.friendly_name, expires=expires)
            peers.append((line, named))
    bare_peers = tuple(peer for _, peer in peers)
    private_key = interface.private_key if interface is not None else None
    checks.check_peers(peers, private_key, problems)
    if interface is not None:
        mtu = sections.interface.get("MTU")
        checks.check_mtu(interface, bare_peers, mtu[-1].line if mtu else None, problems)

        def line_of(name: str) -> int | None:
            entries = sections.tunnel.get(name) or sections.interface.get(name)
            return entries[-1].line if entries else None

        checks.check_mode(interface, name, line_of, problems)
        checks.check_gateway(interface, bare_peers, line_of, problems)
        if path is not None and status is not None:
            checks.check_permissions(interface, bare_peers, path, status, problems)
    problems.raise_if_any()
    if interface is None:
        raise problems.failure()  # for the type checker: a missing key was reported above
    return TunnelConfig(name, interface, bare_peers, path, status, problems.all_warnings())


def _expiry(entry: Entry | None, problems: Problems) -> float | None:
    """The Unix time that a comment `# expires = …` says, None without one."""
    if entry is None:
        return None
    try:
        return expiry(entry.text)
    except Mistake as mistake:
        # Not an error: the comments of a conf are free.
        fault = f"expires {mistake.fault}, so this peer stays"
        problems.warning(entry.line, "expires", fault, mistake.remedy)
        return None


def _is_satisfied(lines: SectionLines, key: ConfKey, file: ConfKey | None) -> bool:
    """Whether the key is there, the `file` for its value, or another that makes it optional."""
    if lines.get(key.name) or (file is not None and lines.get(file.name)):
        return True
    if key.name.lower() in lines.refused:
        return True  # its line was reported
    return any(entry.text for name in key.unless for entry in lines.get(name))


class _Reader:
    """Reads sections. Key files are looked for in `folder`."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder = folder
        self._problems = problems

    def section(self, lines: SectionLines, section: type[Section]) -> dict[str, Any] | None:
        """The values of all fields with a key, or None (reported) without a required one."""
        found: dict[str, Any] = {}
        keys = keys_of(section)
        for key in keys.values():
            if key.is_file:
                continue  # read along with its secret
            file = keys.get(f"{key.name}File".lower())
            if key.required and not _is_satisfied(lines, key, file):
                self._missing(lines, key, file)
            if file is not None and lines.get(file.name):
                found[key.field], found[file.field] = self._from_file(lines, key, file)
            elif key.split is None:
                found[key.field] = self._one(lines, key)
            else:
                found[key.field] = self._items(lines, key)
        # A required value that could not be read is MISSING.
        return None if any(value is MISSING for value in found.values()) else found

    def _missing(self, lines: SectionLines, key: ConfKey, file: ConfKey | None) -> None:
        if lines.line is None:
            self._problems.error(
                None,
                "",
                f"there is no section [{lines.title}]",
                f"put [{lines.title}] on a line of its own above this host's keys",
            )
            return
        names = key.name if file is None else f"{key.name} and no {file.name}"
        fault = f"[{lines.title}] has no {names}"
        self._problems.error(lines.line, key.name, fault, key.required)

    def _fault(self, line: int, key: ConfKey, mistake: Mistake) -> None:
        self._problems.error(line, key.name, f"{key.name} {mistake.fault}", mistake.remedy)

    def _value(self, line: int, key: ConfKey, text: str) -> Any:
        """Read one value. Raises Mistake."""
        value = key.read(text)
        if isinstance(value, values.Doubtful):
            self._problems.warning(line, key.name, f"{key.name} {value.fault}", value.remedy)
            return value.value
        return value

    def _last(self, lines: SectionLines, key: ConfKey) -> Entry | None:
        """Return the entry that counts if a key can only have one: the last, as for `wg`."""
        entries = lines.get(key.name)
        if len(entries) > 1:
            self._problems.warning(
                entries[-1].line,
                key.name,
                f"{key.name} is already set on line {entries[0].line}, and only the last counts",
                "remove the others",
            )
        return entries[-1] if entries else None

    def _is_empty(self, entry: Entry, key: ConfKey) -> None:
        if key.empty == "warning":
            self._problems.warning(
                entry.line, key.name, f"{key.name} is empty", "remove the line, or add a value"
            )

    def _one(self, lines: SectionLines, key: ConfKey) -> Any:
        entry = self._last(lines, key)
        if entry is None:
            return key.default
        if not entry.text and key.empty != "error":
            self._is_empty(entry, key)  # wg-quick takes it as an absent line
            return key.default
        try:
            return self._value(entry.line, key, entry.text)
        except Mistake as mistake:
            self._fault(entry.line, key, explain(entry.text, key.read) or mistake)
            return key.default

    def _items(self, lines: SectionLines, key: ConfKey) -> tuple[Any, ...]:
        assert key.split is not None
        found: list[Any] = []
        seen: dict[Any, int] = {}
        for entry in lines.get(key.name):
            items = key.split(entry.text)
            if not items:
                self._is_empty(entry, key)
            for text in items:
                try:
                    value = self._value(entry.line, key, text)
                except Mistake as mistake:
                    explained = explain(entry.text, key.read, listed=True)
                    self._fault(entry.line, key, explained or mistake)
                    if explained is not None:
                        break  # it is about the whole line
                    continue
                if key.unique and value in seen:
                    self._problems.error(
                        entry.line,
                        key.name,
                        f"{key.name} has {quote(text)} twice, the first time on line {seen[value]}",
                        "remove one of the two",
                    )
                elif key.unique:
                    seen[value] = entry.line
                found.append(value)
        return tuple(found)

    def _from_file(
        self, lines: SectionLines, key: ConfKey, file: ConfKey
    ) -> tuple[Any, str | None]:
        """Read a secret from the file that the conf names: the secret, and the file's name."""
        inline, entry = self._last(lines, key), self._last(lines, file)
        assert entry is not None
        if inline is not None:
            self._problems.error(
                max(inline.line, entry.line),
                file.name,
                f"{file.name} is set, and so is {key.name} on line {inline.line}: "
                "only one of them may be",
                f"remove {key.name} to have the key in the file",
            )
            return key.default, None
        try:
            name = values.file_name(entry.text)
        except Mistake as mistake:
            self._fault(entry.line, file, mistake)
            return key.default, None
        path = self._folder / name
        subject = f"{file.name}: the file {quote(name)}"
        try:
            content = files.read(path, limit=_KEY_LIMIT)
            subject = f"{file.name}: the key in {quote(name)}"
            # Anything that is not base64 is refused by `read`, so any decoding will do.
            secret = self._value(entry.line, key, content.data.decode("latin-1").strip())
        except Mistake as mistake:
            self._problems.error(
                entry.line, file.name, f"{subject} {mistake.fault}", mistake.remedy
            )
            return key.default, None
        if files.others_may(path, content.status):
            self._problems.warning(
                entry.line,
                file.name,
                f"{file.name}: every user may open {quote(name)}, which holds a secret",
                f"run chmod 600 {escape(shlex.quote(str(path)))}",
            )
        return secret, name
