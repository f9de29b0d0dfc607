"""The app as a person starts it, and a browser that looks at its page."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Locator,
    Page,
    expect,
    sync_playwright,
)

ROOT = Path(__file__).parents[2]
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 60.0
expect.set_options(timeout=60_000)  # milliseconds
# A page that is being left says so before its own code hears of it: what still streams then ends in
# errors (Gradio cuts the stream off, and the server no longer knows who asks), which are nobody's.
LEAVING = "This page is being left."
SAY_LEAVING = f"addEventListener('beforeunload', () => console.info('{LEAVING}'))"


@dataclass(frozen=True)
class App:
    """Hold the running app.

    Attributes:
        url: Its address.
        seconds: How long its page took to come up.
        checkpoints: Folder in which it looks for more ViT checkpoints; empty at first.
    """

    url: str
    seconds: float
    checkpoints: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_browser() -> str:
    for name in (os.environ.get("CHROMIUM", ""), *BROWSERS):
        if name and (path := shutil.which(name)):
            return path
    pytest.fail("There is no Chromium; install it or give its path in the variable CHROMIUM.")


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> float:
    began = time.monotonic()
    while not answers(url):
        waited = time.monotonic() - began
        if process.poll() is not None or waited > START_SECONDS:
            pytest.fail(f"The app does not answer after {waited:.0f} s:\n{log.read_text()}")
        time.sleep(0.1)
    return time.monotonic() - began


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("app")
    url, log = f"http://127.0.0.1:{free_port()}", folder / "log.txt"
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    command = [sys.executable, "app.py", "--weights", "demo", "--offline"]
    command += ["--checkpoints", str(checkpoints)]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", url.rpartition(":")[2]],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield App(url, wait_for(url, process, log), checkpoints)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# Not for the whole session: while it runs, Playwright keeps an event loop in the main thread, and
# other tests may want one of their own.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        yield chromium
        chromium.close()


def picture_of(page: Page, image: Locator) -> Image.Image:
    """Return the picture an <img> shows, as it came from the server."""
    answer = page.request.get(image.evaluate("node => node.src"))
    assert answer.ok
    return Image.open(io.BytesIO(answer.body()))


class Errors:
    """Collect the errors that a page writes to the console or throws, until it is left."""

    def __init__(self, page: Page, url: str) -> None:
        """Listen to a page for what comes from addresses below `url`."""
        self.texts: list[str] = []
        self.url, self.leaving = url, False
        page.add_init_script(SAY_LEAVING)
        page.on("pageerror", lambda error: self._add(str(error)))
        page.on("console", self._hear)
        page.on("framenavigated", lambda _: self._arrive())

    def _hear(self, message: ConsoleMessage) -> None:
        if message.text == LEAVING:
            self.leaving = True
        elif message.type == "error" and message.location["url"].startswith(self.url):
            self._add(message.text)

    def _add(self, text: str) -> None:
        if not self.leaving:
            self.texts.append(text)

    def _arrive(self) -> None:
        self.leaving = False


@contextmanager
def opened(app: App, browser: Browser, **options: Any) -> Iterator[Page]:
    """Open the page; afterwards fail if it wrote an error of its own to the console."""
    context = browser.new_context(locale="en-US", **options)
    # Fonts and the like from elsewhere are not ours to test.
    context.route(lambda url: url.startswith("http") and app.url not in url, lambda r: r.abort())
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors = Errors(page, app.url)
    page.goto(app.url)
    page.get_by_role("tab").first.wait_for()
    yield page
    seen = list(errors.texts)
    context.close()
    assert not seen


@pytest.fixture
def page(app: App, browser: Browser) -> Iterator[Page]:
    """Open the page on a wide screen."""
    with opened(app, browser, viewport={"width": 1280, "height": 1000}) as page:
        yield page


def settle(page: Page) -> None:
    """Wait as long after opening an accordion as nobody is quicker.

    In the moment in which Gradio puts a component on the page, a value that is typed into it is
    shown, but the one before is sent.
    """
    page.wait_for_timeout(500)


def open_accordion(page: Page, name: str) -> None:
    page.get_by_text(name).first.click()
    settle(page)


def choose(page: Page, dropdown: str, option: str) -> None:
    page.locator(f"{dropdown} input").click()
    page.get_by_role("option", name=option).click()
