"""Hooks: the shell, %i, the output, failures, and who may have written them."""

import os
import time
from pathlib import Path

import pytest

from tunnel.host.errors import HostError
from tunnel.host.hooks import check_hook_source, run_hooks


def run(*commands: str) -> list[str]:
    lines: list[str] = []
    run_hooks("PostUp", commands, "tun0", lines.append)
    return lines


def test_output_and_interface_name() -> None:
    assert run("echo %i; echo oops >&2; printf tail-%i", "true") == [
        "PostUp: echo tun0; echo oops >&2; printf tail-tun0",
        "tun0",
        "oops",
        "tail-tun0",
        "PostUp: true",
    ]


def test_bytes_that_are_no_text() -> None:
    assert run(r"printf 'a\377b\n'")[1] == "a�b"


def test_failure_names_the_hook_and_stops(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"run PostUp = exit 3: exit status 3"):
        run("exit 3", f"touch {tmp_path}/never")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(HostError, match="killed by signal 9"):
        run("kill -9 $$")


def test_a_lot_of_output() -> None:
    assert len(run("seq 200000")) == 200_001


def test_background_process_does_not_hold_us_up(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = time.monotonic()
    assert run(f"sleep 30 & echo $! > {pid_file}; echo done")[1:] == ["done"]
    assert time.monotonic() - started < 10
    os.kill(int(pid_file.read_text()), 9)


def test_closed_output_is_waited_for() -> None:
    with pytest.raises(HostError, match="exit status 4"):
        run("exec >&- 2>&-; sleep 0.1; exit 4")


def test_only_confs_that_others_cannot_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    conf = tmp_path / "tun0.conf"
    conf.write_text("")
    conf.chmod(0o600)
    check_hook_source(conf)
    conf.chmod(0o620)
    with pytest.raises(HostError, match="others can write") as caught:
        check_hook_source(conf)
    assert "chmod go-w" in caught.value.remedy
    conf.chmod(0o600)
    tmp_path.chmod(0o777)
    with pytest.raises(HostError, match="others can write"):
        check_hook_source(conf)
    tmp_path.chmod(0o1777)
    check_hook_source(conf)
    tmp_path.chmod(0o755)
    with pytest.raises(HostError, match="No such file"):
        check_hook_source(tmp_path / "none.conf")
