"""Name servers by a resolvconf and a systemd-resolved that note what they are told."""

import logging
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest
import trio
from jeepney import (  # type: ignore[import-untyped]
    HeaderFields,
    MessageType,
    new_error,
    new_method_return,
)
from jeepney.bus_messages import message_bus  # type: ignore[import-untyped]
from jeepney.io.blocking import open_dbus_connection  # type: ignore[import-untyped]
from jeepney.io.trio import (  # type: ignore[import-untyped]
    open_dbus_connection as open_trio_connection,
)

from tests.support.host_namespace import Namespace
from tunnel.host import HostError, apply, desired_state, keep_servers, reconcile, remove
from tunnel.host import dns as dns_module
from tunnel.host import resolved as resolved_module
from tunnel.host.dns import (
    RESOLVCONF,
    RESOLVED,
    choose_backend,
    set_dns,
    still_stands,
    unset_dns,
)
from tunnel.host.state import DesiredState, Dns

DNS = Dns((ip_address("10.9.0.53"), ip_address("fd00::53")), ("lan", "example.org"))
REFUSED, SILENCE = "refused.example", "silent.example"
"""Domains that the service refuses, and to which it says nothing at all."""
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/>
<allow own="*"/></policy></busconfig>"""


@pytest.fixture
def resolvconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A resolvconf first on PATH; the file which it writes its arguments and input to."""
    programs, log = tmp_path / "bin", tmp_path / "resolvconf.log"
    programs.mkdir()
    script = programs / "resolvconf"
    script.write_text(
        f'#!/bin/sh\necho "resolvconf $*" >> {log}\n'
        f'[ "$1" = -d ] || cat >> {log}\n[ ! -e {tmp_path}/broken ] || exit 1\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return log


@pytest.fixture
def no_resolvconf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PATH on which there is nothing, and no system bus."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")


Calls = list[tuple[str, Any]]


on_a_bus = pytest.mark.foreign("dbus-daemon")
"""Of every test with the fixture `resolved`."""


@pytest.fixture
def path() -> str:
    """The PATH as it was before other fixtures changed it, if it is named before them."""
    return os.environ["PATH"]


@pytest.fixture
def resolved(
    path: str, tmp_path: Path, no_resolvconf: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Calls]:
    """A systemd-resolved on a bus of its own; the calls that it got."""
    socket, config = tmp_path / "bus", tmp_path / "bus.conf"
    config.write_text(CONFIG.format(socket=socket))
    program = shutil.which("dbus-daemon", path=path)
    assert program is not None, "not declared by the test"
    argv = [program, f"--config-file={config}", "--nofork", "--print-address"]
    address = f"unix:path={socket}"
    calls: Calls = []
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as daemon:
        try:
            assert daemon.stdout is not None
            daemon.stdout.readline()
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
            ready = threading.Event()
            service = threading.Thread(target=_serve, args=(address, calls, ready.set))
            service.start()
            assert ready.wait(10)
            yield calls
        finally:
            daemon.terminate()
        service.join(10)


def _serve(address: str, calls: Calls, ready: Callable[[], None]) -> None:
    with open_dbus_connection(address) as bus:
        bus.send_and_get_reply(message_bus.RequestName("org.freedesktop.resolve1"))
        ready()
        while True:
            try:
                message = bus.receive()
            except (OSError, EOFError):
                return
            if message.header.message_type is not MessageType.method_call:
                continue
            member = message.header.fields[HeaderFields.member]
            if member in ("GetLink", "Get"):
                bus.send(_answer(message, member, calls))
                continue
            calls.append((member, message.body))
            if SILENCE in str(message.body):
                continue
            if message.body[0] == 404 or REFUSED in str(message.body):
                reply = new_error(message, "org.freedesktop.resolve1.NoSuchLink")
            else:
                reply = new_method_return(message)
            bus.send(reply)


def _answer(message: Any, member: str, calls: Calls) -> Any:
    """Which object a link is, and which servers the calls have left it with."""
    if member == "GetLink":
        return new_method_return(message, "o", (f"/org/freedesktop/resolve1/{message.body[0]}",))
    servers: Any = []
    for name, body in calls:
        if name in ("SetLinkDNS", "RevertLink"):
            servers = body[1] if name == "SetLinkDNS" else []
    return new_method_return(message, "v", (("a(iay)", servers),))


def test_resolvconf(resolvconf: Path) -> None:
    assert choose_backend() == RESOLVCONF
    set_dns("tun0", 7, DNS, RESOLVCONF)
    unset_dns("tun0", 7, RESOLVCONF)
    assert resolvconf.read_text().splitlines() == [
        "resolvconf -a tun.tun0 -m 0 -x",
        "nameserver 10.9.0.53",
        "nameserver fd00::53",
        "search lan example.org",
        "resolvconf -d tun.tun0 -f",
    ]


@on_a_bus
def test_resolved(resolved: Calls) -> None:
    assert choose_backend() == RESOLVED
    set_dns("tun0", 7, DNS, RESOLVED)
    unset_dns("tun0", 7, RESOLVED)
    assert resolved == [
        ("SetLinkDNS", (7, [(2, bytes([10, 9, 0, 53])), (10, ip_address("fd00::53").packed)])),
        ("SetLinkDomains", (7, [("lan", False), ("example.org", False), (".", True)])),
        ("SetLinkDefaultRoute", (7, True)),
        ("RevertLink", (7,)),
    ]


@on_a_bus
def test_resolved_is_asked_what_it_has(resolved: Calls) -> None:
    other = Dns((ip_address("10.9.0.54"),))
    assert not still_stands(DNS, 7, RESOLVED, "")
    set_dns("tun0", 7, DNS, RESOLVED)
    assert still_stands(DNS, 7, RESOLVED, "")
    set_dns("tun0", 7, other, RESOLVED)
    assert not still_stands(DNS, 7, RESOLVED, "")
    unset_dns("tun0", 7, RESOLVED)
    assert not still_stands(other, 7, RESOLVED, "")


def test_servers_stand_where_no_one_can_be_asked(no_resolvconf: None) -> None:
    assert still_stands(DNS, 7, RESOLVED, "")


@on_a_bus
def test_routing_domains(resolved: Calls) -> None:
    search = ("~corp.example", "lan", "~lan", ".", "~.", "Example.org.")
    set_dns("tun0", 7, Dns(DNS.servers, search), RESOLVED)
    domains = dict(resolved)["SetLinkDomains"]
    wanted = [("corp.example", True), ("lan", False), (".", True), ("Example.org", False)]
    assert domains == (7, wanted)


@on_a_bus
def test_resolved_refuses(resolved: Calls) -> None:
    with pytest.raises(HostError, match="NoSuchLink"):
        set_dns("tun0", 404, DNS, RESOLVED)
    unset_dns("tun0", 404, RESOLVED)  # a link that is gone took its servers along


@on_a_bus
def test_the_bus_is_spoken_to_on_trio(resolved: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    scope = trio.CancelScope()

    async def noting(bus: str) -> Any:
        threads.append(threading.get_ident())
        # Whoever is cancelled meanwhile has set it all the same, as any step that a thread does.
        scope.cancel()
        return await open_trio_connection(bus)

    monkeypatch.setattr(resolved_module, "open_dbus_connection", noting)

    async def main() -> None:
        with scope:
            await trio.to_thread.run_sync(set_dns, "tun0", 7, DNS, RESOLVED)
        await trio.to_thread.run_sync(unset_dns, "tun0", 7, RESOLVED)

    trio.run(main)
    assert threads == [threading.get_ident()] * 2
    assert [name for name, _ in resolved] == [
        "SetLinkDNS",
        "SetLinkDomains",
        "SetLinkDefaultRoute",
        "RevertLink",
    ]


@on_a_bus
def test_resolved_that_does_not_answer(resolved: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolved_module, "_TIMEOUT", 0.5)
    with pytest.raises(HostError, match=r"no answer from the system bus within 0.5 s"):
        set_dns("tun0", 7, Dns(DNS.servers, (SILENCE,)), RESOLVED)


@on_a_bus
@pytest.mark.root
@pytest.mark.parametrize("domain", [REFUSED, SILENCE])
@pytest.mark.parametrize("on_trio", [True, False], ids=["on-trio", "alone"])
def test_failing_resolved_undoes_all(
    ns: Namespace,
    tmp_path: Path,
    path: str,
    resolved: Calls,
    monkeypatch: pytest.MonkeyPatch,
    domain: str,
    on_trio: bool,
) -> None:
    monkeypatch.setattr(resolved_module, "_TIMEOUT", 0.5)
    monkeypatch.setattr(import_module("tunnel.host.apply"), "choose_backend", lambda: RESOLVED)
    monkeypatch.setenv("PATH", path)
    place = tmp_path / "state"
    wanted = replace(state(), dns=Dns(DNS.servers, (domain,)))
    before = ns.snapshot()
    call = partial(apply, wanted, netns=ns.path, state_dir=place)
    if on_trio:
        call = partial(trio.run, trio.to_thread.run_sync, call)
    with pytest.raises(HostError, match="set dns"):
        call()
    assert ns.snapshot() == before
    assert list(place.iterdir()) == []
    assert resolved[-1][0] == "RevertLink"


@on_a_bus
def test_systemds_resolvconf_is_resolved(
    resolved: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "resolvectl").write_text("#!/bin/sh\n")
    (programs / "resolvectl").chmod(0o755)
    (programs / "resolvconf").symlink_to("resolvectl")
    monkeypatch.setenv("PATH", str(programs))
    assert choose_backend() == RESOLVED


def test_neither(no_resolvconf: None) -> None:
    with pytest.raises(HostError, match="neither resolvconf nor systemd-resolved") as caught:
        choose_backend()
    assert "apt-get install" in caught.value.remedy
    unset_dns("tun0", 7, RESOLVED)
    unset_dns("tun0", 7, RESOLVCONF)


def state(dns: str = "10.9.0.53") -> DesiredState:
    servers = [ip_address(text) for text in dns.split()]
    return desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1420, dns=servers)


@pytest.mark.root
def test_dns_in_a_state(ns: Namespace, tmp_path: Path, resolvconf: Path) -> None:
    place = tmp_path / "state"
    apply(state(), netns=ns.path, state_dir=place)
    reconcile(state("10.9.0.54"), netns=ns.path, state_dir=place)
    assert resolvconf.read_text().count("resolvconf -a") == 2
    assert "resolvconf -d" not in resolvconf.read_text(), "replaced, never taken away between"
    ns.ip("link", "delete", "tun0")
    remove("tun0", netns=ns.path, state_dir=place)
    assert resolvconf.read_text().splitlines()[-1] == "resolvconf -d tun.tun0 -f"


@pytest.mark.root
def test_dns_that_others_took_away_is_set_again(
    ns: Namespace, tmp_path: Path, resolvconf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether they did cannot be seen, so it is set once each time."""
    place = tmp_path / "state"
    for times in (1, 2, 3):
        change = apply if times == 1 else reconcile
        change(state(), netns=ns.path, state_dir=place)
        assert resolvconf.read_text().count("resolvconf -a tun.tun0") == times
        assert resolvconf.read_text().count("nameserver 10.9.0.53") == times
    # One that cannot be set again is told, and is no reason to refuse what did change.
    before = ns.snapshot()
    (tmp_path / "broken").touch()
    with caplog.at_level(logging.WARNING, "tunnel"):
        reconcile(state(), netns=ns.path, state_dir=place)
    assert "set dns 10.9.0.53: resolvconf ended with 1" in caplog.text
    assert ns.snapshot() == before
    assert "resolvconf -d" not in resolvconf.read_text()


@pytest.mark.root
def test_failing_resolvconf_undoes_all(ns: Namespace, tmp_path: Path, resolvconf: Path) -> None:
    before = ns.snapshot()
    (tmp_path / "broken").touch()
    with pytest.raises(HostError, match=r"set dns 10.9.0.53: resolvconf ended with 1"):
        apply(state(), netns=ns.path, state_dir=tmp_path / "state")
    assert ns.snapshot() == before


@pytest.mark.root
def test_no_dns_service_touches_nothing(
    ns: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ns.snapshot()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path / "nothing"))
        patch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")
        with pytest.raises(HostError, match="set DNS"):
            apply(state(), netns=ns.path, state_dir=tmp_path / "state")
    assert ns.snapshot() == before


@pytest.fixture
def openresolv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A resolv.conf, and a resolvconf that writes it as openresolv does: not again for what it
    knows, unless it is called with -u.
    """
    programs, conf, known = tmp_path / "bin", tmp_path / "resolv.conf", tmp_path / "known"
    programs.mkdir()
    conf.write_text("nameserver 192.0.2.53\n")
    script = programs / "resolvconf"
    script.write_text(
        f"""#!/bin/sh
case $1 in
-a) new=$(cat); [ "$new" = "$(cat {known} 2>/dev/null)" ] && exit 0; echo "$new" > {known} ;;
-d) echo "nameserver 192.0.2.53" > {conf}; rm {known}; exit 0 ;;
esac
cat {known} > {conf}
"""
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(dns_module, "RESOLV_CONF", conf)
    return conf


@pytest.mark.root
@pytest.mark.parametrize("hook", ["nameserver 9.9.9.9\n", ""])
def test_what_a_hook_made_of_resolv_conf_stays(
    ns: Namespace, openresolv: Path, tmp_path: Path, hook: str
) -> None:
    where: Any = {"netns": ns.path, "state_dir": tmp_path / "state"}
    applied = apply(state(), **where)
    openresolv.write_text(hook)
    keep_servers("tun0", state_dir=tmp_path / "state")
    assert applied.missing() == ()
    applied.reconcile(state())
    assert openresolv.read_text() == hook
    remove("tun0", **where)
    assert openresolv.read_text() == "nameserver 192.0.2.53\n"


@pytest.mark.root
@pytest.mark.parametrize(
    ("now", "stands"),
    [
        ("nameserver 9.9.9.9\n", False),
        ("", False),
        ("nameserver 9.9.9.9\nnameserver 10.9.0.53\nnameserver fd00::53\n", False),
        ("search x\nnameserver 10.9.0.53\nnameserver fd00::53\nnameserver 9.9.9.9\n", True),
        ("# by hand\nnameserver fd00::53\nnameserver 10.9.0.53\n", True),
    ],
)
def test_resolv_conf_that_another_program_has_written_is_put_back(
    ns: Namespace, openresolv: Path, tmp_path: Path, now: str, stands: bool
) -> None:
    wanted = desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1400, dns=DNS.servers)
    where: Any = {"netns": ns.path, "state_dir": tmp_path}
    applied = apply(wanted, **where)
    ours = openresolv.read_text()
    assert applied.missing() == ()
    openresolv.write_text(now)
    assert [str(item) for item in applied.missing()] == (
        [] if stands else ["dns 10.9.0.53 fd00::53"]
    )
    applied = applied.reconcile(wanted)
    assert applied.missing() == ()
    assert openresolv.read_text() == (now if stands else ours)
    applied.undo()
    assert openresolv.read_text() == "nameserver 192.0.2.53\n"


@pytest.mark.root
@on_a_bus
def test_servers_that_resolved_has_lost_are_put_back(
    ns: Namespace, tmp_path: Path, path: str, resolved: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a restart of it, or a `resolvectl revert` by hand."""
    # The program `resolvconf` of this machine is none of the test's.
    monkeypatch.setattr(import_module("tunnel.host.apply"), "choose_backend", lambda: RESOLVED)
    monkeypatch.setenv("PATH", path)
    wanted = desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1400, dns=DNS.servers)
    applied = apply(wanted, netns=ns.path, state_dir=tmp_path)
    assert applied.missing() == ()
    # Domains that a hook has set (`resolvectl domain`) stay: the servers are there.
    before = [name for name, _ in resolved]
    applied = applied.reconcile(wanted)
    assert [name for name, _ in resolved if name.startswith("Set")] == [
        name for name in before if name.startswith("Set")
    ]
    resolved.append(("RevertLink", (1,)))
    assert [str(item) for item in applied.missing()] == ["dns 10.9.0.53 fd00::53"]
    applied = applied.reconcile(wanted)
    assert applied.missing() == ()
    applied.undo()
    assert resolved[-1][0] == "RevertLink"


@pytest.mark.root
def test_local_resolver_in_front_of_ours_is_no_change(
    ns: Namespace, openresolv: Path, tmp_path: Path
) -> None:
    script = tmp_path / "bin" / "resolvconf"
    script.write_text(f"#!/bin/sh\necho nameserver 127.0.0.53 > {openresolv}\n")
    wanted = desired_state("tun0", [ip_interface("10.9.0.1/24")], [], mtu=1400, dns=DNS.servers)
    applied = apply(wanted, netns=ns.path, state_dir=tmp_path)
    assert applied.missing() == ()
    openresolv.write_text("nameserver 9.9.9.9\n")
    assert len(applied.missing()) == 1


def test_both_lines_of_a_refusal_are_shown(resolvconf: Path) -> None:
    script = resolvconf.parent / "bin" / "resolvconf"
    script.write_text(
        "#!/bin/sh\necho resolvconf: signature mismatch: /etc/resolv.conf >&2\n"
        'echo "resolvconf: run \\`resolvconf -u\\` to update" >&2\nexit 1\n'
    )
    with pytest.raises(HostError) as caught:
        set_dns("tun0", 1, DNS, RESOLVCONF)
    assert caught.value.reason == (
        "resolvconf: signature mismatch: /etc/resolv.conf; "
        "resolvconf: run `resolvconf -u` to update"
    )
