"""`tunnel lab`, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ordinary_user import (
    AS_NOBODY,
    NOBODY,
    OPEN_TUN,
    OrdinaryUser,
    ordinary_user,
)
from tunnel.lab import Lab, state
from tunnel.lab.namespace import NETNS_DIRECTORY, start_time
from tunnel.linux.processes import netns_inode

pytestmark = [pytest.mark.root]


def run(
    *arguments: str, stdin: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tunnel", "lab", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(environment or {})},
    )


def check_steps(text: str, *, outer: int) -> None:
    """Eight sightings of one ping and its reply, with the sizes that WireGuard's paper gives."""
    report = json.loads(text)
    seen = [(s["host"], s["interface"], s["direction"], s["size"]) for s in report["steps"]]
    size = outer + 8 + 16 + 96 + 16
    assert seen == [
        ("A", "wg0", "out", 84),
        ("A", "eth0", "out", size),
        ("B", "eth0", "in", size),
        ("B", "wg0", "in", 84),
        ("B", "wg0", "out", 84),
        ("B", "eth0", "out", size),
        ("A", "eth0", "in", size),
        ("A", "wg0", "in", 84),
    ]
    times = [step["microseconds"] for step in report["steps"]]
    assert times == sorted(times)


def test_both_crossings_are_shown_and_nothing_stays() -> None:
    result = run()
    assert result.returncode == 0, result.stderr
    assert "84 + 20 IP + 8 UDP + 16 header + 12 padding + 16 tag = 156 bytes" in result.stdout
    assert "starting tunnel on A" in result.stderr
    assert "IP stack twice" in result.stdout


def test_every_hop_on_both_hosts_is_the_first_thing_shown() -> None:
    result = run()
    assert result.returncode == 0, result.stderr
    out = "OUTPUT POSTROUTING TUN.read allowed.IPs session seal UDP.send OUTPUT POSTROUTING"
    back = "PREROUTING INPUT UDP.receive open source.check TUN.write PREROUTING INPUT"
    wanted = f"echo.request host.A {out} host.B {back} echo.reply host.B {out} host.A {back}"
    position = 0
    for word in wanted.split():
        position = result.stdout.index(word.replace(".", " "), position) + 1
    assert "17 steps from one application to the other" in result.stdout


def test_the_hops_can_be_drawn(tmp_path: Path) -> None:
    picture = tmp_path / "way.svg"
    result = run("--json", "--svg", str(picture))
    assert result.returncode == 0, result.stderr
    journeys = json.loads(result.stdout)["journeys"]
    assert [journey["host"] for journey in journeys] == ["A", "A", "B", "B"]
    assert picture.read_text().count("POSTROUTING") == 4


def test_without_nft_the_interfaces_are_shown(tmp_path: Path) -> None:
    """As far as it goes on a machine that has all but that."""
    for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin"):
        for program in Path(folder).iterdir():
            link = tmp_path / program.name
            if program.name != "nft" and not link.is_symlink():
                link.symlink_to(program)
    result = run(environment={"PATH": str(tmp_path)})
    assert result.returncode == 0, result.stderr
    assert "the program nft is missing" in result.stderr
    assert "as the four interfaces saw them" in result.stdout


def test_json_is_all_that_a_program_reads() -> None:
    result = run("--json", "-6")
    assert result.returncode == 0, result.stderr
    check_steps(result.stdout, outer=40)
    hosts = json.loads(result.stdout)["hosts"]
    assert [host["program"] for host in hosts] == ["tunnel", "tunnel"]


def test_a_bad_wire_is_one_for_every_packet() -> None:
    words = ["--delay", "20ms", "--jitter", "5ms", "--duplicate", "50%", "--rebind", "30s"]
    result = run("--json", "--no-trace", *words, "--seed", "7")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["wire"]["faults"]["delay"] == 0.02
    assert (report["wire"]["seed"], report["wire"]["rebound"]) == (7, "A")
    assert report["steps"][-1]["microseconds"] >= 40_000
    # B sees A at another port than A has.
    sources = {(s["host"], s["source"]) for s in report["steps"] if s["layer"] == "outer"}
    ports = {host: source.rpartition(":")[2] for host, source in sources if "192.0.2.1" in source}
    assert ports["A"] == "51820" != ports["B"]
    assert (
        "on a bad wire: duplicate 50%, delay 20ms, jitter 5ms, rebind 30s (of A)" in result.stderr
    )


@pytest.mark.foreign("wireguard-go", "wg")
def test_a_foreign_program_can_be_b() -> None:
    result = run("--json", "--peer", "wireguard-go")
    assert result.returncode == 0, result.stderr
    check_steps(result.stdout, outer=20)
    assert json.loads(result.stdout)["hosts"][1]["program"] == "wireguard-go"


def test_shell_is_in_host_a(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/sh")
    result = run("--shell", stdin="hostname\nping -c1 10.77.0.2 | grep received\nexit 3\n")
    assert result.returncode == 0, result.stderr
    assert "\nA\n1 packets transmitted, 1 received" in result.stdout


def test_kept_lab_can_be_entered_and_taken_down() -> None:
    result = run("--keep", "--json")
    assert result.returncode == 0, result.stderr
    lab_id = next(found.id for found in state.read_all() if found.kept)
    name = f"{state.PREFIX}{lab_id}-A"
    try:
        inside = ["ip", "netns", "exec", name, "ping", "-c1", "-w5", "10.77.0.2"]
        assert subprocess.run(inside, capture_output=True, check=False).returncode == 0
        entered = run("--enter", f"{lab_id}/B", "--", "sh", "-c", "hostname; ping -c1 10.77.0.1")
        assert entered.returncode == 0, entered.stderr
        assert entered.stdout.startswith("B\n")
        # From one host into the other of the same lab, whatever else stands.
        from_there = f"exec {sys.executable} -m tunnel lab --enter B -- hostname"
        assert run("--enter", f"{lab_id}/A", "--", "sh", "-c", from_there).stdout == "B\n"
        unknown = run("--enter", f"{lab_id}/C")
        assert unknown.returncode == 1
        assert f"{lab_id}/A, {lab_id}/B" in unknown.stderr
    finally:
        down = run("--down", lab_id)
    assert down.returncode == 0, down.stderr
    assert not (NETNS_DIRECTORY / name).exists()
    again = run("--down", lab_id)
    assert again.returncode == 1
    assert f"there is no lab '{lab_id}'" in again.stderr


@dataclass(frozen=True)
class LabUser:
    """Runs `tunnel lab` as an ordinary user."""

    user: OrdinaryUser

    def run(self, *arguments: str, prepare: str = ":") -> subprocess.CompletedProcess[str]:
        """`prepare` is shell that runs as root first, in the user's mount namespace."""
        words = [sys.executable, "-m", "tunnel", "lab", *arguments]
        return subprocess.run(
            self.user.command(words, prepare=prepare),
            env={**os.environ, **self.user.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def labs(self) -> list[Path]:
        """Files of this user's labs."""
        return sorted(self.user.directory.glob(f"tunnel-lab-{NOBODY}/*.json"))


@pytest.fixture
def user() -> Iterator[LabUser]:
    with ordinary_user() as made:
        yield LabUser(made)


@pytest.mark.real_root
def test_an_ordinary_user_has_a_lab(user: LabUser) -> None:
    result = user.run("--json", prepare=OPEN_TUN.format(mode=666))
    assert result.returncode == 0, result.stderr
    check_steps(result.stdout, outer=20)
    assert len(json.loads(result.stdout)["journeys"]) == 4
    assert user.labs() == []


@pytest.mark.real_root
def test_an_ordinary_users_lab_can_be_kept(user: LabUser) -> None:
    result = user.run("--keep", prepare=OPEN_TUN.format(mode=666))
    assert result.returncode == 0, result.stderr
    (path,) = user.labs()
    holders = json.loads(path.read_text())["holders"]
    inode = netns_inode(f"/proc/{holders['A'][0]}/ns/net")
    assert inode is not None
    enter = next(line for line in result.stdout.splitlines() if "--user=" in line).split()[:-1]
    try:
        inside = subprocess.run(
            [*AS_NOBODY, *enter, "ping", "-c1", "-w5", "10.77.0.2"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert inside.returncode == 0, inside.stderr
        entered = user.run("--enter", f"{path.stem}/B", "--", "hostname")
        assert entered.stdout == "B\n", entered.stderr
        assert path.stem not in Lab.sweep()
    finally:
        down = user.run("--down", path.stem)
    assert down.returncode == 0, down.stderr
    assert all(start_time(pid) is None for pid, _ in holders.values())


@pytest.mark.real_root
def test_a_closed_tun_is_named_with_the_remedy(user: LabUser) -> None:
    result = user.run(prepare=OPEN_TUN.format(mode=600))
    assert result.returncode == 1
    assert "/dev/net/tun is not open to this user" in result.stderr
    assert "remedy: run the same command with sudo, or open the device" in result.stderr


@pytest.mark.real_root
def test_forbidden_user_namespaces_are_named_with_the_remedy(user: LabUser) -> None:
    # A file with the setting in question stands over the kernel's; unshare fails as it would.
    prepare = OPEN_TUN.format(mode=666) + (
        'mkdir "$dir/bin"; printf "#!/bin/sh\\necho unshare failed >&2; exit 1\\n" '
        '>"$dir/bin/unshare"; chmod 755 "$dir/bin/unshare"; PATH=$dir/bin:$PATH\n'
        'echo 0 >"$dir/limit"; mount --bind "$dir/limit" /proc/sys/user/max_user_namespaces'
    )
    result = user.run(prepare=prepare)
    assert result.returncode == 1
    assert "namespaces cannot be made here: unshare failed" in result.stderr
    assert "sudo sysctl -w user.max_user_namespaces=15000" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("options", [("--topology", "hub", "-6"), ("--", "true")])
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...]) -> None:
    refused = run(*options)
    assert refused.returncode == 2
    assert "--topology pair" in refused.stderr or "--enter HOST" in refused.stderr


@pytest.mark.parametrize("option", ["--no-trace", "--peer=wireguard-go"])
def test_a_picture_needs_a_trace(tmp_path: Path, option: str) -> None:
    refused = run("--svg", str(tmp_path / "x.svg"), option)
    assert refused.returncode == 2
    assert "leave out --no-trace and --peer" in refused.stderr


def test_a_picture_that_cannot_be_written_is_said_at_once() -> None:
    refused = run("--svg", "/nonexistent/way.svg")
    assert refused.returncode == 2
    assert "cannot write /nonexistent/way.svg" in refused.stderr
    assert "Traceback" not in refused.stderr
