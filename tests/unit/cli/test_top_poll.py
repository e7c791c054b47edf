"""Looks at daemons of which one hangs, one ends and one is well."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import typer

from tests.support.statuses import STATUS
from tunnel.cli.top import command, poll
from tunnel.cli.top.poll import Looker, open_looker
from tunnel.control import run_folder
from tunnel.control.json_client import NotRunningError
from tunnel.control.json_protocol import ControlError
from tunnel.control.json_socket import serve
from tunnel.control.unix_socket import bind_unix_socket


class Daemon:
    """What stands in for one: it answers, hangs or ends as it is told."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked = 0
        self.hangs = trio.Event()
        self.hangs.set()
        self.refusal: ControlError | None = None
        self.scope = trio.CancelScope()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with bind_unix_socket(run_folder.socket_path(self.name)) as listener, self.scope:
            task_status.started()
            await serve(listener, {"status": self.status})

    async def status(self, params: dict[str, Any]) -> Any:
        self.asked += 1
        await self.hangs.wait()
        if self.refusal is not None:
            raise self.refusal
        return dataclasses.replace(STATUS, name=self.name).to_json()


Scenario = Callable[[Looker, Daemon, Daemon], Awaitable[None]]


@pytest.fixture
def with_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """Run a scenario with daemons of wg0 and wg1."""
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)

    async def main(scenario: Scenario) -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                daemons = [Daemon("wg0"), Daemon("wg1")]
                for daemon in daemons:
                    await nursery.start(daemon.run)
                names = run_folder.running_names()
                async with open_looker([*names, "wg9"], patient=True) as looker:
                    await scenario(looker, *daemons)
                nursery.cancel_scope.cancel()

    return lambda scenario: trio.run(main, scenario)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a daemon that hangs; one that answers must have done it by then on a busy machine."""
    monkeypatch.setattr(poll, "PATIENCE", 0.05)
    monkeypatch.setattr(poll, "ANSWER_TIME", 1.5)


def seen(looker: Looker) -> list[str]:
    return [status.name for status in looker.statuses]


@pytest.mark.usefixtures("impatient")
def test_one_that_hangs_is_left_out_until_it_answers(
    with_two: Callable[[Scenario], None],
) -> None:
    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        two.hangs = trio.Event()
        async with trio.open_nursery() as nursery:
            for name in looker.names:
                nursery.start_soon(looker.follow, name, 0.01)
            hangs = ["the daemon of wg1 does not answer"]
            while not (one.asked > 5 and looker.problems == hangs and seen(looker) == ["wg0"]):
                await trio.sleep(0.01)
            assert two.asked == 1
            two.hangs.set()
            while seen(looker) != ["wg0", "wg1"] or looker.problems:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    with_two(scenario)


def test_one_that_ends_is_told_of_and_the_others_go_on(
    with_two: Callable[[Scenario], None],
) -> None:
    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        await looker.look_at_all()
        assert seen(looker) == ["wg0", "wg1"]
        two.scope.cancel()
        await looker.look_at_all()
        assert seen(looker) == looker.names == ["wg0"]
        assert looker.problems == ["wg1 has gone down"]

    with_two(scenario)


def test_one_that_refuses_does_not_end_the_view_of_others(
    with_two: Callable[[Scenario], None],
) -> None:
    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        one.refusal = ControlError("state", "wg0 is going down")
        two.refusal = ControlError("version", "this daemon speaks version 2")
        await looker.look_at_all()
        assert looker.names == ["wg0"]
        assert looker.problems == ["wg0 is going down", "this daemon speaks version 2"]
        one.refusal = None
        await looker.look_at_all()
        assert seen(looker) == ["wg0"]

    with_two(scenario)


@pytest.mark.usefixtures("impatient")
def test_once_waits_for_no_daemon_longer_than_it_has_to(
    with_two: Callable[[Scenario], None],
) -> None:
    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        two.hangs = trio.Event()
        await looker.look_at_all()
        await looker.look_at_all()
        assert (one.asked, two.asked) == (2, 1)
        assert looker.problems == ["the daemon of wg1 does not answer"]

    with_two(scenario)


@pytest.mark.parametrize("as_json", [True, False])
def test_once_says_what_went_down_meanwhile(
    with_two: Callable[[Scenario], None], capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        look = looker.look_at_all

        async def look_then_end() -> None:
            await look()
            two.scope.cancel()

        looker.look_at_all = look_then_end  # type: ignore[method-assign]
        with pytest.raises(typer.Exit) as left:
            await command._print_once(looker, 0.01, as_json=as_json)
        assert left.value.exit_code == 1

    with_two(scenario)
    out, err = capsys.readouterr()
    assert err == "tunnel: wg1 has gone down\n"
    if as_json:
        assert [status["name"] for status in json.loads(out)] == ["wg0"]
    else:
        assert "wg0" in out


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), (None, 170)])
def test_once_is_as_wide_as_columns_says(
    with_two: Callable[[Scenario], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: str | None,
    widest: int,
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)

    async def scenario(looker: Looker, one: Daemon, two: Daemon) -> None:
        await command._print_once(looker, 0.01, as_json=False)

    with_two(scenario)
    lines = capsys.readouterr().out.splitlines()
    assert 80 * (widest > 80) < max(map(len, lines)) <= widest


def test_one_that_is_named_has_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "RUN_FOLDER", tmp_path)

    async def main() -> None:
        async with open_looker(["wg9"], patient=False):
            pass

    with pytest.raises(NotRunningError):
        trio.run(main)
