"""Makes the recipe of an OCI image: `python -m packages.image`, and then `docker build`.

The file system of the image is put together from what is on this machine, without a network: the
Python that this runs in, the packages that are installed in its environment, some programs of the
system, and the shared libraries that all of them need. The Dockerfile beside it adds that to
nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from packages.deb import PYTHONS, ROOT, SITE, epoch, lay_out_programs, unpack
from tunnel.pair.installing import wheels

RECIPE: Final = Path(__file__).parent / "oci" / "Dockerfile"

NEEDED: Final = ("sh", "nft")
"""What the program runs: hooks and the firewall."""
HANDY: Final = ("bash", "ip", "ping", "cat", "ls", "sleep")
"""What hooks, and whoever looks into a container, may want; left out where they are not here."""

_NOT_COPIED: Final = shutil.ignore_patterns(
    *("__pycache__", "site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter"),
    *("turtledemo", "ensurepip", "lib2to3", "config-*", "*.a"),
    *("_tkinter.*", "_test*", "xxlimited*"),
)
_MERGED: Final = ("bin", "sbin", "lib", "lib64")
_LIBRARY: Final = re.compile(r"(?:=> |^\s+)(/\S+) \(0x", re.M)
_ACCOUNTS: Final = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\n",
    "group": "root:x:0:\nnogroup:x:65534:\n",
}


def lay_out_system(root: Path) -> None:
    """Write Python and programs of this machine below `root`, and folders that every system has."""
    for name in _MERGED:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "sys", "run", "tmp", "root", "etc", "var/lib/tunnel"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/tunnel").mkdir(mode=0o700)
    for name, text in _ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
    python = Path(os.path.realpath(sys.executable))
    _copy(python, root / "usr/bin" / python.name)
    (root / "usr/bin/python3").symlink_to(python.name)
    library = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, root / "usr/lib" / library.name, ignore=_NOT_COPIED, symlinks=True)
    for name in (*NEEDED, *HANDY):
        found = shutil.which(name)
        if found is not None:
            _copy(Path(os.path.realpath(found)), root / "usr/bin" / name)
        elif name in NEEDED:
            raise FileNotFoundError(f"the image needs {name}, which is not on this machine")


def lay_out_packages(root: Path) -> None:
    """Install what this environment has of the program into `root`."""
    lay_out_programs(root)
    with tempfile.TemporaryDirectory() as temporary:
        made = []
        for name, data in wheels(platform.machine()):
            made.append(Path(temporary, name))
            made[-1].write_bytes(data)
        unpack(made, root / SITE)


def add_libraries(root: Path) -> None:
    """Add the shared libraries that what is below `root` needs of this machine."""
    programs = [path for path in root.rglob("*") if path.is_file() and not path.is_symlink()]
    loaded = set(_libraries(path for path in programs if _is_elf(path)))
    for path in map(Path, sorted(loaded)):
        # By the name that is looked for, where a link may lead to a version.
        _copy(path, root.joinpath(*path.parts[1:]))


def _libraries(programs: Iterable[Path]) -> Iterator[str]:
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        found = _LIBRARY.findall(done.stdout)
        if missing := re.findall(r"(\S+) => not found", done.stdout):
            raise FileNotFoundError(f"{program} needs {', '.join(missing)}")
        # Others are beside the program, in the image as well.
        yield from (path for path in found if not path.startswith(str(program.parent)))


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copyfile(source, target)
        target.chmod(0o755)


def compile_all(root: Path) -> None:
    """Compile all modules: a container would do it anew at each start."""
    folders = [str(root / name) for name in (f"usr/lib/python{_own_python()}", SITE)]
    command = [sys.executable, "-m", "compileall", "-q", "-j", "0", "-s", str(root), "-p", "/"]
    # Some packages bring templates that are no Python, which it complains of.
    subprocess.run(
        [*command, "--invalidation-mode", "unchecked-hash", *folders],
        stdout=subprocess.DEVNULL,
        check=False,
    )


def _own_python() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def pack(root: Path, archive: Path) -> None:
    """All below `root`, as root's, with the same bytes for the same input."""
    time = epoch()

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        entry.mtime = time
        return entry

    with tarfile.open(archive, "w") as made:
        for path in sorted(root.rglob("*")):
            made.add(path, path.relative_to(root).as_posix(), recursive=False, filter=plain)


def make(folder: Path) -> None:
    """Put the file system and the Dockerfile into `folder`."""
    if _own_python() not in PYTHONS:
        raise RuntimeError(f"this is Python {_own_python()}, and known are {', '.join(PYTHONS)}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tunnel-image-") as temporary:
        root = Path(temporary)
        lay_out_system(root)
        lay_out_packages(root)
        add_libraries(root)
        compile_all(root)
        pack(root, folder / "rootfs.tar")
    shutil.copyfile(RECIPE, folder / RECIPE.name)


def main(arguments: Sequence[str]) -> None:
    """Make the recipe, and print what to do with it."""
    parser = argparse.ArgumentParser(prog="python -m packages.image", description=main.__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "dist" / "image")
    folder = parser.parse_args(arguments).output
    os.umask(0o022)
    make(folder)
    print(f"docker build -t tunnel-vpn {folder}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
