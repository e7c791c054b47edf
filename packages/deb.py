"""Makes the Debian package: `python -m packages.deb`.

The package has the Python packages that the program needs inside it, as Debian has none or too old
ones of some; docs/decisions/debian-package.md gives the reasons. They are those of the lock file,
by hash. It is one package for each architecture and for all Pythons of PYTHONS, so that it goes on
working while the system below it is upgraded. It needs dpkg-deb, and no other tool of Debian.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.parser import HeaderParser
from email.utils import formatdate
from importlib import metadata
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from tunnel.cli import manual
from tunnel.cli.completion import SCRIPTS, Shell
from tunnel.systemd import units

ROOT: Final = Path(__file__).parents[1]
TEXTS: Final = Path(__file__).parent / "debian"
LOCK: Final = ROOT / "tests" / "setup" / "requirements.lock"

NAME: Final = "tunnel-vpn"
PROGRAMS: Final = ("tunnel", "tunnel-wg", "tunnel-wg-quick", "tunnel-cni")
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
"""Those that it works with, oldest first; those that extension modules are taken along for."""

MACHINES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's name of an architecture, and the kernel's."""

GLIBC: Final = (36, 34, 31, 28, 17)
"""Minor versions of glibc 2 whose wheels are taken: up to that of the oldest Debian meant."""

HOME: Final = "usr/lib/tunnel"
SITE: Final = f"{HOME}/lib/python{PYTHONS[0]}/site-packages"
COMPLETIONS: Final = {
    Shell.BASH: "usr/share/bash-completion/completions/tunnel",
    Shell.ZSH: "usr/share/zsh/vendor-completions/_tunnel",
    Shell.FISH: "usr/share/fish/vendor_completions.d/tunnel.fish",
}
DOCUMENTS: Final = f"usr/share/doc/{NAME}"

_PYVENV: Final = "home = /usr/bin\ninclude-system-site-packages = false\n"
_SCRIPT: Final = """\
#!/{home}/bin/python3
import sys

from {module} import {function}

sys.exit({function}())
"""
_NEEDED_GLIBC: Final = re.compile(rb"GLIBC_2\.(\d+)\0")
_REQUIREMENT: Final = re.compile(r"^(\S+?)==\S+.*?\\\n(?:    --hash=\S+(?: \\)?\n)+", re.M)


class Package(NamedTuple):
    """A package to be made: version and architecture as Debian has them, times of files, maker."""

    version: str
    architecture: str
    epoch: int
    maintainer: str


def project() -> dict[str, object]:
    """The table [project] of pyproject.toml."""
    found: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def needed() -> set[str]:
    """The distributions that an installed program needs on any of PYTHONS, without itself.

    Those of its page are among them. Read from what is installed here.
    """
    found: set[str] = set()
    waiting = [NAME]
    while waiting:
        asking = waiting.pop()
        for text in metadata.requires(asking) or ():
            requirement = Requirement(text)
            name = canonicalize_name(requirement.name)
            extras = ("", "web") if asking == NAME else ("",)
            if name not in found and any(_is_wanted(requirement, extra) for extra in extras):
                found.add(name)
                waiting.append(name)
    return found


def _is_wanted(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return True
    environment = {str(k): str(v) for k, v in default_environment().items()} | {"extra": extra}
    return any(
        requirement.marker.evaluate(
            {**environment, "python_version": python, "python_full_version": f"{python}.0"}
        )
        for python in PYTHONS
    )


def requirements(names: Iterable[str]) -> str:
    """The entries of the lock file for these, with their hashes."""
    entries: dict[str, str] = {
        canonicalize_name(m[1]): m[0] for m in _REQUIREMENT.finditer(LOCK.read_text())
    }
    return "".join(entries[name] for name in sorted(names))


def download(folder: Path, architecture: str) -> list[Path]:
    """Put the wheels of all that is needed into `folder`, some for several Pythons."""
    names = needed()
    for python in PYTHONS:
        listed = folder / "requirements"
        listed.write_text(requirements(names))
        machine = MACHINES[architecture]
        platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in GLIBC]
        pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
        subprocess.run(
            [
                *pip,
                *("--no-deps", "--only-binary=:all:", "--require-hashes"),
                *platforms,
                f"--platform=manylinux2014_{machine}",
                *(f"--python-version={python}", "--implementation=cp"),
                *("--dest", str(folder), "--requirement", str(listed)),
            ],
            check=True,
        )
        # The others hold for every later Python.
        names = {name for name in map(_of_one_python, folder.glob("*.whl")) if name}
    return sorted(folder.glob("*.whl"))


def _of_one_python(wheel: Path) -> str | None:
    name, _, _, tags = parse_wheel_filename(wheel.name)
    return None if {tag.abi for tag in tags} & {"none", "abi3"} else name


def unpack(wheels: Sequence[Path], site: Path) -> None:
    """Install the wheels into the folder `site`, as pip does it but for other programs' manuals."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if ".data/data/share/man/" not in name]
            if any(".data/" in name for name in names):
                raise ValueError(f"{wheel.name} has files for other folders than site-packages")
            archive.extractall(site, names)
    for path in site.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def lay_out(root: Path) -> None:
    """Write all files of the package below `root` but the Python packages and DEBIAN."""
    lay_out_programs(root)
    # Where container runtimes of Debian look for plugins.
    _link(root / "usr/lib/cni/tunnel-cni", "../tunnel/bin/tunnel-cni")
    for file in (units.UNIT, units.TARGET, *units.DOCKER, units.WEB):
        _write(root / units.PACKAGED_FOLDER / file, units.packaged(file, [f"/{HOME}/bin/tunnel"]))
    _write(root / "usr/lib/tmpfiles.d/tunnel.conf", (TEXTS / "tmpfiles").read_text())
    _write(root / f"usr/share/python3/runtime.d/{NAME}.rtupdate", (TEXTS / "rtupdate").read_text())
    (root / f"usr/share/python3/runtime.d/{NAME}.rtupdate").chmod(0o755)
    _write(root / f"usr/share/lintian/overrides/{NAME}", (TEXTS / "lintian-overrides").read_text())
    for shell, place in COMPLETIONS.items():
        _write(root / place, SCRIPTS[shell])
    for name, text in manual.pages().items():
        _write_packed(root / "usr/share/man/man1" / f"{name}.gz", text)
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        _write(root / DOCUMENTS / document.name, document.read_text())
    shutil.copytree(ROOT / "examples", root / DOCUMENTS / "examples", ignore=_NOT_COPIED)
    (root / "etc").mkdir()
    (root / "etc/tunnel").mkdir(mode=0o700)


def lay_out_programs(root: Path) -> None:
    """Write the commands below `root`, and the environment of Python that they run in."""
    home = root / HOME
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").write_text(_PYVENV)
    (home / "bin" / "python3").symlink_to("../../../bin/python3")
    (home / "lib").mkdir()
    for python in PYTHONS[1:]:
        (home / "lib" / f"python{python}").symlink_to(f"python{PYTHONS[0]}")
    scripts = project()["scripts"]
    assert isinstance(scripts, dict)
    for name in PROGRAMS:
        module, _, function = scripts[name].partition(":")
        script = home / "bin" / name
        script.write_text(_SCRIPT.format(home=HOME, module=module, function=function))
        script.chmod(0o755)
        _link(root / "usr/bin" / name, f"../lib/tunnel/bin/{name}")


_NOT_COPIED: Final = shutil.ignore_patterns("__pycache__")


def write_texts(root: Path, package: Package) -> None:
    """Write the copyright, the changelog and DEBIAN, which describe what is below `root`."""
    _write(root / DOCUMENTS / "copyright", "\n".join(_copyright(root)))
    _write_packed(root / DOCUMENTS / "changelog.gz", (ROOT / "CHANGELOG.md").read_text())
    _write_packed(root / DOCUMENTS / "changelog.Debian.gz", _changelog(package))
    control = root / "DEBIAN"
    control.mkdir()
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()]
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    template = (TEXTS / "control").read_text()
    values = {
        "version": package.version,
        "architecture": package.architecture,
        "maintainer": package.maintainer,
        "size": size,
        "oldest": PYTHONS[0],
        "beyond": f"3.{int(PYTHONS[-1].partition('.')[2]) + 1}",
        "glibc": needed_glibc(root),
        "description": project()["description"],
    }
    (control / "control").write_text(template.format_map(values))
    sums = (f"{_md5(path)}  {path.relative_to(root)}\n" for path in files)
    (control / "md5sums").write_text("".join(sums))
    for script in ("postinst", "prerm", "postrm"):
        shutil.copy(TEXTS / script, control / script)
        (control / script).chmod(0o755)


def needed_glibc(root: Path) -> str:
    """The version of glibc that the extension modules below `root` need."""
    minors = [17]
    for path in root.rglob("*.so"):
        minors += map(int, _NEEDED_GLIBC.findall(path.read_bytes()))
    return f"2.{max(minors)}"


def _copyright(root: Path) -> Iterator[str]:
    yield "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
    yield f"Upstream-Name: {NAME}"
    yield ""
    yield "Files: *"
    yield "Copyright: 2026 The tunnel authors"
    yield "License: Expat"
    text = (ROOT / "LICENSE").read_text().partition("\n\n")[2].partition("\n\n")[2]
    yield from (f" {line}" if line else " ." for line in text.rstrip().splitlines())
    for info in sorted((root / SITE).glob("*.dist-info")):
        head = HeaderParser().parsestr((info / "METADATA").read_text())
        name = head["Name"]
        if name == NAME:
            continue
        told = head["License-Expression"] or head["License"] or "as its own files say"
        yield ""
        yield f"Files: {SITE}/{info.name.partition('-')[0]}*"
        yield f"Copyright: the authors of {name} {head['Version']}"
        yield f"License: {name}"
        yield f" {' '.join(told.splitlines()[0].split())}. The texts are in"
        yield f" /{SITE}/{info.name}."
    yield ""


def _changelog(package: Package) -> str:
    return (
        f"{NAME} ({package.version}) unstable; urgency=medium\n\n"
        "  * What a user can see of it is in changelog.gz.\n\n"
        f" -- {package.maintainer}  {formatdate(package.epoch)}\n"
    )


def pack(root: Path, package: Package, folder: Path) -> Path:
    """The archive of what is below `root`; the same input gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    made = folder / f"{NAME}_{package.version}_{package.architecture}.deb"
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(package.epoch)}
    for path in root.rglob("*"):
        os.utime(path, (package.epoch, package.epoch), follow_symlinks=False)
    command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(made)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return made


def build_wheel(folder: Path, added: Mapping[str, str] = MappingProxyType({})) -> Path:
    """The wheel of these sources, made from an sdist, which is beside it, by the tools that are
    installed here. `added` goes into their environment.
    """
    target = ROOT / "tunnel" / "datapath" / "native" / "target"
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    environment = {"CARGO_TARGET_DIR": str(target)} | os.environ | dict(added)
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    (wheel,) = folder.glob("*.whl")
    return wheel


def epoch() -> int:
    """SOURCE_DATE_EPOCH, or the time of the commit, or that of pyproject.toml."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    git = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    try:
        return int(subprocess.run(git, capture_output=True, text=True, check=True).stdout)
    except (OSError, ValueError, subprocess.CalledProcessError):
        return int((ROOT / "pyproject.toml").stat().st_mtime)


def maintainer() -> str:
    """Who makes the package, by the variables that Debian's own tools read."""
    name = os.environ.get("DEBFULLNAME", "The tunnel authors")
    return f"{name} <{os.environ.get('DEBEMAIL', f'{NAME}@localhost.localdomain')}>"


def main(arguments: Sequence[str]) -> None:
    """Make the package, and print its path."""
    parser = argparse.ArgumentParser(prog="python -m packages.deb", description=main.__doc__)
    parser.add_argument("--architecture", choices=MACHINES, default=_own_architecture())
    parser.add_argument("--wheel", type=Path, help="our wheel; without it, one is built")
    parser.add_argument("--revision", default="1", help="of the Debian package (default: 1)")
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="the folder it goes to")
    options = parser.parse_args(arguments)
    if options.wheel is None and options.architecture != _own_architecture():
        parser.error(
            f"for {options.architecture}, give a wheel by --wheel; make wheel makes one there"
        )
    version = f"{project()['version']}-{options.revision}"
    package = Package(version, options.architecture, epoch(), maintainer())
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="tunnel-deb-") as temporary:
        folder = Path(temporary)
        for name in ("wheels", "built", "root"):
            (folder / name).mkdir()
        own = options.wheel or build_wheel(folder / "built")
        root = folder / "root"
        lay_out(root)
        unpack([own, *download(folder / "wheels", package.architecture)], root / SITE)
        write_texts(root, package)
        print(pack(root, package, options.output))  # noqa: T201


def _own_architecture() -> str:
    machine = os.uname().machine
    return next((name for name, kernel in MACHINES.items() if kernel == machine), machine)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o644)


def _write_packed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
