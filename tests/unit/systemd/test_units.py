"""Installing and removing the units, in a root folder of the test's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tunnel.cli.main import make_app
from tunnel.systemd import units
from tunnel.systemd.units import ServiceError

PROGRAM = "/opt/tunnel/bin/tunnel"
FOLDER = "etc/systemd/system"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_program(tmp_path, PROGRAM)
    return tmp_path


def make_program(root: Path, path: str, first_line: str = "#!/bin/sh") -> Path:
    program = root / path.lstrip("/")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"{first_line}\n")
    program.chmod(0o755)
    if first_line == "#!/bin/sh":
        shell = root / "bin/sh"
        shell.parent.mkdir(exist_ok=True)
        shell.touch(mode=0o755)
    return program


def files(root: Path) -> list[str]:
    found = (path for path in (root / FOLDER).rglob("*") if path.is_file())
    return sorted(str(path.relative_to(root / FOLDER)) for path in found)


def test_install_writes_whole_units_and_uninstall_takes_them_away(root: Path) -> None:
    written = units.install(root, [PROGRAM], names=("hooks", "sysctl"))
    expected = [
        "tunnel.target",
        "tunnel@.service",
        "tunnel@.service.d/hooks.conf",
        "tunnel@.service.d/sysctl.conf",
    ]
    assert files(root) == expected
    assert len(written) == 4
    unit = (root / FOLDER / "tunnel@.service").read_text()
    assert f"ExecStart={PROGRAM} up --foreground %i\n" in unit
    assert "@TUNNEL@" not in unit
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in written)
    assert units.install(root, [PROGRAM], names=("hooks", "sysctl")) == []
    assert sorted(units.uninstall(root)) == sorted(written)
    assert files(root) == []
    assert not (root / FOLDER / "tunnel@.service.d").exists()
    assert units.uninstall(root) == []


def test_the_units_for_docker_come_and_go_with_the_others(root: Path) -> None:
    docker = ["tunnel-docker-plugin.service", "tunnel-docker-plugin.socket"]
    others = ["tunnel.target", "tunnel@.service"]
    units.install(root, [PROGRAM], docker=True)
    assert files(root) == [*docker, *others]
    assert f"ExecStart={PROGRAM} docker-plugin\n" in (root / FOLDER / docker[0]).read_text()
    assert units.install(root, [PROGRAM]) == [], "what is there stays"
    wants = root / FOLDER / "sockets.target.wants"
    wants.mkdir()
    (wants / docker[1]).symlink_to(f"../{docker[1]}")
    assert units.enabled(root) == [docker[1]]
    (wants / docker[1]).unlink()
    units.uninstall(root)
    assert files(root) == []


def test_the_unit_of_pages_comes_and_goes_with_the_others(root: Path) -> None:
    units.install(root, [PROGRAM], web=True)
    assert units.WEB in files(root)
    assert f"ExecStart={PROGRAM} web %i\n" in (root / FOLDER / units.WEB).read_text()
    wants = root / FOLDER / "multi-user.target.wants"
    wants.mkdir()
    (wants / "tunnel-web@office.service").symlink_to(f"../{units.WEB}")
    assert units.enabled(root) == ["tunnel-web@office"]
    (wants / "tunnel-web@office.service").unlink()
    units.uninstall(root)
    assert files(root) == []


def test_drop_ins_for_one_tunnel_alone(root: Path) -> None:
    units.install(root, [PROGRAM], names=("hooks",), interface="wg0")
    assert "tunnel@wg0.service.d/hooks.conf" in files(root)


def test_what_others_put_there_stays(root: Path) -> None:
    units.install(root, [PROGRAM], names=("hooks",))
    theirs = root / FOLDER / "tunnel@.service.d" / "override.conf"
    theirs.write_text("[Service]\nNice=5\n")
    units.uninstall(root)
    assert files(root) == ["tunnel@.service.d/override.conf"]
    (root / FOLDER / "tunnel.target").write_text("[Unit]\n")
    with pytest.raises(ServiceError, match=r"tunnel\.target already exists and is not ours"):
        units.install(root, [PROGRAM])
    assert "tunnel@.service" not in files(root)


def test_unknown_drop_in_names_those_there_are(root: Path) -> None:
    with pytest.raises(ServiceError, match=r"'hoks'; there are hooks, namespaces, "):
        units.install(root, [PROGRAM], names=("hoks",))
    assert files(root) == []


@pytest.mark.parametrize("path", ["/tmp/venv/bin/tunnel", "/var/tmp/tunnel"])
def test_program_in_a_folder_for_temporary_files_is_refused(root: Path, path: str) -> None:
    make_program(root, path)
    with pytest.raises(ServiceError, match=r"temporary files; install .* /opt/tunnel"):
        units.install(root, [path])


@pytest.mark.parametrize("path", ["/nowhere", "relative/tunnel", "/etc"])
def test_what_is_no_program_is_refused(root: Path, path: str) -> None:
    with pytest.raises(ServiceError, match="not the path of an executable program"):
        units.install(root, [path])


def test_program_that_others_can_change_is_refused(root: Path) -> None:
    folder = root / "opt/tunnel/bin"
    folder.chmod(0o777)
    with pytest.raises(ServiceError, match=r"opt/tunnel/bin can be changed by users other"):
        units.install(root, [PROGRAM])
    folder.chmod(0o1777)  # sticky: what is there belongs to its owner
    units.install(root, [PROGRAM])
    (folder / "tunnel").chmod(0o775)
    with pytest.raises(ServiceError, match=r"bin/tunnel can be changed by users other than root"):
        units.install(root, [PROGRAM])


@pytest.mark.real_root
def test_program_of_another_user_is_refused(root: Path) -> None:
    os.chown(root / "opt/tunnel", 12345, 12345)
    with pytest.raises(ServiceError, match=r"opt/tunnel can be changed by users other"):
        units.install(root, [PROGRAM])


def test_interpreter_in_a_home_folder_is_seen(root: Path) -> None:
    make_program(root, "/home/admin/python/bin/python3", "binary")
    make_program(root, PROGRAM, "#!/home/admin/python/bin/python3")
    units.install(root, [PROGRAM])
    assert "ProtectHome=read-only" in (root / FOLDER / "tunnel@.service.d/home.conf").read_text()


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("/opt/a b/tunnel", '"/opt/a b/tunnel"'),
        ("/opt/100%/tunnel", "/opt/100%%/tunnel"),
        ("/opt/$x/tunnel", "/opt/$$x/tunnel"),
        ('/opt/"/tunnel', '"/opt/\\"/tunnel"'),
    ],
)
def test_paths_are_quoted_as_systemd_wants_it(program: str, expected: str) -> None:
    unit = units.render(units.UNIT, [program, "-m", "tunnel"])
    assert f"ExecStart={expected} -m tunnel up --foreground %i\n" in unit


def test_every_drop_in_is_documented() -> None:
    found = units.drop_ins()
    assert set(found) == {"hooks", "namespaces", "resolvconf", "save-config", "sysctl"}
    for name, drop_in in found.items():
        assert drop_in.text.startswith(f"{units.MARK} --with {name}`.\n")
        assert len(drop_in.purpose) > 40
        assert "[Service]" in drop_in.text


def test_command_says_what_it_did_and_what_is_next(root: Path) -> None:
    run = CliRunner().invoke
    base = ["--root", str(root)]
    done = run(make_app(), ["service", "install", *base, "--program", PROGRAM])
    assert done.exit_code == 0, done.output
    assert f"wrote {root / FOLDER / 'tunnel@.service'}" in done.output
    assert "systemctl daemon-reload" in done.output
    assert "systemctl enable --now tunnel@NAME" in done.output
    again = run(make_app(), ["service", "install", *base, "--program", PROGRAM])
    assert again.output == "everything is installed already\n"
    wants = root / FOLDER / "tunnel.target.wants"
    wants.mkdir()
    link = wants / "tunnel@wg0.service"
    link.symlink_to("../tunnel@.service")
    refused = run(make_app(), ["service", "uninstall", *base])
    assert refused.exit_code == 1
    assert "systemctl disable --now tunnel@wg0" in refused.output
    link.unlink()
    done = run(make_app(), ["service", "uninstall", *base])
    assert done.exit_code == 0
    assert "removed" in done.output
    assert (
        run(make_app(), ["service", "uninstall", *base]).output
        == "none of our units is installed\n"
    )


def test_command_shows_the_unit_and_each_drop_in() -> None:
    shown = CliRunner().invoke(make_app(), ["service", "show", "--program", PROGRAM])
    assert f"ExecStart={PROGRAM} up" in shown.output
    assert re.search(r"^# +hooks: For PreUp", shown.output, re.M)
    one = CliRunner().invoke(make_app(), ["service", "show", "save-config"])
    assert "ReadWritePaths=-/etc/tunnel -/etc/wireguard" in one.output
    assert CliRunner().invoke(make_app(), ["service", "show", "x"]).exit_code == 2


@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_command_without_root_is_refused_clearly(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = CliRunner().invoke(make_app(), ["service", command])
    assert done.exit_code == 1
    assert "run it as root (sudo)" in done.output


@pytest.mark.parametrize("arguments", [["--for", "wg0"], ["--for", "no/name", "--with", "hooks"]])
def test_command_refuses_what_makes_no_sense(root: Path, arguments: list[str]) -> None:
    done = CliRunner().invoke(make_app(), ["service", "install", "--root", str(root), *arguments])
    assert done.exit_code == 2
