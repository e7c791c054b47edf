"""`--version` and `-h` of the three programs."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from tests.support.commands import commands
from tunnel import datapath
from tunnel.cli import entry, main, quick, version, wg


def spoken(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What `--version` printed: the words after each line's first."""
    first, *rest = capsys.readouterr().out.splitlines()
    program, number = first.split(maxsplit=1)
    return {"program": program, "version": number} | dict(
        line.split(": ", maxsplit=1) for line in rest
    )


@pytest.mark.parametrize("program", ["tunnel", "tunnel-wg", "tunnel-wg-quick"])
def test_version_of_each_program(
    program: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = {"tunnel": entry.run, "tunnel-wg": wg.run, "tunnel-wg-quick": quick.run}[program]
    monkeypatch.setattr("sys.argv", [program, "--version"])
    monkeypatch.setenv("PATH", os.environ["PATH"])  # tunnel-wg-quick puts its own folder before it
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code in (0, None)
    printed = spoken(capsys)
    assert printed["program"] == program
    assert printed["version"] == metadata.version(version.DISTRIBUTION)
    used = datapath.load()
    assert printed["datapath"].partition(";")[0] == used.name
    assert printed["cipher"] == f"ChaCha20-Poly1305 of {used.cipher}"
    assert platform.python_version() in printed["Python"]


@pytest.mark.foreign("git")
def test_commit_is_that_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.net"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(version, "_CHECKOUT", tmp_path)
    assert "commit: not known" in version.version_text("tunnel")
    git("init", "--quiet")
    (tmp_path / "file").write_text("committed")
    git("add", "file")
    git("commit", "--quiet", "--message=first")
    head = git("rev-parse", "--short=12", "HEAD")
    assert f"commit: {head}\n" in version.version_text("tunnel")
    (tmp_path / "file").write_text("changed")
    assert f"commit: {head}-dirty\n" in version.version_text("tunnel")


def test_commit_is_that_of_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = tmp_path / "commit.txt"
    built.write_text("0123456789ab\n")
    monkeypatch.setattr(version, "_BUILT_FROM", built)
    assert "commit: 0123456789ab\n" in version.version_text("tunnel")


def test_version_without_git_and_without_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(version, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(version, "DISTRIBUTION", "no-such-distribution")
    monkeypatch.setenv("PATH", str(tmp_path))
    text = version.version_text("tunnel")
    assert text.startswith("tunnel (not installed)\ncommit: not known\n")


def test_version_names_what_is_wrong_with_the_datapath(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datapath.ENVIRONMENT_VARIABLE, "fortran")
    assert "datapath: none, TUNNEL_DATAPATH: found 'fortran'" in version.version_text("tunnel")


def test_version_names_what_is_wrong_with_the_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datapath.CIPHER_VARIABLE, "rot13")
    assert "datapath: none, TUNNEL_CIPHER: found 'rot13'" in version.version_text("tunnel")


@pytest.mark.parametrize(
    ("module", "reason"),
    [("no_such_module", "No module"), ("tunnel.datapath.drops", "module 'tunnel.datapath.drops'")],
    ids=["missing", "of other sources"],
)
def test_version_says_why_the_compiled_datapath_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, reason: str
) -> None:
    monkeypatch.delenv(datapath.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(
        datapath, "DATAPATHS", {"native": module, "python": "tunnel.datapath.reference"}
    )
    text = version.version_text("tunnel")
    assert f"datapath: python; the native datapath is not installed ({reason}" in text
    assert "\ncipher: ChaCha20-Poly1305 of OpenSSL\n" in text
    assert datapath.available() == ["python"]


def test_every_command_of_tunnel_has_both_ways_to_help() -> None:
    app = main.make_app()
    paths = commands(typer.main.get_command(app))
    assert len(paths) > 3
    for path in paths:
        short, long = (CliRunner().invoke(app, [*path, way]) for way in ("-h", "--help"))
        assert short.exit_code == long.exit_code == 0, path
        assert short.output == long.output != "", path
        assert "-h" in short.output, path


@pytest.mark.parametrize(("program", "status"), [("tunnel-wg", 0), ("tunnel-wg-quick", 0)])
@pytest.mark.parametrize("way", ["-h", "--help"])
def test_help_of_the_other_programs(
    program: str, status: int, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main_of = {"tunnel-wg": wg.main, "tunnel-wg-quick": quick.main}[program]
    try:
        ended: object = main_of([way], {})
    except SystemExit as error:
        ended = error.code
    assert ended == status
    captured = capsys.readouterr()
    assert program in captured.out + captured.err
