"""The page of `tunnel web` in a real browser, on a hub whose peers are real."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.support.browser import Seen, browser_in, new_page
from tests.support.wg_quick import quick, write
from tunnel.lab import Host, Lab

pytestmark = [
    pytest.mark.root,
    pytest.mark.foreign("chromium", "wireguard-go", "wg", "wg-quick", "zbarimg"),
]

PASSWORD = "correct horse battery"
HOSTILE = "<img src=x onerror=alert(1)>"
TUNNEL = [sys.executable, "-m", "tunnel"]

SHOTS = os.environ.get("TUNNEL_SCREENSHOTS")
"""A folder for pictures of the page, to be looked at."""


@dataclass
class Office:
    """A hub with its page, and the laptop of the one who looks at it, a member."""

    hub: Host
    laptop: Host
    phone: Host
    conf: Path
    url: str
    browser: Browser


@pytest.fixture
def office(lab: Lab, machine_path: str) -> Iterator[Office]:
    hub, laptop, phone = (lab.host(name) for name in ("hub", "laptop", "phone"))
    lab.link(hub, laptop, ["192.0.2.1/24"], ["192.0.2.2/24"])
    lab.link(hub, phone, ["198.51.100.1/24"], ["198.51.100.2/24"])
    phone.ip("route add default via 198.51.100.1")
    folder = hub.directory / "confs"
    words = ["new", "office", "hub=192.0.2.1", "laptop", "--shape", "hub", "--yes"]
    hub.run([*TUNNEL, *words, "--folder", str(folder)])
    conf = folder / "hub" / "office.conf"
    hub.run([*TUNNEL, "up", str(conf)])
    laptop.run([*TUNNEL, "up", str(folder / "laptop" / "office.conf")])
    hub.run([*TUNNEL, "web", str(conf), "--set-password"], stdin=f"{PASSWORD}\n")
    state = {"STATE_DIRECTORY": str(hub.directory / "state")}
    # As in its unit: root's files, and no capability.
    command = ["setpriv", "--bounding-set", "-all", *TUNNEL, "web", str(conf)]
    served = hub.popen(command, environment=state)
    served.wait_for_output("the page of office is at")
    found = re.search(r"http://\S+", served.log())
    assert found is not None
    with browser_in(laptop, machine_path) as browser:
        yield Office(hub, laptop, phone, conf, found[0], browser)


def shot(page: Page, name: str) -> None:
    if SHOTS:
        page.screenshot(path=Path(SHOTS) / f"{name}.png", full_page=True)


def row(page: Page, name: str) -> Locator:
    return page.locator(".peer", has=page.get_by_text(name, exact=True))


def log_in(page: Page, url: str) -> None:
    page.goto(url)
    page.get_by_label("Password").fill("a wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("Wrong password.")
    page.get_by_label("Password").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="office", exact=True)).to_be_visible()


def add_by_keyboard(page: Page, name: str) -> None:
    page.get_by_role("button", name="Add peer").focus()
    page.keyboard.press("Enter")
    page.keyboard.type(name)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=f"The conf of {name}")).to_be_visible()


def saved(page: Page, button: str, folder: Path) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def test_a_peer_added_on_the_page_is_let_in_and_shut_out(office: Office, tmp_path: Path) -> None:
    seen = Seen()
    context = office.browser.new_context(viewport={"width": 1280, "height": 900})
    page = new_page(context, seen)
    log_in(page, office.url)
    expect(row(page, "laptop")).to_contain_text("Online")
    add_by_keyboard(page, "phone")
    conf = saved(page, "Download conf", tmp_path)
    assert conf.name == "phone.conf"
    code = saved(page, "Download QR code", tmp_path)
    scanned = subprocess.run(
        ["zbarimg", "--quiet", "--raw", "--oneshot", code],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (key,) = re.findall(r"(?m)^PrivateKey = (\S+)$", conf.read_text())
    assert f"PrivateKey = {key}" in scanned
    assert key not in office.conf.read_text()
    shot(page, "conf")
    page.get_by_role("button", name="Make link").click()
    expect(page.locator("#link-text")).to_have_value(re.compile("#link=.{40}"))
    link = page.locator("#link-text").input_value()
    shot(page, "link")
    page.keyboard.press("Escape")

    # Stock wg-quick and wireguard-go bring up what was downloaded.
    quick(office.phone, "wireguard-go", "up", write(office.phone, conf.read_text()))
    (hub_address,) = re.findall(r"http://(\S+):", office.url)
    office.phone.ping(hub_address)
    expect(row(page, "phone")).to_contain_text("Online")
    expect(page.locator("#log")).to_contain_text("phone connected from 198.51.100.2")

    other = new_page(office.browser.new_context(), seen)
    other.goto(link)
    other.get_by_role("button", name="Show my conf").click()
    expect(other.locator("#conf-text")).to_contain_text(key)
    other.goto(link)
    other.reload()
    other.get_by_role("button", name="Show my conf").click()
    expect(other.get_by_role("alert")).to_contain_text("was used")

    # By the keyboard alone: shut out, let in again, removed.
    page.get_by_role("switch", name="phone is enabled").focus()
    page.keyboard.press("Space")
    expect(row(page, "phone")).to_contain_text("Disabled")
    expect(page.get_by_role("switch", name="phone is enabled")).to_have_attribute(
        "aria-busy", "false"
    )
    assert office.phone.run(["ping", "-c", "1", "-W", "1", hub_address], check=False).returncode
    page.keyboard.press("Space")
    expect(row(page, "phone")).not_to_contain_text("Disabled")
    page.get_by_role("button", name="phone: details and changes").focus()
    page.keyboard.press("Enter")
    shot(page, "peer")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill(HOSTILE)
    dialog.get_by_label("Expires").select_option("7d")
    dialog.get_by_role("button", name="Save").click()
    expect(row(page, HOSTILE)).to_contain_text("expires in 7 d")
    row(page, HOSTILE).get_by_role("button").first.click()
    dialog.get_by_role("button", name="Remove").click()
    expect(dialog).to_contain_text(f"Remove {HOSTILE}?")
    dialog.get_by_role("button", name="Remove").click()
    expect(row(page, HOSTILE)).to_have_count(0)
    assert "onerror" not in office.conf.read_text()
    expect(page.locator("#log")).to_contain_text(f"{HOSTILE} was removed by")

    allowed = (office.url, f"blob:{office.url}")
    assert [url for url in seen.requests if not url.startswith(allowed)] == []
    refusals = [text for text in seen.complaints if "status of 401" not in text]
    assert [text for text in refusals if "status of 410" not in text] == []


def test_it_fits_a_phone_and_a_dark_room(office: Office) -> None:
    for number in range(3, 8):
        name = f"phone {number}"
        office.hub.run([*TUNNEL, "peer", "add", str(office.conf), name])
    office.hub.run([*TUNNEL, "peer", "disable", str(office.conf), "phone 4"])
    office.hub.run([*TUNNEL, "peer", "expire", str(office.conf), "phone 5", "7d"])
    seen = Seen()
    context = office.browser.new_context(viewport={"width": 390, "height": 844})
    page = new_page(context, seen)
    page.emulate_media(color_scheme="light")
    log_in(page, office.url)
    expect(row(page, "phone 4")).to_contain_text("Disabled")
    shot(page, "phone")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.get_by_role("button", name="Add peer").click()
    shot(page, "phone-add")
    assert page.locator("#add-dialog").evaluate("it => it.scrollWidth <= it.clientWidth")
    page.keyboard.press("Escape")
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    shot(page, "phone-dark")
    page.set_viewport_size({"width": 1280, "height": 900})
    shot(page, "dark")
    page.emulate_media(color_scheme="light")
    shot(page, "desktop")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_focused()
