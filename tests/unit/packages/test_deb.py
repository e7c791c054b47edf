"""What is in the Debian package, but for the Python packages, which are downloaded."""

from __future__ import annotations

import gzip
import re
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from packages import deb
from tunnel.cli import manual
from tunnel.cli.completion import SCRIPTS
from tunnel.systemd import units

ROOT = Path(__file__).parents[3]
COMMAND = "/usr/lib/tunnel/bin/tunnel"
SOME = deb.Package("0.1.0-1", "amd64", 1_700_000_000, "Some One <one@example.net>")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the package, with one Python package inside."""
    made = tmp_path_factory.mktemp("deb") / "root"
    made.mkdir(mode=0o755)
    deb.lay_out(made)
    info = made / deb.SITE / "a_library-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Name: a-library\nVersion: 2.0\nLicense-Expression: MIT\n\n")
    (made / deb.SITE / "fast.so").write_bytes(b"\x7fELF\0GLIBC_2.4\0GLIBC_2.33\0GLIBC_2.9\0")
    deb.write_texts(made, SOME)
    return made


def test_units_pages_and_completions_are_those_of_this_program(root: Path) -> None:
    for file in (units.UNIT, units.TARGET, *units.DOCKER):
        text = (root / "usr/lib/systemd/system" / file).read_text()
        # They differ in the first line alone, which names the program that installed them.
        assert text.split("\n")[1:] == units.render(file, [COMMAND]).split("\n")[1:]
        assert "service install`." not in text.split("\n")[0]
    pages = {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()).decode()
        for path in (root / "usr/share/man/man1").iterdir()
    }
    assert pages == manual.pages()
    assert {shell: (root / deb.COMPLETIONS[shell]).read_text() for shell in SCRIPTS} == SCRIPTS


def test_every_program_has_a_link_to_a_script_that_starts_it(root: Path) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == set(deb.PROGRAMS)
    for name, entry in scripts.items():
        script = (root / "usr/bin" / name).resolve()
        assert script == root / deb.HOME / "bin" / name
        assert script.stat().st_mode & 0o777 == 0o755
        first, *rest = script.read_text().splitlines()
        assert first == "#!/usr/lib/tunnel/bin/python3"
        module, _, function = entry.partition(":")
        assert f"from {module} import {function}" in rest
    interpreter = root / deb.HOME / "bin/python3"
    assert interpreter.readlink() == Path("../../../bin/python3")


def test_every_python_finds_the_one_folder_of_packages(root: Path) -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    named = {text.rpartition(" ")[2] for text in classifiers if "Python :: 3." in text}
    assert named <= set(deb.PYTHONS)
    for python in deb.PYTHONS:
        folder = root / deb.HOME / "lib" / f"python{python}" / "site-packages"
        assert folder.resolve() == root / deb.SITE


def test_only_root_gets_at_confs_and_no_other_file_is_writable(root: Path) -> None:
    assert stat.S_IMODE((root / "etc/tunnel").stat().st_mode) == 0o700
    assert "d /etc/tunnel 0700 root root" in (root / "usr/lib/tmpfiles.d/tunnel.conf").read_text()
    files = [path for path in root.rglob("*") if not path.is_symlink()]
    assert [path for path in files if path.stat().st_mode & 0o022] == []


def test_the_control_file_says_what_is_needed(root: Path) -> None:
    text = (root / "DEBIAN/control").read_text()
    fields = dict(re.findall(r"^([A-Z][\w-]*): (.*)$", text, re.M))
    assert fields["Version"] == "0.1.0-1"
    assert fields["Architecture"] == "amd64"
    assert fields["Maintainer"] == SOME.maintainer
    wanted = ["python3 (>= 3.11)", "python3 (<< 3.15)", "libc6 (>= 2.33)", "libgcc-s1"]
    assert fields["Depends"].split(", ") == wanted
    assert "{" not in text
    listed = re.findall(r"^([0-9a-f]{32})  (.+)$", (root / "DEBIAN/md5sums").read_text(), re.M)
    assert (root / COMMAND[1:]).relative_to(root).as_posix() in {name for _, name in listed}
    said = (root / deb.DOCUMENTS / "copyright").read_text()
    assert "the authors of a-library 2.0" in said
    assert "WITHOUT WARRANTY OF ANY KIND" in said


def test_what_is_taken_along_is_locked_by_hash_and_no_more_than_needed() -> None:
    names = deb.needed()
    assert {"cryptography", "cffi", "trio", "attrs", "pyroute2", "typer"} <= names
    assert {"hypercorn", "starlette", "anyio"} <= names, "for the page"
    assert names.isdisjoint({"tunnel-vpn", "pytest", "mypy", "setuptools", "colorama"})
    entries = re.split(r"\n(?=\S)", deb.requirements(names).strip())
    assert len(entries) == len(names)
    assert all("--hash=sha256:" in entry for entry in entries)


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm", "rtupdate"])
def test_scripts_are_those_of_a_posix_shell(script: str) -> None:
    path = deb.TEXTS / script
    assert path.read_text().startswith("#!/bin/sh\n")
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.foreign("dpkg-deb", "tar")
def test_the_same_files_make_the_same_package(root: Path, tmp_path: Path) -> None:
    first = deb.pack(root, SOME, tmp_path / "1").read_bytes()
    (root / "etc").touch()
    assert deb.pack(root, SOME, tmp_path / "2").read_bytes() == first
    listed = subprocess.run(
        ["dpkg-deb", "--contents", tmp_path / "1" / "tunnel-vpn_0.1.0-1_amd64.deb"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "drwx------ root/root" in listed.stdout


def test_a_unit_of_the_package_is_not_installed_again(tmp_path: Path) -> None:
    program = tmp_path / COMMAND[1:]
    program.parent.mkdir(parents=True)
    program.write_text("")
    program.chmod(0o755)
    packaged = tmp_path / "usr/lib/systemd/system"
    packaged.mkdir(parents=True)
    for file in (units.UNIT, units.TARGET):
        (packaged / file).write_text(units.packaged(file, [COMMAND]))
    (written,) = units.install(tmp_path, [COMMAND], names=("hooks",))
    assert written.name == "hooks.conf"
    # That of another program, or of another version, does not stand for ours.
    (packaged / units.UNIT).write_text(units.packaged(units.UNIT, ["/opt/other/bin/tunnel"]))
    (written,) = units.install(tmp_path, [COMMAND], names=("hooks",))
    assert written.name == units.UNIT
