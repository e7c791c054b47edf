"""Lets a test call only the programs that it declares, so that a machine without others has them.

A test's PATH has two folders. The first holds links to the declared programs: those of every
Debian, for tests marked `root` those of the lab, and those that its markers `foreign("program")`
name; tests/setup/programs lists them all, with the package that `make test` installs for each.
The second holds a trap by the name of every other program of this machine: it writes the name
down and ends with status 127, and the test that called it fails, even where the call was in a
hook, in a daemon, or had its status thrown away.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

TABLE = Path(__file__).parents[1] / "setup" / "programs"
_ADMIN = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/lib/cni")
"""An ordinary user's PATH lacks these, and what is in them can be run all the same.

CNI's plugins, in the last one, are run by their path; a test finds them by PATH as all others.
"""

_TRAP = """#!/bin/sh
echo "${{0##*/}}" >>'{called}'
echo "${{0##*/}}: not declared by this test (tests/support/programs.py)" >&2
exit 127
"""


@dataclass(frozen=True)
class Table:
    """The programs of tests/setup/programs, by what needs them."""

    groups: dict[str, frozenset[str]]

    @classmethod
    def read(cls, file: Path = TABLE) -> Table:
        found: dict[str, set[str]] = {"base": set(), "lab": set(), "test": set(), "host": set()}
        for line in file.read_text().splitlines():
            if line and not line.startswith("#"):
                group, program, _ = line.split()
                found[group].add(program)
        return cls({group: frozenset(programs) for group, programs in found.items()})

    def declared(self, *, root: bool, foreign: Iterable[str]) -> frozenset[str]:
        """What a test with these markers may call; LookupError for what the table does not know."""
        named = frozenset(foreign)
        unknown = named.difference(*self.groups.values())
        if unknown:
            raise LookupError(f"{', '.join(sorted(unknown))}: not in tests/setup/programs")
        return self.groups["base"] | (self.groups["lab"] if root else frozenset()) | named


@dataclass(eq=False)
class Programs:
    """The folders of programs in `folder`, for tests on a machine whose PATH is `path`."""

    folder: Path
    path: str
    table: Table = field(default_factory=Table.read)

    def __post_init__(self) -> None:
        self.path = os.pathsep.join(dict.fromkeys([*self.path.split(os.pathsep), *_ADMIN]))
        self.folder.chmod(0o755)
        self._called = self.folder / "called"
        self._called.touch()
        self._called.chmod(0o666)
        self._traps = self.folder / "undeclared"
        self._traps.mkdir()
        self._lay_traps()
        self._python = self.folder / "python3"
        self._python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        self._python.chmod(0o755)

    def which(self, program: str) -> str | None:
        """The path of a program of this machine."""
        return shutil.which(program, path=self.path)

    def path_with(self, declared: frozenset[str]) -> str:
        """A PATH on which there are only these programs and Python, and traps."""
        folder = self.folder / f"declared-{hash(declared) & 0xFFFFFFFFFFFFFFFF:x}"
        if not folder.exists():
            folder.mkdir()
            (folder / "python3").symlink_to(self._python)
            for program in declared:
                found = self.which(program)
                if found is not None:
                    (folder / program).symlink_to(found)
        return f"{folder}{os.pathsep}{self._traps}"

    def take_called(self) -> list[str]:
        """The programs that were called undeclared since this was asked last."""
        called = self._called.read_text().split()
        os.truncate(self._called, 0)
        return sorted(set(called))

    def _lay_traps(self) -> None:
        trap = self.folder / "trap"
        trap.write_text(_TRAP.format(called=self._called))
        trap.chmod(0o755)
        # The product looks for these and does without; no trap must stand in for them.
        names: set[str] = {"python3"} | self.table.groups["host"]
        for place in self.path.split(os.pathsep):
            if not os.path.isdir(place):
                continue
            for entry in os.scandir(place):
                if entry.name not in names:
                    names.add(entry.name)
                    (self._traps / entry.name).symlink_to(trap)
