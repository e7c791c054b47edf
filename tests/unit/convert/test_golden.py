"""Files in the documented form of each program, and the confs that are made of them.

A folder of `golden` has the files of one tunnel, and `expected` beside them: the conf, and what is
not carried, as the command shows it.
"""

from __future__ import annotations

import shutil
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


@pytest.mark.parametrize(
    ("folder", "route", "hostile"),
    [
        ("nm-split", "route1=10.20.0.0/16", "route1=fd00::%;touch hacked;/64"),
        ("networkd-partial", "=10.1.0.0/16", "=fd00::%;touch hacked;/64"),
        (
            "openwrt-client",
            "'10.20.0.0'\n\toption netmask '255.255.0.0'",
            "'fd00::%;touch hacked;/64'",
        ),
        ("routeros-typed", "=10.20.0.0/16", '="fd00::%;touch hacked;/64"'),
        ("vyos-site", "route 192.168.2.0/24", "route 'fd00::%;touch hacked;/64'"),
    ],
)
def test_no_route_brings_a_command_with_it(
    folder: str, route: str, hostile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(GOLDEN / folder, copy)
    sources = [path for path in copy.iterdir() if path.name != "expected"]
    changed = [path for path in sources if route in path.read_text()]
    assert len(changed) == 1
    changed[0].write_text(changed[0].read_text().replace(route, hostile))
    monkeypatch.chdir(copy)
    result = shown(copy, tmp_path / "made.conf")
    assert "hacked" not in result
    assert "--- exit code 2" in result


def test_files_of_two_formats_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("routeros-typed", "vyos-site"):
        for path in (GOLDEN / folder).iterdir():
            if path.name != "expected":
                shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    result = shown(tmp_path, tmp_path / "out" / "made.conf")
    assert ": this file is of " in result
    assert "import one at a time" in result
    assert "--- exit code 2" in result
