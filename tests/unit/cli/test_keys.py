"""`tunnel genkey`, `pubkey`, `genpsk` and `strip`, alone and side by side with `wg`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.support.fake_client import runs
from tunnel.cli import keys

KEY = b"EM4C6YRDMx8FfeZmHxr1f7nLhQSUIEVmN1gkSRqcWUE="
TUNNEL = [sys.executable, "-m", "tunnel"]


def run(
    *arguments: str, program: list[str] = TUNNEL, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run a program, ours by default: slow, but with file descriptors of its own."""
    return subprocess.run([*program, *arguments], input=stdin, capture_output=True, check=False)


def invoke(*arguments: str, stdin: bytes = b"", **environment: str) -> Result:
    """Run a command of ours in this process."""
    return CliRunner().invoke(keys.app, arguments, input=stdin, env=environment)


INPUTS = [
    KEY,
    KEY + b"\n",
    KEY + b" \t\v\f\r\n\n",
    KEY + b"\n" * 9000,
    b"A" * 43 + b"=",
    b"",
    b"abc",
    b" " + KEY,
    KEY + b"x",
    KEY + b"\nx",
    KEY + b"\0",
    KEY + b"\xa0",
    KEY[:-1],
    KEY[:-2] + b"F=",
    b"\xff" * 44,
]


@pytest.mark.foreign("wg")
@pytest.mark.parametrize("stdin", INPUTS, ids=range(len(INPUTS)))
def test_pubkey_answers_as_wg_does(stdin: bytes) -> None:
    ours, theirs = invoke("pubkey", stdin=stdin), run("pubkey", program=["wg"], stdin=stdin)
    assert (ours.exit_code, ours.stdout_bytes) == (theirs.returncode, theirs.stdout)
    # wg's words come first in ours, the remedy behind them.
    words = theirs.stderr.decode().removeprefix("wg: ").strip()
    assert ours.stderr.removeprefix("tunnel: ").startswith(words)
    assert bool(ours.stderr) == bool(words)


@pytest.mark.foreign("wg")
def test_wg_takes_a_key_of_ours() -> None:
    key = run("genkey").stdout
    theirs = run("pubkey", program=["wg"], stdin=key)
    assert invoke("pubkey", stdin=key).stdout_bytes == theirs.stdout


def test_pubkey_says_what_is_wrong() -> None:
    assert invoke("pubkey", stdin=KEY[:-1]).stderr == (
        "tunnel: Key is not the correct length or format: standard input holds 43 bytes; "
        "a private key is 44 characters, as `tunnel genkey` prints them\n"
    )
    assert invoke("pubkey", stdin=KEY + b"x").stderr == (
        "tunnel: Trailing characters found after key: there is more; "
        "a private key is 44 characters, as `tunnel genkey` prints them\n"
    )


@pytest.mark.parametrize("command", ["genkey", "genpsk"])
def test_keys_are_new_each_time(command: str) -> None:
    first, second = invoke(command), invoke(command)
    assert first.exit_code == second.exit_code == 0
    assert re.fullmatch(r"[A-Za-z0-9+/]{43}=\n", first.stdout)
    assert first.stdout != second.stdout
    assert first.stderr == ""


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_file_that_others_can_read_is_worth_a_word(
    tmp_path: Path, mode: int, warns: bool
) -> None:
    path = tmp_path / "key"
    path.touch()
    path.chmod(mode)
    with path.open("wb") as file:
        done = subprocess.run([*TUNNEL, "genkey"], stdout=file, stderr=subprocess.PIPE, check=True)
    assert (b"Warning: writing to world accessible file.\n" in done.stderr) is warns


def test_a_key_that_cannot_be_written_is_a_failure() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*TUNNEL, "genkey"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        b"tunnel: cannot write the output: No space left on device\n",
    )


def test_closed_ends() -> None:
    shell = ["sh", "-c", '"$@" <&-', "sh", *TUNNEL]
    assert run("pubkey", program=shell).returncode == 1
    shell = ["sh", "-c", '"$@" >&-', "sh", *TUNNEL]
    done = run("genkey", program=shell)
    assert (done.returncode, done.stderr) == (
        1,
        b"tunnel: cannot write the output: standard output is closed\n",
    )


def test_strip_finds_a_conf_by_name(tmp_path: Path) -> None:
    (tmp_path / "own.key").write_bytes(KEY)
    (tmp_path / "own.key").chmod(0o600)
    (tmp_path / "office.conf").write_text(
        "# ours\n[Interface]\nPrivateKeyFile = own.key\nAddress = 10.0.0.1/24\n[Tunnel]\n"
        "Datapath = python\n"
    )
    done = invoke("strip", "office", TUNNEL_CONFIG_PATH=str(tmp_path))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout_bytes == b"[Interface]\nPrivateKey = " + KEY + b"\n"


def test_strip_takes_the_name_of_a_running_tunnel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "elsewhere" / "wg8.conf"
    conf.parent.mkdir()
    conf.write_bytes(b"[Interface]\nPrivateKey = " + KEY + b"\nMTU = 1400\n")
    conf.chmod(0o600)
    runs(monkeypatch, "wg8", conf)
    done = invoke("strip", "wg8", TUNNEL_CONFIG_PATH=str(tmp_path))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout_bytes == b"[Interface]\nPrivateKey = " + KEY + b"\n"


def test_strip_refuses_a_broken_conf(tmp_path: Path) -> None:
    path = tmp_path / "office.conf"
    path.write_text("[Interface]\nMTU = 12\n")
    done = invoke("strip", str(path))
    assert (done.exit_code, done.stdout) == (2, "")
    faults = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert [fault.partition("; ")[0] for fault in faults] == [
        "[Interface] has no PrivateKey and no PrivateKeyFile",
        'MTU must be a number of bytes from 576 to 65455, not "12"',
    ]


@pytest.mark.parametrize("command", ["genkey", "genpsk", "pubkey", "strip"])
def test_help_is_there(command: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert f"{command} [OPTIONS]" in done.stdout
