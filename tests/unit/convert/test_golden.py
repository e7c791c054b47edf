"""Files in the documented form of each program, and the confs that are made of them.

A folder of `golden` has the files of one tunnel, and `expected` beside them: the conf, and what is
not carried, as the command shows it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel.cli import main

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir())


def shown(folder: Path, conf: Path) -> str:
    """What `tunnel import` writes and says of the files of a folder."""
    files = sorted(path.name for path in folder.iterdir() if path.name != "expected")
    done = CliRunner().invoke(main.make_app("import"), ["import", *files, "-o", str(conf)])
    said = done.stderr.partition("wrote ")[0]
    text = conf.read_text() if conf.exists() else ""
    return f"{text}---\n{said}--- exit code {done.exit_code}\n"


@pytest.mark.parametrize("folder", FOLDERS, ids=[path.name for path in FOLDERS])
def test_a_file_in_the_documented_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert shown(folder, tmp_path / "made.conf") == (folder / "expected").read_text()
