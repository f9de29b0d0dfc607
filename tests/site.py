"""The real app with fake models, as strangers' programs see it.

Run as a program it is the server: `python -m tests.site FOLDER PORT PORT_OF_PICTURES`.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from gradio import networking
from PIL import Image

import app as application
from grounding.core import Regions, mask_box
from grounding.fetch import fetch_image
from grounding.store import Models
from grounding.weights import Origin, Source, Weights
from tests.grounding.test_fetch import Server, is_local, local, serving
from tests.grounding.test_pipeline import FakeSegmenter

ROOT = Path(__file__).parents[1]
RED = (255, 0, 0)


class RedFinder:
    """A grounder that finds what is red, and keeps the picture it was given in a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        np.save(self.file, np.asarray(image))
        red = np.all(np.abs(np.asarray(image).astype(int) - RED) < 60, axis=2)
        if not red.any():
            return Regions(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
        boxes = np.array([mask_box(red)], np.float32)
        return Regions(boxes, np.ones(1, np.float32), (phrases[0],))


class Store:
    """What `ModelStore` is to the page, with models that need no weights."""

    def __init__(self, file: Path, weights: Weights, *_: Any) -> None:
        self.file, self.weights = file, weights

    def fetch(self, *_: Any) -> tuple[Source, Source]:
        return (Source("fake", Path()),) * 2

    def load(self, _grounder: str, _segmenter: str, *sources: Source) -> Models:
        return Models(RedFinder(self.file), FakeSegmenter(), Origin(*sources))


def serve(folder: Path, port: int, port_of_pictures: int) -> None:
    """Start the app as app.py does, but with fake models and pictures from this machine only."""
    application.ModelStore = partial(Store, folder / "seen.npy")
    networking.url_ok = lambda _: True  # Gradio gives itself 3 seconds, too few on a busy machine
    ports = frozenset({port_of_pictures})
    fetch = partial(fetch_image, ports=ports, resolve=local, allow=is_local)
    page = application.build_page(Weights("demo"), "cpu", fetch)
    application.launch(page, application.parse_args(["--port", str(port)]))


@dataclass(frozen=True)
class Site:
    """A client of the app, a server of pictures elsewhere, and where the app keeps its files."""

    client: httpx.Client
    elsewhere: Server
    folder: Path

    def call(self, name: str, **given: Any) -> dict[str, Any]:
        """Call an endpoint as a program does.

        Args:
            name: Of the endpoint.
            given: Its arguments; what is missing has the page's value.

        Returns:
            "data", or what the server says instead of it: "error" or "detail".
        """
        url, headers = f"/gradio_api/call/v2/{name}", {"content-type": "application/json"}
        # By hand, for NaN and all.
        joined = self.client.post(url, content=json.dumps(given), headers=headers).json()
        if "event_id" not in joined:
            return joined
        answer = self.client.get(f"{url}/{joined['event_id']}").text.rstrip()
        kind, said = answer.split("event: ")[-1].split("\ndata: ")
        return {"data": json.loads(said)} if kind == "complete" else json.loads(said)

    def take_seen(self) -> np.ndarray | None:
        """Return the picture that the grounder was given since the last time, uint8 (H, W, 3)."""
        file = self.folder / "seen.npy"
        if not file.exists():
            return None
        seen = np.load(file)
        file.unlink()
        return seen


@contextmanager
def open_site(folder: Path) -> Iterator[Site]:
    """Serve the app on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with serving(Server()) as elsewhere, (folder / "log.txt").open("wb") as log:
        arguments = [str(folder), str(port), str(elsewhere.server_port)]
        command = [sys.executable, "-m", "tests.site", *arguments]
        environment = os.environ | {"GRADIO_TEMP_DIR": str(folder / "gradio")}
        app = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        url = f"http://127.0.0.1:{port}"
        try:
            # A connection for each request: on a busy machine the server drops idle ones.
            each = httpx.Limits(max_keepalive_connections=0)
            with httpx.Client(base_url=url, timeout=120, limits=each, trust_env=False) as client:
                while not _is_up(client):
                    assert app.poll() is None, (folder / "log.txt").read_text()
                    time.sleep(0.1)
                yield Site(client, elsewhere, folder)
        finally:
            app.terminate()
            app.wait()


def _is_up(client: httpx.Client) -> bool:
    try:
        return client.get("/").is_success
    except httpx.TransportError:
        return False


def wait_until(happened: Callable[[], object]) -> None:
    """Ask until something is true, for a minute at most."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
