"""Every command that we print to install something installs what we mean, and nothing else."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGES = {
    "containernetworking-plugins": "host-local",
    "gcc-aarch64-linux-gnu": "aarch64-linux-gnu-gcc",
    "iperf3": "iperf3",
    "iproute2": "ip",
    "iptables": "iptables-nft",
    "iputils-ping": "ping",
    "nftables": "nft",
    "openresolv": "resolvconf",
    "openssh-client": "ssh",
    "openvpn": "openvpn",
    "util-linux": "nsenter",
    "wireguard-go": "wireguard-go",
    "wireguard-tools": "wg",
}
"""Debian's packages that we name, each with the program it is named for."""

CRATES = {"gotatun-cli"}
"""Mullvad's GotaTun, which Debian has no package of."""

COMMAND = re.compile(r"\b(pip|pipx|uv|apt-get|apt|dnf|cargo|rustup|npm|conda)3? (?:install|add)\b")
END = re.compile(r"&&|[;,()`\n]|$")


def texts() -> Iterator[tuple[str, str]]:
    """Every string of the product, each with its place, and every document for users."""
    for path in sorted((ROOT / "tunnel").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        pieces = {id(p) for node in nodes if isinstance(node, ast.JoinedStr) for p in node.values}
        for node in nodes:
            if id(node) in pieces:
                continue
            place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield place, node.value
            elif isinstance(node, ast.JoinedStr):
                yield (
                    place,
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else "{}"
                        for part in node.values
                    ),
                )
    files = [path for path in (ROOT / "tunnel/systemd").rglob("*") if path.is_file()]
    units = [path for path in files if path.suffix not in (".py", ".pyc")]
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *units]:
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def web_packages() -> set[str]:
    """What our extra `web` needs, as it is named to pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split("[<>=]", each)[0] for each in project["optional-dependencies"]["web"]}


def wrong(text: str) -> list[str]:
    """What the commands in `text` would install and must not."""
    found = []
    for match in COMMAND.finditer(text):
        end = END.search(text, match.end())
        assert end is not None
        named = [w for w in text[match.end() : end.start()].split() if not w.startswith("-")]
        match match.group(1):
            case "pip":
                # A name would be looked up in an index, where anybody can have registered it.
                own = {".", *web_packages()}
                found += [w for w in named if w.strip("'") not in own and "/" not in w]
            case "apt-get":
                # {}: a value that is filled in, of a table that the test below looks at. With a
                # slash, it is a file.
                known = {*PACKAGES, "{}"}
                found += [name for name in named if name not in known and "/" not in name]
            case "cargo":
                found += [name for name in named if name not in CRATES]
            case other:
                found.append(f"{other} {' '.join(named)}")
        if not named:
            found.append(f"nothing: {match.group()}")
    return found


def test_remedies_install_only_what_we_mean() -> None:
    commands = 0
    for place, text in texts():
        commands += len(COMMAND.findall(text))
        assert wrong(text) == [], place
    assert commands >= 5


@pytest.mark.parametrize(
    "text",
    [
        "pip install tunnel",
        "x; /opt/tunnel/bin/pip install tunnel-vpn && y",
        "pip3 install -U tunnel",
        "pip install --force-reinstall",
        "apt-get install nft",
        "sudo apt-get install -y wireguard",
        "cargo install tunnel",
    ],
)
def test_a_wrong_remedy_is_seen(text: str) -> None:
    assert wrong(text)


@pytest.mark.parametrize(
    "text",
    ["pip install . && x", "pip install ./dist/*.whl", "apt-get install nftables, or go without"],
)
def test_a_right_remedy_is_let_pass(text: str) -> None:
    assert wrong(text) == []


def test_packages_of_the_lab_hold_its_programs() -> None:
    source = (ROOT / "tunnel/lab/rootless.py").read_text(encoding="utf-8")
    pairs = re.findall(r'\("([\w-]+)", "([\w-]+)"\)', source)
    assert ("ip", "iproute2") in pairs
    assert {package for _, package in pairs} <= set(PACKAGES)


@pytest.mark.foreign("dpkg-query")
def test_packages_hold_the_programs_they_are_named_for(machine_path: str) -> None:
    for package, program in PACKAGES.items():
        if shutil.which(program, path=machine_path) is None:
            continue
        # The same file has two paths where /bin is a link to /usr/bin, and dpkg knows one of them.
        paths = [
            f"{top}/{folder}/{program}"
            for top in ("", "/usr")
            for folder in ("bin", "sbin", "lib/cni")
        ]
        owner = subprocess.run(
            ["dpkg-query", "--search", *paths], capture_output=True, text=True, check=False
        )
        assert f"{package}: " in owner.stdout, program


def test_remedy_for_the_python_datapath_names_the_rust_that_is_needed() -> None:
    with (ROOT / "tunnel/datapath/native/Cargo.toml").open("rb") as file:
        rust = tomllib.load(file)["package"]["rust-version"]
    assert any(f"Rust {rust} or newer" in text for _, text in texts())


REOPENED = re.compile(r"tunnel down[^;,]*[;,] *(?:sudo |then |and )*(?:tunnel up|\{\}$)")


def test_no_remedy_opens_a_kill_switch_between_down_and_up() -> None:
    """`tunnel restart` does the same, and does not open it."""
    bad = [place for place, text in texts() if REOPENED.search(text) and not is_of_two(text)]
    assert bad == []


def is_of_two(text: str) -> bool:
    """Whether one tunnel should give its place to another one."""
    return "the conf is that of" in text


def test_what_would_open_one_is_found() -> None:
    for text in ("tunnel down wg0; tunnel up CONF", "run tunnel down {}, then tunnel up with it"):
        assert REOPENED.search(text)


def test_the_program_names_no_target_of_the_makefile() -> None:
    """Where it is installed there is none. A page of docs/, which a module writes, may name one."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = "|".join(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert "|lab" in f"|{targets}"
    found = re.compile(rf"\bmake ({targets})\b")
    named = [place for place, text in texts() if ".py:" in place and found.search(text)]
    assert [place for place in named if "tunnel/doctor/reference.py" not in place] == []
