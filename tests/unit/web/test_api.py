"""The operations of the page, asked as a browser asks, and as a hostile site makes one ask."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import trio

from tests.support.confs import PRIVATE
from tests.support.web_client import HUB, ORIGIN, PASSWORD, Clock, Site, browse
from tunnel import config
from tunnel.config.peers import PeerBook
from tunnel.linux.files import replace_file
from tunnel.web.api import MAX_BODY, OPERATIONS, Operation
from tunnel.web.guard import Access
from tunnel.web.hub import Hub
from tunnel.web.journal import Journal
from tunnel.web.login import Attempts, PasswordFile

CONF = "no-such-tunl.conf"
EXAMPLES = {
    "{id}": "zo060OyViEs9zwR0WtFqrd7GlR7I4d9vJ0sMlzuVaQQ",
}


def path_of(operation: Operation) -> str:
    return re.sub(r"\{\w+\}", lambda found: EXAMPLES[found[0]], operation.path)


CLOSED = [operation for operation in OPERATIONS if not operation.is_public]
CHANGES = [operation for operation in OPERATIONS if operation.method != "GET"]


def named(operation: Operation) -> str:
    return operation.run.__name__


@pytest.mark.parametrize("operation", CLOSED, ids=named)
def test_nothing_is_told_or_done_without_a_login(tmp_path: Path, operation: Operation) -> None:
    async def visit(site: Site) -> None:
        answer = await site.ask(operation.method, path_of(operation), {})
        assert (answer.status_code, answer.json()["code"]) == (401, "login")
        assert "desk" not in answer.text

    browse(tmp_path, visit)
    assert (tmp_path / CONF).read_text() == HUB


@pytest.mark.parametrize("operation", CHANGES, ids=named)
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://10.9.0.1:80"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
    ids=str,
)
def test_another_site_can_change_nothing(
    tmp_path: Path, operation: Operation, headers: dict[str, str]
) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        answer = await site.ask(operation.method, path_of(operation), {}, **headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "origin")

    browse(tmp_path, visit)
    assert (tmp_path / CONF).read_text() == HUB


@pytest.mark.parametrize("token", ["", "x", "x" * 5000])
def test_a_change_needs_the_token_of_the_session(tmp_path: Path, token: str) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        path = f"/api/peers/{EXAMPLES['{id}']}"
        answer = await site.ask("DELETE", path, x_csrf_token=token)
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")

    browse(tmp_path, visit)
    assert (tmp_path / CONF).read_text() == HUB


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("10.9.0.1:51821", 200),
        ("[fd00::1]:51821", 200),
        ("localhost", 200),
        ("VPN.example.com", 200),
        ("evil.example", 421),
        ("10.9.0.1.evil.example", 421),
        ("evil.example:10.9.0.1", 421),
        ("", 421),
    ],
)
def test_the_page_answers_by_its_own_names(tmp_path: Path, host: str, status: int) -> None:
    async def visit(site: Site) -> None:
        answer = await site.http.get("/", headers={"host": host})
        assert answer.status_code == status

    browse(tmp_path, visit, access=Access(frozenset({"vpn.example.com"})))


@pytest.mark.parametrize(
    ("client", "status"),
    [("10.9.0.2", 200), ("10.9.0.1", 200), ("192.168.1.7", 403), ("::ffff:10.9.0.2", 403)],
)
def test_only_members_are_answered(tmp_path: Path, client: str, status: int) -> None:
    async def visit(site: Site) -> None:
        assert (await site.http.get("/")).status_code == status

    browse(tmp_path, visit, client=client)


def test_the_password_is_tried_a_few_times(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        for _ in range(Attempts.PER_ADDRESS[0]):
            answer = await site.ask("POST", "/api/login", {"password": "a wrong one"})
            assert (answer.status_code, answer.json()["code"]) == (401, "password")
            assert "set-cookie" not in answer.headers
        answer = await site.ask("POST", "/api/login", {"password": PASSWORD})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) == Attempts.PER_ADDRESS[1] + 1
        site.clock.now += Attempts.PER_ADDRESS[1]
        await site.log_in()
        log = (await site.ask("GET", "/api/log")).json()["entries"]
        assert [each["kind"] for each in log] == ["login", *["login_refused"] * 5]
        assert {each["address"] for each in log} == {"10.9.0.2"}

    browse(tmp_path, visit)


def test_a_password_that_is_replaced_while_it_is_checked_lets_no_one_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = PasswordFile.check

    def slow_check(file: PasswordFile, password: str) -> bool:
        is_right = check(file, password)
        replace_file(file.path, file.path.read_text())
        return is_right

    monkeypatch.setattr(PasswordFile, "check", slow_check)

    async def visit(site: Site) -> None:
        answer = await site.ask("POST", "/api/login", {"password": PASSWORD})
        assert (answer.status_code, answer.json()["code"]) == (401, "password")
        assert not site.http.cookies

    browse(tmp_path, visit)


def test_the_cookie_is_for_this_page_alone_and_ends(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        answer = await site.ask("POST", "/api/login", {"password": PASSWORD})
        cookie = answer.headers["set-cookie"].lower()
        assert all(word in cookie for word in ("httponly", "samesite=strict", "path=/"))
        assert "secure" not in cookie, "http"
        site.csrf = answer.json()["csrf"]
        assert (await site.ask("GET", "/api/state")).status_code == 200
        assert (await site.ask("POST", "/api/logout")).status_code == 204
        assert not site.http.cookies
        site.http.cookies.set("tunnel-no-such-tunl", cookie.partition("=")[2].partition(";")[0])
        assert (await site.ask("GET", "/api/state")).status_code == 401

    browse(tmp_path, visit)


def test_without_a_login_the_token_is_still_needed(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        assert (await site.ask("DELETE", f"/api/peers/{EXAMPLES['{id}']}")).status_code == 403
        site.csrf = (await site.ask("GET", "/api/session")).json()["csrf"]
        assert (await site.ask("DELETE", f"/api/peers/{EXAMPLES['{id}']}")).status_code == 200

    browse(tmp_path, visit, has_login=False)


def test_every_answer_forbids_frames_foreign_scripts_and_caches(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        for path in ("/", "/page.js", "/api/state", "/api/openapi.json", "/nothing"):
            headers = (await site.http.get(path)).headers
            policy = headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["x-frame-options"] == "DENY"
            assert headers["cache-control"] == (
                "no-store" if path.startswith("/api") else "no-cache"
            ) or (path == "/nothing")

    browse(tmp_path, visit)


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 60000, "application/json", 400),
        (b'"text"', "application/json", 400),
        (b'{"password": 1}', "application/json", 400),
        (b'{"password": null}', "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"password": "x", "more": 1}', "application/json", 400),
        (b'{"password": "' + b"x" * 5000 + b'"}', "application/json", 400),
        (b'{"password": "x"}', "text/plain", 415),
        (b"password=x", "application/x-www-form-urlencoded", 415),
        (b'{"password": "x"}', "", 415),
    ],
)
def test_a_body_that_is_none_is_refused(
    tmp_path: Path, content: bytes, kind: str, status: int
) -> None:
    async def visit(site: Site) -> None:
        headers = {"content-type": kind} if kind else {}
        answer = await site.http.post("/api/login", content=content, headers=headers)
        assert answer.status_code == status, answer.text

    browse(tmp_path, visit)


class Endless(httpx.AsyncByteStream):
    """A body without an end. Not a generator: it need not be closed."""

    def __init__(self) -> None:
        self.sent = 0

    def __aiter__(self) -> Endless:
        return self

    async def __anext__(self) -> bytes:
        self.sent += 4096
        return b"x" * 4096


def test_no_more_of_a_body_is_read_than_one_may_have(tmp_path: Path) -> None:
    body = Endless()

    async def visit(site: Site) -> None:
        headers = {"content-type": "application/json", "host": "10.9.0.1"}
        request = httpx.Request("POST", f"{ORIGIN}/api/login", headers=headers, stream=body)
        assert (await site.http.send(request)).status_code == 413
        assert body.sent <= MAX_BODY + 2 * 4096

    browse(tmp_path, visit)


WANTED = {"name": "phone"}


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        ({}, 409, "not a valid name"),
        ({"name": "desk"}, 409, "named"),
        ({"name": "two\nlines"}, 409, "not a valid name"),
        ({**WANTED, "expires": "soon"}, 400, "not a time"),
        ({**WANTED, "expires": "2020-01-01T00:00:00Z"}, 400, "in the past"),
        ({**WANTED, "endpoint": "two words"}, 409, "endpoint"),
        ({**WANTED, "endpoint": "x\nPostUp = true"}, 409, "endpoint"),
        ({**WANTED, "addresses": ["10.9.0.300"]}, 400, "expected"),
        ({**WANTED, "addresses": ["10.9.0.9/24"]}, 400, "host bits"),
        ({**WANTED, "reach": ["everything"]}, 400, "expected"),
        ({**WANTED, "dns": ["10.9.0.1\nPostUp = true"]}, 409, "name server"),
        ({**WANTED, "dns": "10.9.0.1"}, 400, "list"),
        ({**WANTED, "dns": ["x"] * 257}, 400, "list"),
    ],
)
def test_a_mistake_is_told_and_changes_nothing(
    tmp_path: Path, wanted: dict[str, object], status: int, words: str
) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        answer = await site.ask("POST", "/api/peers", wanted)
        assert answer.status_code == status
        assert words in answer.json()["message"]

    browse(tmp_path, visit)
    assert (tmp_path / CONF).read_text() == HUB


def test_a_conf_with_a_mistake_is_not_read_for_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []

    def counted(path: Path) -> PeerBook:
        read.append(path)
        return PeerBook(path)

    monkeypatch.setattr("tunnel.web.hub.PeerBook", counted)
    conf, clock = tmp_path / CONF, Clock()
    hub = Hub(conf, Journal(tmp_path / "log"), clock)

    async def look() -> tuple[str, int]:
        for _ in range(10):
            state = await hub.state()
        return state.problem, len(read)

    conf.write_text("[Interface]\nPrivateKeyFile = key\n")
    conf.chmod(0o600)
    problem, times = trio.run(look)
    assert "The conf has mistakes" in problem
    assert times == 1
    # A mistake may be mended in a file of a key, which the conf's status does not show.
    (tmp_path / "key").write_text(f"{PRIVATE}\n")
    (tmp_path / "key").chmod(0o600)
    assert trio.run(look) == (problem, 1)
    clock.now += 2
    assert trio.run(look) == ("", 2)
    conf.write_text("no conf\n")
    problem, times = trio.run(look)
    assert "The conf has mistakes" in problem
    assert times == 3


async def added(site: Site, name: str = "phone", **wanted: object) -> dict[str, Any]:
    answer = await site.ask("POST", "/api/peers", {"name": name, **wanted})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def peers(site: Site) -> dict[str, dict[str, Any]]:
    found = (await site.ask("GET", "/api/state")).json()["peers"]
    return {peer["name"]: peer for peer in found}


def test_what_is_given_out_fits_what_is_in_the_conf(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        reach = {"reach": ["0.0.0.0/0"], "excluded": ["128.0.0.0/1"], "dns": ["10.9.0.1"]}
        handout = await added(site, "Ann's <b>phone</b>", expires="7d", **reach)
        assert handout["file"] == "Ann-s-b-phone-b.conf"[:15] + ".conf"
        assert "is not running" in handout["notice"]
        theirs = config.parse(handout["conf"], name="wg0")
        ours = config.load(tmp_path / CONF).peers[-1]
        assert theirs.interface.private_key is not None
        assert theirs.interface.private_key.public_key() == ours.public_key
        assert theirs.interface.private_key.to_base64() not in (tmp_path / CONF).read_text()
        assert theirs.peers[0].preshared_key == ours.preshared_key
        assert list(map(str, theirs.peers[0].networks)) == ["0.0.0.0/1"]
        assert len(handout["qr"]) == len(handout["qr"][0])
        assert (await peers(site))["Ann's <b>phone</b>"]["expires"] == ours.expires

    browse(tmp_path, visit)


def test_new_keys_shut_the_old_ones_out(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        first = await added(site)
        link = {"handout": first["id"], "seconds": 3600}
        token = (await site.ask("POST", "/api/links", link)).json()["token"]
        before = (await peers(site))["phone"]
        assert before["link_until"] > 0
        path = f"/api/peers/{before['id']}"
        assert (await site.ask("PATCH", path, {"disabled": True})).status_code == 200
        answer = await site.ask("POST", f"{path}/keys", {})
        assert answer.status_code == 200, answer.text
        after = (await peers(site))["phone"]
        assert after["public_key"] != before["public_key"]
        assert (after["addresses"], after["state"]) == (before["addresses"], "disabled")
        theirs = config.parse(answer.json()["conf"], name="wg0")
        assert theirs.interface.private_key is not None
        assert theirs.interface.private_key.public_key().to_base64() == after["public_key"]
        assert (await site.ask("POST", "/api/links/open", {"token": token})).status_code == 410
        assert (await site.ask("PATCH", path, {"disabled": False})).status_code == 404

    browse(tmp_path, visit)


def test_whoever_has_the_link_gets_the_conf_once(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        handout = await added(site)
        asked = {"handout": handout["id"], "seconds": 3600}
        token = (await site.ask("POST", "/api/links", asked)).json()["token"]
        await site.ask("POST", "/api/logout")
        site.csrf = ""
        found = (await site.ask("POST", "/api/links/open", {"token": token})).json()
        assert (found["conf"], found["qr"]) == (handout["conf"], handout["qr"])
        assert (await site.ask("POST", "/api/links/open", {"token": token})).status_code == 410

    browse(tmp_path, visit)


def test_others_who_edit_the_file_are_not_overruled(tmp_path: Path) -> None:
    """A change is made to what is in the file then, not to what the page has shown."""

    async def visit(site: Site) -> None:
        await site.log_in()
        desk = (await peers(site))["desk"]
        conf = tmp_path / CONF
        conf.write_text(HUB.replace("ListenPort = 51820", "ListenPort = 51999  # mine"))
        assert (await site.ask("PATCH", f"/api/peers/{desk['id']}", {"name": "table"})).is_success
        assert "ListenPort = 51999  # mine" in conf.read_text()
        assert "# friendly_name = table" in conf.read_text()
        conf.write_text(HUB.partition("[Peer]")[0])
        answer = await site.ask("DELETE", f"/api/peers/{desk['id']}")
        assert (answer.status_code, answer.json()["code"]) == (404, "no_peer")
        conf.write_text("[Interface]\nPrivateKey = nothing\n")
        answer = await site.ask("POST", "/api/peers", {"name": "phone"})
        assert (answer.status_code, answer.json()["code"]) == (409, "conf")
        state = (await site.ask("GET", "/api/state")).json()
        assert "line 2" in state["problem"]
        conf.unlink()
        assert "cannot be read" in (await site.ask("GET", "/api/state")).json()["problem"]

    browse(tmp_path, visit)


def test_two_at_once_both_get_what_they_want(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        await site.log_in()
        found: list[dict[str, Any]] = []

        async def add(name: str) -> None:
            found.append(await added(site, name))

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(add, f"phone {number}")
        listed = await peers(site)
        assert len(listed) == 9
        taken = [address for peer in listed.values() for address in peer["addresses"]]
        assert len(set(taken)) == 9

    browse(tmp_path, visit)


def test_a_disk_that_is_full_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def visit(site: Site) -> None:
        await site.log_in()
        monkeypatch.setattr("os.fsync", full)
        answer = await site.ask("POST", "/api/peers", {"name": "phone"})
        assert answer.status_code == 409
        assert "No space left on device" in answer.json()["message"]
        assert "conf" not in {*answer.json()} - {"code", "message"}

    browse(tmp_path, visit)
    assert (tmp_path / CONF).read_text() == HUB


def resolved(schema: dict[str, Any], described: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "components": described["components"]}


def check(described: dict[str, Any], operation: Operation, answer: httpx.Response) -> None:
    """Fail if an answer is not one that the description has."""
    responses = described["paths"][operation.path][operation.method.lower()]["responses"]
    assert str(answer.status_code) in responses, answer.text
    content = responses[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b""
    else:
        schema = resolved(content["application/json"]["schema"], described)
        jsonschema.validate(answer.json(), schema, cls=jsonschema.Draft202012Validator)


def test_every_operation_answers_as_it_is_described(tmp_path: Path) -> None:
    async def visit(site: Site) -> None:
        described = (await site.http.get("/api/openapi.json")).json()
        operations = {(each.method, each.path): each for each in OPERATIONS}
        asked = set()

        async def ask(method: str, path: str, body: object = None, peer: str = "") -> Any:
            operation = operations[method, path]
            asked.add(operation)
            if operation.body is not None:
                schema = {"$ref": f"#/components/schemas/{operation.body.__name__}"}
                jsonschema.validate(body, resolved(schema, described))
            answer = await site.ask(method, path.replace("{id}", peer), body)
            check(described, operation, answer)
            return answer.json() if answer.content else None

        site.csrf = (await ask("POST", "/api/login", {"password": PASSWORD}))["csrf"]
        await ask("GET", "/api/session")
        handout = await ask("POST", "/api/peers", {"name": "phone", "expires": "1h"})
        link = await ask("POST", "/api/links", {"handout": handout["id"], "seconds": 60})
        state = await ask("GET", "/api/state")
        assert "phone" in [peer["name"] for peer in state["peers"]]
        peer = state["peers"][-1]["id"]
        await ask("POST", "/api/links/open", {"token": link["token"]})
        await ask("POST", "/api/links/open", {"token": link["token"]})
        await ask("PATCH", "/api/peers/{id}", {"name": "tablet", "expires": ""}, peer)
        await ask("PATCH", "/api/peers/{id}", {"name": "desk"}, peer)
        await ask("POST", "/api/peers/{id}/keys", {}, peer)
        await ask("DELETE", "/api/peers/{id}", peer=peer)
        await ask("DELETE", "/api/peers/{id}", peer=EXAMPLES["{id}"])
        await ask("GET", "/api/traffic")
        await ask("GET", "/api/log")
        await ask("POST", "/api/logout")
        await ask("GET", "/api/state")
        assert asked == set(OPERATIONS)
        paths = {(m.upper(), path) for path, each in described["paths"].items() for m in each}
        assert paths == {(each.method, each.path) for each in OPERATIONS}

    browse(tmp_path, visit)


FRONT = Path(__file__).parents[3] / "tunnel" / "web" / "front"


def test_every_text_of_the_page_is_in_the_file_of_texts_and_used() -> None:
    texts = json.loads((FRONT / "texts.en.json").read_text())
    page = (FRONT / "page.js").read_text() + (FRONT / "index.html").read_text()
    used = set(re.findall(r'data-(?:t|placeholder|label)="([a-z_.0-9]+)"', page))
    # Some are chosen among, as in t(peer ? "keys.do" : "add.do").
    used |= set(re.findall(r'(?<![\w.])(?:t|toast)\("([a-z]+\.\w+)"', page))
    used |= set(re.findall(r'"([a-z]+\.[a-z_0-9]+)"', page)) & set(texts)
    families = tuple(re.findall(r"t\(`([a-z]+\.[a-z_]*)\$", page))
    assert used <= set(texts)
    assert {key for key in texts if key not in used and not key.startswith(families)} == set()


def test_the_page_asks_no_other_host_and_has_nothing_inline() -> None:
    for path in FRONT.iterdir():
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|(?<![:/])//[a-z]", text), path
    page = (FRONT / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script>", page)
    assert "innerHTML" not in (FRONT / "page.js").read_text()
