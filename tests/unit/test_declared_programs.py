"""A test may call only the programs that it declares; one that calls another fails."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.programs import Programs, Table

ROOT = Path(__file__).parents[2]
TABLE = Table({"base": frozenset({"sh"}), "lab": frozenset({"ip"}), "host": frozenset({"maybe"})})


def make_program(folder: Path, name: str, text: str = "echo real") -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    machine = tmp_path / "machine"
    for name in ("ip", "stranger", "maybe"):
        make_program(machine, name)
    (machine / "sh").symlink_to("/bin/sh")
    (tmp_path / "programs").mkdir()
    return Programs(tmp_path / "programs", str(machine), TABLE)


def run(path: str, script: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", "-c", script]
    return subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, check=False)


def test_declared_programs_run_and_others_are_noted(programs: Programs) -> None:
    path = programs.path_with(TABLE.declared(root=True, foreign=()))
    assert run(path, "ip").stdout == "real\n"
    assert programs.take_called() == []
    assert run(path, "sh -c '(stranger || true) >/dev/null 2>&1'").returncode == 0
    assert programs.take_called() == ["stranger"]
    assert programs.take_called() == []


def test_each_set_of_programs_has_a_path_of_its_own(programs: Programs) -> None:
    with_ip = programs.path_with(TABLE.declared(root=True, foreign=()))
    without = programs.path_with(TABLE.declared(root=False, foreign=()))
    assert run(with_ip, "ip").returncode == 0
    assert run(without, "ip").returncode == 127
    assert programs.take_called() == ["ip"]


def test_a_program_that_the_product_does_without_is_not_there(programs: Programs) -> None:
    path = programs.path_with(TABLE.declared(root=False, foreign=()))
    assert "not found" in run(path, "maybe").stderr
    assert programs.take_called() == []
    assert run(programs.path_with(TABLE.declared(root=False, foreign=["maybe"])), "maybe").stdout


def test_python_is_the_one_that_runs_the_tests(programs: Programs) -> None:
    path = programs.path_with(frozenset())
    found = run(path, "python3 -c 'import sys; print(sys.prefix)'")
    assert found.stdout.strip() == sys.prefix


def test_a_program_that_no_package_is_known_for_cannot_be_declared() -> None:
    with pytest.raises(LookupError, match="stranger: not in tests/setup/programs"):
        Table.read().declared(root=True, foreign=["stranger"])


def test_no_test_goes_around_the_path() -> None:
    """By a path a program would be found whether it is declared or not."""
    absolute = re.compile(r"(?<![\w$}])/(?:usr/)?s?bin/([\w.-]+)")
    files = [
        file
        for folder in ("integration", "interop", "support")
        for file in (ROOT / "tests" / folder).rglob("*.*")
        if file.suffix in (".py", ".sh")
    ]
    assert len(files) > 50
    found = {(file.name, name) for file in files for name in absolute.findall(file.read_text())}
    others = {each for each in found if each[1] not in Table.read().groups["base"]}
    assert others == set()


TESTS = """
import subprocess, pytest

def test_hidden():
    subprocess.run(["sh", "-c", "{ stranger & wait; } >/dev/null 2>&1; true"], check=False)

@pytest.mark.foreign("iperf3")
def test_declared():
    subprocess.run(["iperf3"], check=True)

@pytest.mark.foreign("tshark")
def test_missing():
    pass

@pytest.mark.foreign("stranger")
def test_unknown():
    pass
"""


@pytest.mark.parametrize("ci", [True, False])
def test_pytest_fails_what_calls_an_undeclared_program(tmp_path: Path, ci: bool) -> None:
    for name in ("stranger", "iperf3"):
        make_program(tmp_path / "machine", name)
    (tmp_path / "machine" / "sh").symlink_to("/bin/sh")
    (tmp_path / "test_it.py").write_text(TESTS)
    environment = {
        "PATH": str(tmp_path / "machine"),
        "CI": str(ci).lower(),
        "PYTHONPATH": str(ROOT),
    }
    options = [
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-p", "tests.conftest", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    outcomes = {
        line for line in done.stdout.splitlines() if line.startswith(("ERR", "FAIL", "SKIP"))
    }
    assert any("ERROR test_it.py::test_hidden" in line for line in outcomes), done.stdout
    assert "not declared by @pytest.mark.foreign: stranger" in done.stdout
    assert "stranger: not in tests/setup/programs" in done.stdout
    assert "needs the program 'tshark'" in done.stdout
    counts = "2 passed, 3 errors" if ci else "2 passed, 1 skipped, 2 errors"
    assert counts in done.stdout.splitlines()[-1]
    assert not any("test_declared" in line for line in outcomes)
