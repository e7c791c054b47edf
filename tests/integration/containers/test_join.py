"""Further commands in the network of a `tunnel run`, and how it is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.support.runs import Near, near
from tunnel.lab.peers import OurEnd, render_conf

pytestmark = [pytest.mark.root]

TUNNEL = [sys.executable, "-m", "tunnel"]


@pytest.fixture(params=["root", pytest.param("user", marks=pytest.mark.real_root)], scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Near]:
    with near(as_user=request.param == "user") as made:
        yield made


def test_a_command_joins_is_shown_and_ends_with_the_first(run: Near) -> None:
    a = run.hosts.a

    def call(*words: str) -> tuple[int, str, str]:
        done = a.run(run.as_caller([*TUNNEL, *words]), check=False, environment=run.environment)
        return done.returncode, done.stdout, done.stderr

    first = run.start("sh", "-c", "echo ready; exec sleep 1000")
    first.wait_for_output("ready")
    code, printed, _ = call("run", "--join", "wg0", "--", "ping", "-c1", "-w5", "10.77.0.2")
    assert code == 0
    assert " 0% packet loss" in printed
    state = "readlink /proc/self/ns/net; id -u; pwd; grep CapEff /proc/self/status; exit 6"
    code, printed, error = call("run", "--join", "wg0", "sh", "-c", state)
    assert (code, error) == (6, "")
    inode, uid, folder, capabilities = printed.split("\n")[:4]
    assert inode != f"net:[{a.netns_inode}]"
    assert folder.startswith("/")
    if run.user is not None:
        assert uid != "0"
        assert capabilities.endswith("\t0000000000000000")
    code, printed, error = call("show", "--json")
    assert code == 0, error
    (status,) = json.loads(printed)
    assert (status["name"], status["here"], len(status["peers"])) == ("wg0", False, 1)
    assert status["peers"][0]["rx_bytes"] > 0
    code, _, error = call("down", "wg0")
    assert code == 1
    assert "it goes down when the command ends" in error
    joined = a.popen(
        run.as_caller([*TUNNEL, "run", "--join", "wg0", "sh", "-c", "echo in; exec sleep 1000"]),
        environment=run.environment,
    )
    joined.wait_for_output("in\n")
    assert first.stop() == -15
    assert joined.wait(10) == -15
    a.wait_for(lambda: not run.leftovers(), 10, "the end of everything")


def test_what_cannot_be_joined_is_named(run: Near) -> None:
    a = run.hosts.a
    words = run.as_caller([*TUNNEL, "run", "--join", "nothing", "--", "true"])
    missing = a.run(words, check=False, environment=run.environment)
    assert missing.returncode == 1
    assert "no tunnel named nothing is running" in missing.stderr
    words = run.as_caller([*TUNNEL, "run", "-p", "1:1", "--join", "wg0", "--", "true"])
    both = a.run(words, check=False, environment=run.environment)
    assert both.returncode == 2
    assert "-p belongs to the first command" in both.stderr


def test_a_tunnel_of_the_whole_host_is_not_joined() -> None:
    with near(as_user=False) as run:
        run.conf.unlink()
        conf = render_conf(replace(run.far.node, host=run.hosts.a, port=51821), [])
        host = OurEnd(replace(run.far.node, host=run.hosts.a), conf)
        host.up()
        joined = run.hosts.a.run([*TUNNEL, "run", "--join", "wg0", "true"], check=False)
        assert joined.returncode == 1
        assert "wg0 was set up by tunnel up, for the whole host" in joined.stderr
        again = run.run("true")
        assert again.returncode == 1
        assert "a tunnel named wg0 is already running" in again.stderr
        host.down()
