"""Chromium for tests: the system's, since playwright's own is a download that not every machine gets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("playwright", reason="the page is tested with playwright, of the extra `dev`")

from playwright.sync_api import Browser, Page, expect, sync_playwright

# Nothing but the page is to be asked for: Chromium's own errands are off.
_ARGUMENTS = (
    "--no-sandbox",  # as root, in CI
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
TIMEOUT_MS = 60_000  # of any wait: a machine may have much else to do


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield the browser of this machine. Without one the test is skipped, but fails in CI, which installs it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        message = "the page's tests need Chromium: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS, timeout=TIMEOUT_MS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Page]:
    """Yield the page at `address` when it knows the tasks; in the end it must have had no error, and broken no rule of its policy."""
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        "window.broken = []; addEventListener('securitypolicyviolation', (event) => broken.push(event.violatedDirective))"
    )
    page.goto(address)
    page.wait_for_selector("#choices input")
    yield page
    assert page.evaluate("window.broken") == []
    elsewhere = [url for url in asked if not url.startswith((address, f"blob:{address}"))]
    context.close()
    assert elsewhere == []
    assert [line for line in said if "400 (Bad Request)" not in line] == []  # Chromium's own line on an answer that is a refusal
