"""The manual pages: every command has one, and the formatter has nothing to complain of."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tunnel.cli import main, manual

ROOT = Path(__file__).parents[3]
PAGES = manual.pages()


def test_every_command_has_a_page_that_the_overview_names() -> None:
    names = [name for _, rows in main.GROUPS for names, _ in rows for name in names]
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    expected = [f"{name}.1" for name in programs] + [f"tunnel-{name}.1" for name in names]
    assert sorted(PAGES) == sorted(expected)
    overview = PAGES["tunnel.1"].replace("\\-", "-")
    assert [name for name in names if f"tunnel-{name}\\fP(1)" not in overview] == []


def test_a_page_has_arguments_options_and_the_example() -> None:
    page = PAGES["tunnel-up.1"].replace("\\-", "-")
    for expected in ("\\fICONF|NAME\\fP", "\\fB--foreground\\fP, \\fB-f\\fP", "\ntunnel up office"):
        assert expected in page
    service = PAGES["tunnel-service.1"].replace("\\-", "-")
    assert ".SH TUNNEL SERVICE INSTALL\n" in service
    lab = PAGES["tunnel-lab.1"].replace("\\-", "-")
    assert "\\fB--trace\\fP, \\fB--no-trace\\fP" in lab
    assert " Default: --trace." in lab
    assert lab.index("\\fB--help") < lab.index(".SS A bad wire, in") < lab.index("\\fB--loss")
    assert "Default: True" not in "".join(PAGES.values())
    assert "--root" not in service, "a hidden option"
    assert "complete-words" not in "".join(PAGES.values())


@pytest.mark.foreign("groff")
@pytest.mark.foreign("troff")
@pytest.mark.foreign("grotty")
def test_the_formatter_warns_of_nothing(tmp_path: Path) -> None:
    manual.write(tmp_path)
    for name in PAGES:
        ran = subprocess.run(
            ["groff", "-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=80n", tmp_path / name],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stderr == "", name
        assert max(map(len, ran.stdout.splitlines())) <= 80, name
        assert not re.search(r"\\\(rs|\\f[BIP]", ran.stdout), name
        if name not in ("tunnel.1", "tunnel-wg.1", "tunnel-wg-quick.1", "tunnel-cni.1"):
            assert "SYNOPSIS" in ran.stdout
            assert "EXIT STATUS" in ran.stdout
