"""docs/full-tunnel.md: typed on two hosts, of which one has an internet behind it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.hosts import two_hosts
from tests.support.sshd import SshServer, own_etc, own_folder
from tests.support.typed import check_document, terminals
from tunnel.lab import Lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.real_root,
    pytest.mark.foreign("ssh", "sshd", "ssh-keygen", "curl"),
]

DOCUMENT = Path(__file__).parents[3] / "docs" / "full-tunnel.md"
OUTSIDE = "198.51.100.53"
RESOLVCONF = """\
#!/bin/sh
# What openresolv does where there is one resolv.conf, and one who has name servers for it.
case $1 in
-a) cp -n /etc/resolv.conf /run/resolv.conf.before; cat >/etc/resolv.conf ;;
-d) cat /run/resolv.conf.before >/etc/resolv.conf; rm /run/resolv.conf.before ;;
esac
"""
PAGE = """
import http.server
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"hello {self.client_address[0]}\\n".encode())
http.server.HTTPServer(("", 80), Page).serve_forever()
"""


@pytest.mark.timeout(240)
def test_the_document_shows_what_its_commands_print(lab: Lab, tmp_path: Path) -> None:
    two = two_hosts(lab)
    a, b, outside = two.a, two.b, lab.host("internet")
    lab.link(b, outside, ["198.51.100.2/24"], [f"{OUTSIDE}/24"])
    a.ip("route add default via 192.0.2.2")
    for host in (a, b):
        own_etc(host)
        own_folder(host, "/root")
        host.run(["rm", "-rf", "/etc/tunnel"])
    SshServer.start(b, "192.0.2.2").let_in(a, "office")
    words = (OUTSIDE, f"www.example.com={OUTSIDE}")
    outside.popen([sys.executable, "-m", "tests.support.name_server", *words])
    outside.popen([sys.executable, "-c", PAGE])
    outside.wait_for(lambda: ":80 " in outside.run(["ss", "-Hltn"]).stdout, 10, "it serves")
    program = tmp_path / "resolvconf"
    program.write_text(RESOLVCONF)
    program.chmod(0o755)
    with terminals({"A": a, "B": b}, tmp_path) as typed:
        check_document(DOCUMENT, typed)
