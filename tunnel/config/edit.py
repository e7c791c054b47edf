"""Changing single lines of a conf's text without touching the others."""

from collections.abc import Callable, Sequence

from tunnel.config.keys import ConfKey
from tunnel.config.lexer import Kind, Token, tokenize
from tunnel.config.render import Line, render_line

__all__ = ["DISABLED", "EditableSection", "Editor"]

DISABLED = "#disabled# "
"""Before each line of a peer that `tunnel peer disable` took out of use."""


def _is_comment(line: str) -> bool:
    return line.lstrip().startswith("#") and not line.startswith(DISABLED)


class EditableSection:
    """The lines of one section; for [Interface] and [Tunnel] of all of that name.

    `header` is the line of its (last) header, 0 without one; `last` is the last line under it
    that is neither blank nor a comment, behind which new lines go.
    """

    def __init__(self, editor: "Editor", header: int = 0) -> None:
        self._editor = editor
        self._tokens: dict[str, list[Token]] = {}
        self.header = header
        self.last = header

    def add(self, token: Token) -> None:
        """Take an entry."""
        self._tokens.setdefault(token.name.lower(), []).append(token)

    def has(self, key: str) -> bool:
        """Whether `key` stands in it."""
        return key.lower() in self._tokens

    def set(self, key: str, value: str | None) -> None:
        """Make `key` stand once with `value`, or not at all with None."""
        tokens = self._tokens.get(key.lower(), [])
        if value is None:
            for token in tokens:
                self._editor.drop(token)
        elif not tokens:
            self._editor.insert(self.last, (key, value))
        else:
            for token in tokens[:-1]:
                self._editor.drop(token)
            self._editor.replace(tokens[-1], (key, value))

    def set_lines(self, key: str, new: Sequence[str]) -> None:
        """Make the lines of a hook these, in this order."""
        tokens = self._tokens.get(key.lower(), [])
        for token, value in zip(tokens, new, strict=False):
            self._editor.replace(token, (key, value))
        for token in tokens[len(new) :]:
            self._editor.drop(token)
        for value in new[len(tokens) :]:
            self._editor.insert(tokens[-1].line if tokens else self.last, (key, value))

    def set_list(self, key: ConfKey, read: Callable[[str], object], new: Sequence[object]) -> None:
        """Make a list that may be spread over lines hold `new`; items that stay keep their place.

        `read` gives what an item on a line means, to be compared with the items of `new`.
        """
        assert key.split is not None
        tokens = [token for token in self._tokens.get(key.name.lower(), []) if token.value]
        missing = dict.fromkeys(new)
        kept: list[list[str]] = []
        for token in tokens:
            items = []
            for item in key.split(token.value):
                meaning = read(item)
                if meaning in missing:
                    del missing[meaning]
                    items.append(item)
            kept.append(items)
        added = [str(item) for item in missing]
        if not tokens:
            if added:
                self._editor.insert(self.last, (key.name, ", ".join(added)))
            return
        # The last line that stays takes what is new, so that it does not look moved.
        home = max((number for number, items in enumerate(kept) if items), default=0)
        kept[home] += added
        for token, items in zip(tokens, kept, strict=True):
            if not items:
                self._editor.drop(token)
            elif items != key.split(token.value):
                self._editor.replace(token, (key.name, ", ".join(items)))


class _Options(EditableSection):
    """[Tunnel], whose keys may also stand in lines marked `#! tunnel:`."""

    def set(self, key: str, value: str | None) -> None:
        """Set a key in the one of the two spellings that the text uses."""
        if value is None or self.has(key) or self.header:
            super().set(key, value)
        else:
            self._editor.insert_marked((key, value))


class Editor:
    """A conf's text taken apart, changed by its sections, put together by `text()`.

    The text must be one that `parse` takes.
    """

    def __init__(self, text: str, name: str) -> None:
        self._name = name
        self._bom = "\ufeff" if text.startswith("\ufeff") else ""
        self._lines: list[str | None] = list(text.removeprefix("\ufeff").split("\n"))
        self._ending = "\r" if (self._lines[0] or "").endswith("\r") else ""
        self._behind: dict[int, list[str]] = {}
        self._appended: list[str] = []
        self._marked: set[int] = set()
        self.interface = EditableSection(self)
        self.tunnel = _Options(self)
        self.peers: list[EditableSection] = []
        self._collect(tokenize("\n".join(line or "" for line in self._lines)))

    def _collect(self, tokens: Sequence[Token]) -> None:
        section = self.interface
        for token in tokens:
            if token.kind is Kind.MARKED:
                self._marked.add(token.line)
                self.tunnel.add(token)
                continue
            if token.kind in (Kind.FRIENDLY_NAME, Kind.EXPIRES):
                continue
            if token.kind is Kind.HEADER:
                match token.name.lower():
                    case "[interface]":
                        section = self.interface
                    case "[tunnel]":
                        section = self.tunnel
                    case _:
                        section = EditableSection(self)
                        self.peers.append(section)
                section.header = token.line
            else:
                section.add(token)
            section.last = token.line

    def text(self) -> str:
        """Return the text as it is now."""
        lines = []
        for number, line in enumerate(self._lines, 1):
            if line is not None:
                lines.append(line)
            lines += self._behind.get(number, [])
        if self._appended:
            # One blank line separates sections, however many the text ended with.
            while lines and not lines[-1].strip():
                lines.pop()
            lines += [*self._appended, ""]
        return self._bom + "\n".join(lines)

    def insert_marked(self, line: Line) -> None:
        """Add a `#! tunnel:` line, behind the others if there are any."""
        behind = max(self._marked) if self._marked else self.interface.last
        self.insert(behind, line, prefix="#! tunnel: ")

    def replace(self, token: Token, line: Line) -> None:
        """Put another value where `token`'s stands."""
        render_line(self._name, line)  # refuses what would not be read back
        text = self._lines[token.line - 1] or ""
        before, after = text[: token.start], text[token.end :]
        if not token.value and before.endswith(" ="):
            before += " "  # an empty value shows only by this how the file is written
        if after.startswith("#"):
            after = " " + after
        self._lines[token.line - 1] = before + line[1] + after

    def drop(self, token: Token) -> None:
        """Remove an entry's line; a comment behind it stays as a line of its own."""
        text = self._lines[token.line - 1] or ""
        comment = text[token.end :].strip()
        self._lines[token.line - 1] = comment + self._ending if comment else None

    def insert(self, behind: int, line: Line, *, prefix: str = "") -> None:
        """Add a line behind line `behind`."""
        rendered = prefix + render_line(self._name, line) + self._ending
        if behind == len(self._lines):
            # The last line lacks the ending that all others have.
            last = self._lines[-1]
            if last is not None and not last.endswith(self._ending):
                self._lines[-1] = last + self._ending
        self._behind.setdefault(behind, []).append(rendered)

    def remove_section(self, section: EditableSection) -> None:
        """Remove a [Peer]: its lines, the comment right above and the blank lines below."""
        first, last = section.header - 1, section.last
        while first > 0 and _is_comment(self._lines[first - 1] or ""):
            first -= 1
        while last < len(self._lines) - 1 and not (self._lines[last] or "").strip():
            last += 1
        for number in range(first, last):
            # Options concern the whole tunnel, wherever they stand.
            if number + 1 not in self._marked:
                self._lines[number] = None

    def append_section(
        self, title: str, lines: Sequence[Line], *, comments: Sequence[str] = ()
    ) -> None:
        """Add a section at the end, with comments below its header."""
        written = (render_line(self._name, line) for line in lines)
        rendered = ["", f"[{title}]", *(f"# {comment}" for comment in comments), *written]
        self._appended += [line + self._ending for line in rendered]
