"""Writing the running state back into a conf, comments and order kept (SaveConfig).

`merge` changes the lines that no longer hold and no others: a value is replaced where it
stands, its comment stays; lists lose and gain items; what is new goes behind the last line of
its section; a peer that is gone leaves with the comment right above it. What could not be read
back is not written, see keeping.py.
"""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tunnel.config import files, render, values
from tunnel.config.checks import check_permissions, holds_secrets
from tunnel.config.edit import Editor, Section
from tunnel.config.model import InterfaceConfig, PeerConfig, TunnelConfig
from tunnel.config.parser import decode, parse
from tunnel.config.problems import ConfigErrors, Mistake, Problem, Problems
from tunnel.config.unsavable import Note, keep_readable
from tunnel.linux.files import replace_file

__all__ = ["LineChange", "line_changes", "merge", "save", "write"]

_OPTIONS: Final = (
    *("Datapath", "TunOffload", "TunTso", "TunUso", "UdpOffload", "UdpGso", "UdpGro"),
    "Metrics",
)

_FIRST_SECRETS: Final = (
    "its first secrets on their way into a file that others may open",
    "a file for its owner only",
    "that it is now",
)


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

    `note` is told of each value that no conf may have (the file keeps its own there) and of secrets
    that others may read. The file's owner and mode stay, unless others may open a file that held no
    secret and now will. Raises ConfigErrors, the file being as it was, if it cannot be read, is no
    conf, or cannot be written.
    """
    path = Path(path)
    problems = Problems(str(path))
    try:
        content = files.read(path, limit=files.CONF_LIMIT, what="a conf")
    except Mistake as mistake:
        problems.error(None, "", mistake.found or "", mistake.expected, mistake.remedy)
        raise ConfigErrors(problems.errors) from None
    text = decode(content.data, problems)
    merged = merge(text, running, source=str(path), folder=path.parent, note=note)
    if merged == text:
        return ()
    # No tunnel may be lost to its own SaveConfig: whatever else no conf may say is refused here.
    saved = parse(merged, name=running.name, source=str(path), folder=path.parent)
    is_opened = content.status.st_mode & 0o077 and holds_secrets(saved.interface, saved.peers)
    if is_opened and not _holds_secrets(text, running.name, path):
        write(path, merged, keep_mode=False)
        note(Problem(str(path), None, "", *_FIRST_SECRETS))
    else:
        write(path, merged)
        check_permissions(saved.interface, saved.peers, path, content.status, problems)
        for warning in problems.warnings:
            note(warning)
    return line_changes(text, merged)


def _holds_secrets(text: str, name: str, path: Path) -> bool:
    config = parse(text, name=name, source=str(path), folder=path.parent)
    return holds_secrets(config.interface, config.peers)


def write(path: str | os.PathLike[str], text: str, *, keep_mode: bool = True) -> None:
    """Replace the file at `path` by one of `text`, whole or not at all.

    It stays as open as it was; a new one, and any without `keep_mode`, is for its owner only. A
    symbolic link stays one. Raises ConfigErrors.
    """
    try:
        replace_file(Path(os.path.realpath(path)), text, keep="access" if keep_mode else "owner")
    except OSError as error:
        raise ConfigErrors(
            [
                Problem(
                    str(path),
                    None,
                    "",
                    f"an error on writing ({error.strerror or error})",
                    "a file that can be replaced",
                    "the old file is as it was; fix the cause and save again",
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

    Lists count as sets: their order in `text` stays. `note` is told of each value that no conf may
    have, and that therefore stays as it is in `text`. Raises ConfigErrors if `text` is no conf.
    """
    before = parse(text, name=running.name, source=source, folder=folder)
    running = keep_readable(before, running, source, note)
    editor = Editor(text, running.name)
    _merge_interface(editor.interface, before.interface, running.interface)
    _merge_options(editor, before.interface, running.interface)
    old = {peer.public_key: peer for peer in before.peers}
    new = {peer.public_key: peer for peer in running.peers}
    for section, peer in zip(editor.peers, before.peers, strict=True):
        if peer.public_key in new:
            _merge_peer(section, peer, new[peer.public_key])
        else:
            editor.remove_section(section)
    for key, peer in new.items():
        if key not in old:
            editor.append_section("Peer", list(render.peer_lines(peer)))
    return editor.text()


def _merge_interface(section: Section, old: InterfaceConfig, new: InterfaceConfig) -> None:
    if old.private_key != new.private_key:
        section.set("PrivateKeyFile", None)
        section.set("PrivateKey", new.private_key.to_base64())
    if old.listen_port != new.listen_port:
        section.set("ListenPort", str(new.listen_port) if new.listen_port else None)
    if old.fwmark != new.fwmark:
        section.set("FwMark", render.render_fwmark(new.fwmark) if new.fwmark else None)
    if set(old.addresses) != set(new.addresses):
        section.set_list("Address", values.address, list(new.addresses))
    if old.mtu != new.mtu:
        section.set("MTU", None if new.mtu is None else str(new.mtu))
    if old.table != new.table:
        section.set("Table", None if new.table == "auto" else str(new.table))
    old_dns, new_dns = [*old.dns, *old.dns_search], [*new.dns, *new.dns_search]
    if set(old_dns) != set(new_dns):
        section.set_list("DNS", _dns, new_dns)
    for key, before, after in (
        ("PreUp", old.pre_up, new.pre_up),
        ("PostUp", old.post_up, new.post_up),
        ("PreDown", old.pre_down, new.pre_down),
        ("PostDown", old.post_down, new.post_down),
    ):
        if before != after:
            section.set_lines(key, after)
    if old.save_config != new.save_config:
        section.set("SaveConfig", "true" if new.save_config else None)


def _merge_options(editor: Editor, old: InterfaceConfig, new: InterfaceConfig) -> None:
    before = dict(render.option_lines(old.options))
    after = dict(render.option_lines(new.options))
    for key in _OPTIONS:
        if before.get(key) != after.get(key):
            editor.set_option(key, after.get(key))


def _merge_peer(section: Section, old: PeerConfig, new: PeerConfig) -> None:
    if old.preshared_key != new.preshared_key:
        section.set("PresharedKeyFile", None)
        key = new.preshared_key
        section.set("PresharedKey", None if key is None else key.to_base64())
    networks = new.networks
    if set(old.networks) != set(networks):
        section.set_list("AllowedIPs", _network, list(networks))
    if old.endpoint != new.endpoint:
        section.set("Endpoint", None if new.endpoint is None else str(new.endpoint))
    if old.persistent_keepalive != new.persistent_keepalive:
        keepalive = new.persistent_keepalive
        section.set("PersistentKeepalive", str(keepalive) if keepalive else None)


def _dns(item: str) -> object:
    return values.dns_address(item) or values.search_domain(item)


def _network(item: str) -> object:
    allowed, _ = values.allowed_ip(item)
    # What takes away from the list says nothing about the running state.
    return None if allowed.modifier == "-" else allowed.network
