"""What pyproject.toml cannot say: a wheel's tag and its commit are known only while it is built.

The compiled datapath is optional. A wheel without it is for every machine (py3-none-any), and says
in the place of the extension why it is not there: `tunnel --version` prints that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.sdist import sdist
from setuptools_rust import RustExtension, build_rust

ROOT = Path(__file__).parent
COMMIT = Path("tunnel/cli/commit.txt")
"""In each sdist and wheel whose commit is known; never in a checkout."""

EXTENSION = Path("tunnel/datapath/_native")

STAND_IN = '''"""In the place of the compiled datapath, which this wheel was built without."""

raise ImportError({reason!r})
'''


def commit() -> str | None:
    """The commit of these sources, with "-dirty" if they differ from it; None if it is not known.

    An sdist has it in a file. Git is asked only in a checkout of this project, not in one that
    these sources were copied into.
    """
    if (ROOT / COMMIT).is_file():
        return (ROOT / COMMIT).read_text(encoding="ascii").strip()
    if not (ROOT / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(ROOT)]
    describe = ["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        asked = subprocess.run([*git, *describe], capture_output=True, text=True)
    except OSError:
        return None
    return asked.stdout.strip() or None


def write_commit(tree: Path) -> None:
    """Leave the commit in `tree`, a copy of the sources."""
    known = commit()
    if known is not None:
        (tree / COMMIT).write_text(known + "\n", encoding="ascii")


class SourceDistribution(sdist):
    """An sdist that knows its commit."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Add the commit to what is packed."""
        super().make_release_tree(base_dir, files)
        write_commit(Path(base_dir))


class BuildRust(build_rust):
    """Builds the extension; keeps the reason if that fails, which is not an error here."""

    failure = "there was no Rust compiler when this was built"

    def run_for_extension(self, extension: RustExtension) -> None:
        """Build it, or raise; then an optional extension is left out."""
        self.verbose = False  # a line for each crate, not the whole command line of its compiler
        try:
            super().run_for_extension(extension)
        except Exception:
            self.failure = "compiling it failed when this was built; pip -v shows why"
            raise


class Wheel(bdist_wheel):
    """A wheel with the tag of what is in it."""

    def initialize_options(self) -> None:
        """One extension serves CPython 3.11 and all that follow; also in an editable install."""
        super().initialize_options()
        self.py_limited_api = "cp311"

    def run(self) -> None:
        """Build first, as nobody knows before whether there will be an extension."""
        if not self.skip_build:
            build = Path(self.get_finalized_command("build").build_lib)
            # What an earlier build left there may be of files that are gone.
            shutil.rmtree(build, ignore_errors=True)
            self.run_command("build")
            self.skip_build = True
            write_commit(build)
            if not any((build / EXTENSION).parent.glob(f"{EXTENSION.name}.*.so")):
                self._do_without(build)
        super().run()

    def _do_without(self, build: Path) -> None:
        self.root_is_pure = True
        # By this `install` chooses between the folders for pure modules and for others.
        self.distribution.has_ext_modules = lambda: False
        reason = self.get_finalized_command("build_rust").failure
        text = STAND_IN.format(reason=reason)
        (build / EXTENSION).with_suffix(".py").write_text(text, encoding="utf-8")
        rule = "*" * 79
        sys.stderr.write(
            f"{rule}\nWARNING: this wheel has only the slower datapath, the one in Python:\n"
            f"{reason}\n{rule}\n"
        )


setup(cmdclass={"bdist_wheel": Wheel, "build_rust": BuildRust, "sdist": SourceDistribution})
