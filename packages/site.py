"""The documentation as a site: `python -m packages.site [--output FOLDER]`, without a network.

The pages are the files of the project, in the same places, so that links mean the same in both; and
those that are made from the code: all commands, and what `--json` prints. A link or an anchor that
leads nowhere fails the build.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from packages import commands_reference, json_reference

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("docs", "examples")
FILES: Final = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")


def collect(folder: Path) -> None:
    """Put all pages into the new folder."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(ROOT / name, folder / name)
    shutil.copy(ROOT / "packages" / "site.css", folder)
    (folder / "docs" / "commands.md").write_text(commands_reference.page())
    json_reference.write(folder / "docs")


def build(output: Path) -> None:
    """Make the site in `output`, in the place of what is there.

    Raises CalledProcessError, whose output has been printed.
    """
    with tempfile.TemporaryDirectory(prefix="tunnel-site-") as text:
        work = Path(text)
        collect(work / "pages")
        shutil.copy(ROOT / "packages" / "site.toml", work / "zensical.toml")
        program = Path(sysconfig.get_path("scripts")) / "zensical"
        subprocess.run([program, "build", "--strict"], cwd=work, check=True)
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(work / "html", output)


def main() -> None:
    """Build it."""
    parser = argparse.ArgumentParser(description="Build the documentation as a site.")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site", metavar="FOLDER")
    output: Path = parser.parse_args().output
    try:
        build(output)
    except subprocess.CalledProcessError:
        sys.exit("the site was not built: see above")
    sys.stdout.write(f"{output / 'index.html'}\n")


if __name__ == "__main__":
    main()
