"""A command that writes a file makes no folder out of a mistyped path."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.confs import OTHER, PRIVATE
from tunnel.cli import main

CONF = f"""\
[Interface]
PrivateKey = {PRIVATE}
Address = 10.0.0.1/24
ListenPort = 51820
[Peer]
PublicKey = {OTHER}
AllowedIPs = 10.0.0.2/32
"""


@pytest.mark.parametrize(
    "words",
    [
        "import office.conf -o {}",
        "export ./office.conf --to vyos -o {}",
        "qr ./office.conf --png {}",
        "qr ./office.conf --svg {}",
        "peer add ./office.conf phone --endpoint 192.0.2.1 --output {}",
        "web ./office.conf --no-login --listen unix:{}",
        "docker-plugin --socket {}",
        "capture office -w {}",
        "trace office --svg {}",
        "lab --svg {}",
        "bench --quick --plot {}",
    ],
)
def test_a_missing_folder_is_named_with_the_command_that_makes_it(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    conf = tmp_path / "office.conf"
    conf.write_text(CONF)
    conf.chmod(0o600)
    arguments = [word.format(tmp_path / "no such" / "x") for word in words.split()]
    done = CliRunner().invoke(main.make_app(arguments[0]), arguments)
    said = done.stderr.splitlines()[-1]
    assert said.startswith(f"tunnel: cannot write {tmp_path}/no such/x: there is no folder ")
    assert said.endswith(f": mkdir -p '{tmp_path}/no such'")
    assert done.exit_code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["office.conf"]
    assert conf.read_text() == CONF
