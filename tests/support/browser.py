"""Debian's chromium in a host of the lab, driven over its DevTools protocol."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tunnel.lab import Host

WAIT = 15_000
"""Milliseconds for what is to be seen on a page."""

_FLAGS = (
    # Root has no user namespace to put itself into; the pages are ours.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
)


@dataclass
class Seen:
    """What a browser did beside showing pages: hosts that it asked, and what it complained of."""

    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@contextlib.contextmanager
def browser_in(host: Host, machine_path: str) -> Iterator[Browser]:
    """A browser in that host, without a window. `machine_path` is the PATH of this machine, as its
    launcher calls this and that.
    """
    home = host.directory / "home"
    home.mkdir()
    script = host.directory / "chromium"
    enter = shlex.join([*host.enter_command(), "env", f"--chdir={home}", f"HOME={home}"])
    script.write_text(f'#!/bin/sh\nexec {enter} PATH={shlex.quote(machine_path)} chromium "$@"\n')
    script.chmod(0o755)
    expect.set_options(timeout=WAIT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=script, args=list(_FLAGS))
        try:
            yield browser
        finally:
            browser.close()


def new_page(context: BrowserContext, seen: Seen) -> Page:
    """A page of a context; what it does is noted."""
    page = context.new_page()
    page.set_default_timeout(WAIT)
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    page.on(
        "console",
        lambda said: seen.complaints.append(said.text) if said.type == "error" else None,
    )
    return page
