"""The programs of examples/: a tunnel in trio, in asyncio and without either; how they end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import remains
from tests.support.hosts import TwoHosts
from tests.support.pairs import status
from tunnel.lab.peers import Node, OurEnd, mesh, render_conf

EXAMPLES = Path(__file__).parents[3] / "examples"
PROGRAMS = ("embed.py", "blocking.py", "with_asyncio.py")
PATHS = {"PYTHONPATH": os.getcwd()}

pytestmark = pytest.mark.root
each_program = pytest.mark.parametrize("program", PROGRAMS)


def make_ends(two: TwoHosts) -> tuple[OurEnd, OurEnd]:
    """A conf for each host; the first, for a program, begins a handshake by itself."""
    a = Node(two.a, ("10.77.0.1/24",), "192.0.2.1", keepalive=25)
    b = Node(two.b, ("10.77.0.2/24",), "192.0.2.2")
    ends = mesh([a, b])
    one, other = ends["a"], ends["b"]
    assert isinstance(one, OurEnd)
    assert isinstance(other, OurEnd)
    return one, other


@each_program
def test_a_program_has_a_tunnel_until_a_handshake(two_hosts: TwoHosts, program: str) -> None:
    one, other = make_ends(two_hosts)
    other.up()
    command = [sys.executable, "-W", "error", str(EXAMPLES / program), str(one.conf)]
    ran = two_hosts.a.run(command, environment=PATHS)
    assert "wg0 is up on UDP port 51820" in ran.stdout
    assert ran.stderr == ""
    assert remains(two_hosts.a) == []
    assert status(other)["peers"][0]["latest_handshake"] > 0


@each_program
def test_a_program_does_not_wait_for_ever_for_a_handshake(
    two_hosts: TwoHosts, program: str, tmp_path: Path
) -> None:
    a = Node(two_hosts.a, ("10.77.0.1/24",), "192.0.2.1")
    end = OurEnd(a, render_conf(a, [Node(two_hosts.b, ("10.77.0.2/24",), "192.0.2.2")]))
    text = (EXAMPLES / program).read_text()
    assert "PATIENCE = 10.0\n" in text
    impatient = tmp_path / program
    impatient.write_text(text.replace("PATIENCE = 10.0\n", "PATIENCE = 0.5\n"))
    process = two_hosts.a.popen([sys.executable, str(impatient), str(end.conf)], environment=PATHS)
    assert process.wait(20) == 1
    assert process.log().splitlines()[-1] == f"{impatient}: no peer has answered"
    assert "Traceback" not in process.log()
    assert remains(two_hosts.a) == []


@each_program
def test_an_interrupt_ends_it_in_one_line(two_hosts: TwoHosts, program: str) -> None:
    one, _ = make_ends(two_hosts)
    process = two_hosts.a.popen(
        [sys.executable, str(EXAMPLES / program), str(one.conf)], environment=PATHS
    )
    process.wait_for_output("is up on UDP port")
    process.signal(signal.SIGINT)
    assert process.wait(10) == 1
    last = process.log().splitlines()[-1]
    assert last == f"{EXAMPLES / program}: interrupted; the tunnel is down"
    assert "Traceback" not in process.log()
    assert remains(two_hosts.a) == []


@each_program
def test_a_missing_conf_is_one_line(program: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / program), "./none.conf"],
        env={**os.environ, **PATHS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    remedy = "there is no none.conf; check the path"
    assert ran.stderr == f"{EXAMPLES / program}: ./none.conf: {remedy}\n"


def test_the_tests_of_the_examples_pass() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest"]
    # Where it was not installed since it has one, there is no entry point for pytest.
    command += ["-p", "tunnel.testing.plugin", str(EXAMPLES / "test_over_a_bad_wire.py")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    assert "3 passed" in ran.stdout
