"""The lock file of our own environment: hashes, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "tests" / "setup" / "requirements.lock"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ENTRY = re.compile(
    r"^(\S+==\S+)(?: ; (.+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def locked(python: str) -> dict[NormalizedName, Version]:
    """Names and versions that are installed on Linux with that Python."""
    environment = {str(k): str(v) for k, v in default_environment().items()}
    environment |= {"python_version": python, "python_full_version": f"{python}.0", "extra": ""}
    found: dict[NormalizedName, Version] = {}
    for name_and_version, marker, _ in ENTRY.findall(LOCK.read_text()):
        requirement = Requirement(f"{name_and_version} ; {marker}" if marker else name_and_version)
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (specifier,) = requirement.specifier
            name = canonicalize_name(requirement.name)
            assert name not in found, f"{name} has two versions on Python {python}"
            found[name] = Version(specifier.version)
    return found


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lists = (
        project["project"]["dependencies"],
        project["project"]["optional-dependencies"]["dev"],
        project["project"]["optional-dependencies"]["web"],
        project["build-system"]["requires"],
    )
    return [Requirement(text) for some in lists for text in some]


def test_every_entry_has_a_hash_and_there_is_nothing_else() -> None:
    """No options, no addresses of an index, no requirement without a hash."""
    rest = ENTRY.sub("", LOCK.read_text())
    assert [line for line in rest.splitlines() if line and not line.startswith("#")] == []
    assert len(ENTRY.findall(LOCK.read_text())) > 20


@pytest.mark.parametrize("python", PYTHONS)
def test_what_pyproject_asks_for_is_locked(python: str) -> None:
    versions = locked(python)
    for requirement in wanted():
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not in the lock: run make lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}, but {version} is in the lock: run make lock"
        )


def test_what_those_need_is_locked_and_nothing_else() -> None:
    """pip would refuse the first; the second would be installed for nothing."""
    environment = {str(k): str(v) for k, v in default_environment().items()} | {"extra": ""}
    versions = locked(environment["python_version"])
    waiting = wanted()
    reached: set[str] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{requirement} is not in the lock: run make lock"
        assert requirement.specifier.contains(versions[name], prereleases=True), requirement
        if name in reached:
            continue
        reached.add(name)
        try:
            needed = requires(name) or []
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed: this is not the environment of make setup")
        for text in needed:
            further = Requirement(text)
            extras = requirement.extras or {""}
            if further.marker is None or any(
                further.marker.evaluate(environment | {"extra": extra}) for extra in extras
            ):
                waiting.append(further)
    assert sorted(versions) == sorted(reached)


def test_the_set_up_installs_by_hash_alone() -> None:
    script = (ROOT / "tests" / "setup" / "venv.sh").read_text()
    installs = re.findall(r"pip install((?:[^\n]*\\\n)*[^\n]*)", script)
    options = [set(each.replace("\\\n", " ").split()) for each in installs]
    assert {"--require-hashes", "tests/setup/requirements.lock"} <= options[0]
    assert {"--no-deps", "--no-build-isolation", "--no-index"} <= options[1]
