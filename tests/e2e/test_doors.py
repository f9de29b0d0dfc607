"""The running server refuses what strangers must not do, and shows nobody's markup."""

import json
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page

FILE = {"_type": "gradio.FileData"}
MARKUP = "<img src=x onerror='window.markupRan=1'>"


def call(app: Any, endpoint: str, **values: Any) -> str:
    """Call an endpoint as a program does and return what the stream of its answer says."""
    url = f"{app.url}/gradio_api/call/v2/{endpoint}"
    joined = httpx.post(url, json=values, trust_env=False).raise_for_status()
    answer = httpx.get(f"{url}/{joined.json()['event_id']}", timeout=120, trust_env=False)
    return answer.text


@pytest.mark.parametrize(
    ("method", "path", "size", "status"),
    [
        ("GET", "/gradio_api/file=https://example.com/a.png", 0, 403),
        ("GET", "/gradio_api/file=http://127.0.0.1:1/", 0, 403),
        ("GET", "/gradio_api/proxy=https://example.com/", 0, 403),
        ("GET", "/gradio_api/file=/etc/passwd", 0, 403),
        ("GET", "/gradio_api/file=app.py", 0, 403),
        ("GET", "/gradio_api/deep_link?session_hash=a", 0, 403),
        ("GET", "/monitoring/summary", 0, 403),
        ("POST", "/gradio_api/process_recording", 0, 403),
        ("POST", "/gradio_api/run/segment", 9, 404),  # past the queue
        ("POST", "/gradio_api/api/classify", 9, 404),
        ("POST", "/gradio_api/queue/join", 2**20 + 1, 413),
    ],
)
def test_closed_doors(app: Any, method: str, path: str, size: int, status: int) -> None:
    body = json.dumps({"data": ["x" * size], "fn_index": 0}) if method == "POST" else None
    headers = {"content-type": "application/json"}
    url = f"{app.url}{path}"
    answer = httpx.request(method, url, content=body, headers=headers, trust_env=False)
    assert answer.status_code == status
    assert "Traceback" not in answer.text


def test_a_file_above_the_limit_is_not_taken(app: Any) -> None:
    files = {"files": ("a.png", bytes(20 * 2**20 + 1))}
    answer = httpx.post(f"{app.url}/gradio_api/upload", files=files, trust_env=False)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("https://example.com/a.png", "A picture cannot be an address here"),
        ("http://169.254.169.254/latest/meta-data", "A picture cannot be an address here"),
        ("http://127.0.0.1:1/a.png", "A picture cannot be an address here"),
        ("/etc/passwd", '"error": null'),
        ("app.py", '"error": null'),
    ],
)
@pytest.mark.parametrize(("endpoint", "more"), [("segment", {"prompt": "a dog"}), ("classify", {})])
def test_a_picture_is_a_file_that_was_uploaded(
    app: Any, endpoint: str, more: dict[str, str], path: str, said: str
) -> None:
    answer = call(app, endpoint, image={"path": path, "meta": FILE}, **more)
    assert "event: error" in answer and said in answer


def test_an_address_inside_the_servers_network(app: Any) -> None:
    answer = call(app, "segment", image=None, url=f"{app.url}/theme.css", prompt="a dog")
    assert "event: error" in answer and "that is not allowed" in answer


def test_a_threshold_that_is_no_number(app: Any) -> None:
    answer = call(app, "segment", image=None, prompt="a dog", threshold="much")
    assert "event: error" in answer and "give a number" in answer


def test_markup_is_text(app: Any, page: Page) -> None:
    """In a message about a prompt, and in all that a run shows."""
    page.get_by_role("tab", name="Segmentation").click()
    prompt = page.locator("#seg-prompt textarea")
    prompt.fill(f"{MARKUP} dog: 7")
    page.locator("#seg-run").click()
    page.get_by_text("must be between 0 and 1").first.wait_for()
    assert page.evaluate("window.markupRan") is None
    prompt.fill(f"{MARKUP}, the sun")
    page.locator("#seg-run").click()
    page.locator("#seg-status").get_by_text("Time on").wait_for()
    assert page.evaluate("window.markupRan") is None
    assert page.locator("img[src='x']").count() == 0


def test_the_page_comes_compressed(app: Any) -> None:
    plain = httpx.get(app.url, headers={"accept-encoding": "identity"}, trust_env=False)
    zipped = httpx.get(app.url, headers={"accept-encoding": "gzip"}, trust_env=False)
    assert zipped.headers["content-encoding"] == "gzip" and zipped.text == plain.text
    assert int(zipped.headers["content-length"]) < int(plain.headers["content-length"]) / 4
