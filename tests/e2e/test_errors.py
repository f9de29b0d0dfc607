"""The watch that every browser test keeps: which errors of a page count."""

from urllib.parse import quote

from playwright.sync_api import Browser

from .conftest import Errors


def address(script: str) -> str:
    return "data:text/html," + quote(f"<script>{script}</script>")


def test_errors_count_until_the_page_is_left(browser: Browser) -> None:
    page = browser.new_page()
    errors = Errors(page, "")
    page.goto(address("console.error('stays'); onbeforeunload = () => console.error('cut off')"))
    with page.expect_event("pageerror"):
        page.goto(address("console.error('the next'); setTimeout(() => { throw Error('thrown') })"))
    page.close()
    assert errors.texts == ["stays", "the next", "thrown"]
