"""What reload, diff and save have changed, or would change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunnel.control.messages import Message
from tunnel.log.redact import printable

TAKEN = "was taken away or changed from outside"
"""The detail of what a reload puts back, although the conf did not change."""


def named(key: str, name: str) -> str:
    """A peer in a line of text: its name, if it has one, and its key."""
    return f"{printable(name)} ({key})" if name else key


@dataclass(frozen=True, slots=True)
class Change(Message):
    """One difference between a running tunnel and its conf.

    `sign` is + for what is added, - for what is removed, ~ for what becomes another. `subject`
    names the object ("peer KEY", "route 10.0.0.0/8"), `detail` what of it changes, in words; both
    are fit for a terminal and hold no secret. `name` is the friendly name of a peer that has one.
    """

    sign: Literal["+", "-", "~"]
    subject: str
    detail: str = ""
    name: str = ""

    @property
    def was_taken(self) -> bool:
        """Whether it is no difference of the confs, but was there, and another program's doing."""
        return self.detail == TAKEN

    def __str__(self) -> str:
        subject = self.subject
        if self.name:
            noun, key, *aspect = subject.split(" ", 2)
            subject = " ".join([noun, named(key, self.name), *aspect])
        return f"{self.sign} {subject}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class ReloadResult(Message):
    """What a reload did, or would do. `notes` are on what it leaves to a new `up`, `warnings` on
    what is doubtful in the conf.
    """

    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached(Message):
    """To what a tunnel is attached, or was until now, in words; `notes` are on what it shares."""

    target: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SavedLine(Message):
    """A line of the conf: `sign` is - for one that is gone, by its old number, + for a new one.

    Keys are hidden in `text`.
    """

    sign: Literal["+", "-"]
    number: int
    text: str


@dataclass(frozen=True, slots=True)
class SaveResult(Message):
    """What `save` did to the file `path`; `more_lines` have changed beyond those in `lines`.

    `notes` are on running values that no conf may have, and that were not saved.
    """

    changed: bool
    path: str
    lines: tuple[SavedLine, ...] = ()
    more_lines: int = 0
    notes: tuple[str, ...] = ()
