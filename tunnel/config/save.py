"""Writing the running state back into a conf, comments and order kept (SaveConfig).

`merge` changes the lines that no longer hold and no others: a value is replaced where it
stands, its comment stays; lists lose and gain items; what is new goes behind the last line of
its section; a peer that is gone leaves with the comment right above it.

What could not be read back is not written: the kernel and `wg` take values that a conf refuses, as
an MTU of 65535 or the endpoint 192.0.2.1:0. Each of them stays in the file as it was.
"""

import difflib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from tunnel.config import render
from tunnel.config.checks import check_permissions, holds_secrets
from tunnel.config.edit import EditableSection, Editor
from tunnel.config.keys import ConfKey, keys_of
from tunnel.config.lexer import HOOKS
from tunnel.config.model import InterfaceConfig, PeerConfig, Section, TunnelConfig
from tunnel.config.parser import parse, read_text
from tunnel.config.problems import ConfigErrors, Mistake, Problem, Problems, escape, quote
from tunnel.config.values import AllowedIP, Doubtful
from tunnel.linux.files import replace_file

__all__ = ["LineChange", "line_changes", "merge", "save", "write"]

_FIRST_SECRETS: Final = (
    "others could open this file, and now it holds secrets",
    "its mode is 600 from this save on: open it again if they may have the secrets",
)

Note = Callable[[Problem], None]
"""Called with each warning of a save."""

_S = TypeVar("_S", InterfaceConfig, PeerConfig)


@dataclass(frozen=True, slots=True)
class LineChange:
    """A line that is in the file no more (sign -, its number in the old one) or new in it (+).

    `text` may hold a key.
    """

    sign: Literal["+", "-"]
    number: int
    text: str


def line_changes(old: str, new: str) -> tuple[LineChange, ...]:
    """What turns `old` into `new`, by the line, in the order of the file."""
    before, after = (text.removesuffix("\n").split("\n") for text in (old, new))
    found: list[LineChange] = []
    # With its heuristics: among thousands of peers, lines such as [Peer] would take it minutes.
    matcher = difflib.SequenceMatcher(None, before, after)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        if kind != "equal":
            found += (LineChange("-", n + 1, before[n]) for n in range(start, end))
            found += (LineChange("+", n + 1, after[n]) for n in range(new_start, new_end))
    return tuple(found)


def _ignore(problem: Problem) -> None:
    pass


def save(
    path: str | os.PathLike[str], running: TunnelConfig, *, note: Note = _ignore
) -> tuple[LineChange, ...]:
    """Make the conf at `path` say what `running` says; the lines that had to change.

    `note` is called for each value that no conf may have (the file keeps its own there), for what
    is doubtful in the conf, and for secrets that others may read. A file that was edited since it
    was read for `running` is kept as a copy beside it. The file's owner and mode stay, unless
    others may open a file that held no secret and gets one. Raises ConfigErrors, the file being as
    it was, if it cannot be read, is no conf, or cannot be written.
    """
    path = Path(path)
    problems = Problems(str(path))
    text, status = read_text(path, problems)
    merged = merge(text, running, source=str(path), folder=path.parent, note=note)
    # No tunnel may be lost to its own SaveConfig: what no conf may say otherwise is refused here.
    saved = parse(merged, name=running.name, source=str(path), folder=path.parent)
    for warning in saved.warnings:
        note(warning)
    if merged == text:
        return ()
    if running.status is not None and _was_edited(running.status, status):
        copy = path.with_name(f"{path.name}.edited")
        write(copy, text, keep_mode=False)
        fault = "the file was edited since it was read, and running values replace lines of it"
        note(Problem(str(path), None, "", fault, f"as it was before this save, it is in {copy}"))
    is_opened = status.st_mode & 0o077 and holds_secrets(saved.interface, saved.peers)
    if is_opened and not _holds_secrets(text, running.name, path):
        write(path, merged, keep_mode=False, known=status)
        note(Problem(str(path), None, "", *_FIRST_SECRETS))
    else:
        write(path, merged, known=status)
        check_permissions(saved.interface, saved.peers, path, status, problems)
        for warning in problems.warnings:
            note(warning)
    return line_changes(text, merged)


def _was_edited(known: os.stat_result, now: os.stat_result) -> bool:
    return (known.st_ino, known.st_mtime_ns, known.st_size) != (
        now.st_ino,
        now.st_mtime_ns,
        now.st_size,
    )


def _holds_secrets(text: str, name: str, path: Path) -> bool:
    config = parse(text, name=name, source=str(path), folder=path.parent)
    return holds_secrets(config.interface, config.peers)


def write(
    path: str | os.PathLike[str],
    text: str,
    *,
    keep_mode: bool = True,
    known: os.stat_result | None = None,
    otherwise: tuple[str, str] = ("is as it was", "fix the cause and save again"),
) -> None:
    """Replace the file at `path` by one of `text`, whole or not at all.

    It stays as open as it was; a new one, and any without `keep_mode`, is for its owner only. A
    symbolic link stays one. With `known`, only the file of that status is replaced. Raises
    ConfigErrors; `otherwise` says what the file is then, and what to do.
    """
    try:
        target = Path(os.path.realpath(path))
        replace_file(target, text, keep="access" if keep_mode else "owner", known=known)
    except OSError as error:
        raise ConfigErrors(
            [
                Problem(
                    str(path),
                    None,
                    "",
                    f"the file could not be replaced ({error.strerror or error}), and "
                    f"{otherwise[0]}",
                    otherwise[1],
                )
            ]
        ) from None


def merge(
    text: str,
    running: TunnelConfig,
    *,
    source: str = "conf",
    folder: str | os.PathLike[str] = ".",
    note: Note = _ignore,
) -> str:
    """Return the conf `text` changed to say what `running` says, and as little as that needs.

    Lists count as sets: their order in `text` stays. `note` is called for each value that no conf
    may have, and that therefore stays as it is in `text`. Raises ConfigErrors if `text` is no conf.
    """
    before = parse(text, name=running.name, source=source, folder=folder)
    old = {peer.public_key: peer for peer in before.peers}
    interface = _readable(before.interface, running.interface, source, note)
    new = {
        peer.public_key: _readable(old.get(peer.public_key), peer, source, note)
        for peer in running.peers
    }
    editor = Editor(text, running.name)
    _merge(editor.interface, before.interface, interface)
    _merge(editor.tunnel, before.interface.options, interface.options)
    for section, peer in zip(editor.peers, before.peers, strict=True):
        if peer.public_key in new:
            _merge(section, peer, new[peer.public_key])
        else:
            editor.remove_section(section)
    for key, peer in new.items():
        if key not in old:
            editor.append_section("Peer", list(render.lines_of(peer)))
    return editor.text()


def _readable(before: _S | None, running: _S, source: str, note: Note) -> _S:
    """`running` with the values of `before` (what the file says) where a conf refuses it."""
    kept: dict[str, Any] = {}
    known: Any
    for key in keys_of(type(running)).values():
        value = getattr(running, key.field)
        known = key.default if before is None else getattr(before, key.field)
        if value in (known, key.default):
            continue
        if key.split is None:
            if not _is_read(key, value, source, note):
                kept[key.field] = known
        else:
            before_items = set(known)
            kept[key.field] = tuple(
                item for item in value if item in before_items or _is_read(key, item, source, note)
            )
    return replace(running, **kept) if kept else running


def _is_read(key: ConfKey, value: object, source: str, note: Note) -> bool:
    text = key.write(value)
    try:
        key.read(text)
    except Mistake as mistake:
        note(
            Problem(
                escape(source),
                None,
                key.name,
                f"the {key.name} in use, {quote(text)}, cannot be saved: it {mistake.fault}",
                "the conf keeps its own value there",
            )
        )
        return False
    return True


def _merge(section: EditableSection, old: Section, new: Section) -> None:
    for key in keys_of(type(old)).values():
        before, after = getattr(old, key.field), getattr(new, key.field)
        if key.is_file or before == after:
            continue  # the name of a file goes along with the secret
        if key.split is None:
            if key.file:
                section.set(f"{key.name}File", None)
            section.set(key.name, render.value_text(key, after))
        elif key.name.lower() in HOOKS:
            section.set_lines(key.name, after)
        else:
            wanted = _effective(after)
            if set(_effective(before)) != set(wanted):
                section.set_list(key, partial(_meaning_of_text, key), wanted)


def _effective(items: tuple[object, ...]) -> list[object]:
    """The items of a list once each; of AllowedIPs the networks that its modifiers leave."""
    found: dict[object, None] = {}
    for item in items:
        if isinstance(item, AllowedIP) and item.modifier == "-":
            found.pop(item.network, None)
        else:
            found[_meaning(item)] = None
    return list(found)


def _meaning_of_text(key: ConfKey, text: str) -> object:
    return _meaning(key.read(text))


def _meaning(item: object) -> object:
    """What an item adds to its list; None if nothing."""
    if isinstance(item, Doubtful):
        item = item.value
    if isinstance(item, AllowedIP):
        return None if item.modifier == "-" else item.network
    return item
