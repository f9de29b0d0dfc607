"""Many users at once on the real app with the demo weights; prints what they saw.

    python tests/soak.py [--clients 40] [--seconds 300]

Every picture carries a number in black and white blocks, and every answer must show the number of
the picture it belongs to. A tenth of the clients hang up in the middle. It talks to 127.0.0.1 only.
"""

import argparse
import asyncio
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
SCENES = sorted((ROOT / "assets" / "samples" / "segmentation").glob("*.png"))
GROUNDERS = ["GroundingDINO tiny", "CLIPSeg", "GLIP-T"]
PROMPTS = ["a dog", "the red car, a tree", "an apple: 0.2 -leaf", "a cat\na hat", "the moon"]
BITS, BLOCK = 16, 24  # of the number, and the side of its blocks in pixels
PATIENCE = 600.0  # seconds for one answer
WARM_UP = 45.0  # seconds in which libraries and models are loaded


@dataclass
class Log:
    """Collect what happens."""

    events: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    page: list[tuple[float, float]] = field(default_factory=list)  # when, seconds
    memory: list[tuple[float, float]] = field(default_factory=list)  # when, MB
    wrong: list[str] = field(default_factory=list)


def marked(number: int, scene: Image.Image) -> bytes:
    """Return a scene with a number written along its upper edge, as a PNG file."""
    scene = scene.convert("RGB").resize((BITS * BLOCK, BITS * BLOCK))
    for bit in range(BITS):
        scene.paste("white" if number >> bit & 1 else "black", _block(bit))
    buffer = io.BytesIO()
    scene.save(buffer, "PNG")
    return buffer.getvalue()


def read_mark(data: bytes) -> int:
    """Return the number that `marked` wrote."""
    grey = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((BITS * BLOCK,) * 2))
    return sum(int(grey[t + 6 : b - 6, x + 6 : r - 6].mean() > 127) << bit
               for bit in range(BITS) for x, t, r, b in [_block(bit)])  # fmt: skip


def _block(bit: int) -> tuple[int, int, int, int]:
    return bit * BLOCK, 0, (bit + 1) * BLOCK, BLOCK


class Client:
    """One person's program."""

    def __init__(self, http: httpx.AsyncClient, log: Log, seed: int) -> None:
        self.http, self.log, self.random = http, log, random.Random(seed)
        self.number = seed << 8

    async def live(self, until: float) -> None:
        """Ask until the time is over; nothing that goes wrong stays unnoticed."""
        while time.monotonic() < until:
            self.number = self.number & ~255 | (self.number + 1) & 255
            try:
                await self.ask()
            except (httpx.HTTPError, KeyError, ValueError, OSError) as error:
                self.log.wrong.append(f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(self.random.uniform(0, 1))

    async def ask(self) -> None:
        """Send a picture to an endpoint and check the answer."""
        picture = marked(self.number, Image.open(self.random.choice(SCENES)))
        answer = await self.http.post("/gradio_api/upload", files={"files": ("a.png", picture)})
        file = {"path": answer.raise_for_status().json()[0], "meta": {"_type": "gradio.FileData"}}
        if self.random.random() < 0.3:
            await self.run("classify", {"image": file, "head_fusion": "mean", "discard_ratio": 0})
            return
        asked = {"prompt": self.random.choice(PROMPTS), "grounder": self.random.choice(GROUNDERS)}
        rest = {"url": "", "segmenter": "SAM 2.1 tiny", "threshold": 0.3}
        await self.run("segment", {"image": file, **asked, **rest})

    async def run(self, endpoint: str, body: dict[str, Any]) -> None:
        began = time.monotonic()
        joined = await self.http.post(f"/gradio_api/call/v2/{endpoint}", json=body)
        if joined.status_code == 503 and "Queue is full" in joined.text:
            self.log.events["queue full"] += 1
            await asyncio.sleep(2)
            return
        event = joined.raise_for_status().json()["event_id"]
        hang_up = self.random.random() < 0.1
        data = await self.wait(f"/gradio_api/call/v2/{endpoint}/{event}", hang_up)
        if data is None:
            self.log.events["hung up"] += 1
            return
        self.log.waits.append(time.monotonic() - began)
        self.log.events[endpoint] += 1
        await self.check(endpoint, data)

    async def wait(self, url: str, hang_up: bool) -> list[Any] | None:
        async with self.http.stream("GET", url) as answer:
            kind = ""
            async for line in answer.raise_for_status().aiter_lines():
                if hang_up:
                    return None
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif kind == "complete":
                    return json.loads(line.removeprefix("data: "))
                elif kind == "error":
                    raise ValueError(f"the server says {line}")
        raise ValueError("the answer ended without a word")

    async def check(self, endpoint: str, data: list[Any]) -> None:
        # The picture under the masks, or what the ViT saw.
        shown = data[0].get("value", data[0])["image"] if endpoint == "segment" else data[2]
        file = await self.http.get(f"/gradio_api/file={shown['path']}")
        seen = read_mark(file.raise_for_status().content)
        if seen != self.number:
            self.log.wrong.append(f"{endpoint}: got {seen:#x}, not {self.number:#x}")


def watch(http: httpx.Client, log: Log, pid: int, until: float) -> None:
    """Open the page and measure the app's memory every other second.

    In a thread of its own: what the crowd computes must not count as waiting for the page.
    """
    start = time.monotonic()
    while time.monotonic() < until:
        began = time.monotonic()
        http.get("/").raise_for_status()
        log.page.append((began - start, time.monotonic() - began))
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        log.memory.append((began - start, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        time.sleep(2)


async def crowd(url: str, pid: int, clients: int, seconds: float) -> Log:
    """Let many clients loose on the app."""
    log, given = Log(), {"base_url": url, "timeout": PATIENCE, "trust_env": False}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, **given) as http:
        while not await _is_up(http):
            await asyncio.sleep(0.5)
        until = time.monotonic() + seconds
        people = [Client(http, log, seed).live(until) for seed in range(1, clients + 1)]
        with httpx.Client(**given) as visitor:
            seen = asyncio.to_thread(watch, visitor, log, pid, until)
            await asyncio.gather(seen, *people)
    return log


async def _is_up(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/")).is_success
    except httpx.TransportError:
        return False


def report(log: Log, folder: Path) -> None:
    """Print the figures."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"answers: {dict(log.events)}; wrong: {len(log.wrong)}")
    for line, count in Counter(log.wrong).most_common(10):
        print(f"  {count} x {line}")
    cold = [seconds for at, seconds in log.page if at < WARM_UP]
    warm = [seconds for at, seconds in log.page if at >= WARM_UP]
    for name, found in (("answer", log.waits), ("page, at first", cold), ("page", warm)):
        if values := sorted(found):
            p95 = values[int(0.95 * (len(values) - 1))]
            print(f"{name}: median {statistics.median(values):.2f} s, 95 % {p95:.2f} s, "
                  f"worst {values[-1]:.2f} s")  # fmt: skip
    length = log.memory[-1][0] / 5
    fifths = [[mb for at, mb in log.memory if at // length == fifth] for fifth in range(5)]
    means = ", ".join(f"{statistics.mean(fifth):.0f}" for fifth in fifths)
    print(f"memory: {means} MB in each fifth of the time; files: {size:.0f} MB")


def main() -> None:
    """Start the app, let the crowd in, print the figures; fail if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--port", type=int, default=7899)
    args = parser.parse_args()
    command = [sys.executable, "app.py", "--weights", "demo", "--offline", "--port", str(args.port)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"GRADIO_TEMP_DIR": folder}
        app = subprocess.Popen(command, cwd=ROOT, env=environment)
        try:
            url = f"http://127.0.0.1:{args.port}"
            log = asyncio.run(crowd(url, app.pid, args.clients, args.seconds))
            report(log, Path(folder))
        finally:
            app.terminate()
            app.wait()
    sys.exit(bool(log.wrong))


if __name__ == "__main__":
    main()
