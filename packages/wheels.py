"""Makes an sdist and the wheels for both machines: `python -m packages.wheels`.

The compiled datapath is for every CPython from 3.11 on (abi3), so there is one wheel for each
machine. That for the other machine is cross-built, where there is a C compiler and a standard
library of Rust for it. auditwheel finds out which Linux systems a wheel is for, and gives it that
tag; abi3audit checks that it keeps to the stable ABI.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from packages.deb import ROOT, build_wheel


class Toolchain(NamedTuple):
    """What builds for a machine on another one: Debian's package, its compiler, Rust's target."""

    package: str
    compiler: str
    target: str

    def missing(self) -> list[str]:
        """The commands that install what is not here."""
        found = []
        if shutil.which(self.compiler) is None:
            found.append(f"apt-get install {self.package}")
        ask = ["rustc", "--print", "target-libdir", "--target", self.target]
        done = subprocess.run(ask, capture_output=True, text=True, check=False)
        if done.returncode or not Path(done.stdout.strip()).is_dir():
            found.append(f"rustup target add {self.target}")
        return found

    def environment(self, machine: str) -> dict[str, str]:
        """What setuptools, setuptools-rust, cargo and the crate `cc` take it from."""
        name = self.target.replace("-", "_")
        return {
            "CARGO_BUILD_TARGET": self.target,
            f"CARGO_TARGET_{name.upper()}_LINKER": self.compiler,
            f"CC_{name}": self.compiler,
            "_PYTHON_HOST_PLATFORM": f"linux-{machine}",
        }


TOOLCHAINS: Final = {
    "x86_64": Toolchain("gcc-x86-64-linux-gnu", "x86_64-linux-gnu-gcc", "x86_64-unknown-linux-gnu"),
    "aarch64": Toolchain(
        "gcc-aarch64-linux-gnu", "aarch64-linux-gnu-gcc", "aarch64-unknown-linux-gnu"
    ),
}


def audited(wheel: Path, tools: Path, folder: Path) -> Path:
    """The wheel with the tag of the systems that it is for, in `folder`, checked for its ABI."""
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}

    def run(*command: str | Path) -> None:
        subprocess.run(command, check=True, env=environment)

    with tempfile.TemporaryDirectory() as temporary:
        run(tools / "auditwheel", "repair", "--wheel-dir", temporary, wheel)
        (made,) = Path(temporary).iterdir()
        run(tools / "abi3audit", "--strict", made)
        return Path(shutil.move(made, folder / made.name))


def make(machine: str, tools: Path, folder: Path) -> Path:
    """Build the wheel for a machine, and the sdist, into `folder`; the path of the wheel."""
    added: Mapping[str, str] = {}
    if machine != platform.machine():
        added = TOOLCHAINS[machine].environment(machine)
    with tempfile.TemporaryDirectory(prefix="tunnel-wheels-") as temporary:
        wheel = build_wheel(Path(temporary), added)
        if not wheel.name.endswith(f"-linux_{machine}.whl"):
            raise RuntimeError(f"{wheel.name} has no compiled datapath; make wheel says why")
        for sdist in Path(temporary).glob("*.tar.gz"):
            shutil.copy(sdist, folder)
        return audited(wheel, tools, folder)


def main(arguments: Sequence[str]) -> int:
    """Make them; 1 if one cannot be made here, and then it is said what is missing."""
    parser = argparse.ArgumentParser(prog="python -m packages.wheels", description=main.__doc__)
    parser.add_argument("--machines", nargs="+", choices=TOOLCHAINS, default=list(TOOLCHAINS))
    parser.add_argument("--tools", type=Path, required=True, help="auditwheel, abi3audit, patchelf")
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    status = 0
    for machine in options.machines:
        is_own = machine == platform.machine()
        missing = [] if is_own else TOOLCHAINS[machine].missing()
        if missing:
            print(f"no wheel for {machine}; for one, run: {'; '.join(missing)}", file=sys.stderr)  # noqa: T201
            status = 1
        else:
            print(make(machine, options.tools.absolute(), options.output))  # noqa: T201
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
