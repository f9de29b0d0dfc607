"""The real page with fake models, behind its real server, as strangers' programs see it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio.routes import App
from PIL import Image
from starlette.testclient import TestClient

import app as application
from grounding.core import Masks, Regions, mask_box
from grounding.images import fetch_image
from grounding.pipeline import Models
from grounding.weights import Source, Weights
from tests.grounding.test_fetch import Server, is_local, local, serving

RED = (255, 0, 0)


class RedFinder:
    """A grounder that finds what is red, and remembers the picture it was given."""

    def __init__(self) -> None:
        self.seen: list[Image.Image] = []

    def ground(self, image: Image.Image, phrases: list[str], threshold: float) -> Regions:
        self.seen.append(image)
        red = np.all(np.abs(np.asarray(image).astype(int) - RED) < 60, axis=2)
        if not red.any():
            return Regions(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
        boxes = np.array([mask_box(red)], np.float32)
        return Regions(boxes, np.ones(1, np.float32), (phrases[0],))


class Filler:
    """A segmenter that fills boxes."""

    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        masks = np.zeros((len(regions), image.height, image.width), bool)
        for mask, (x1, y1, x2, y2) in zip(masks, regions.boxes.astype(int), strict=True):
            mask[y1:y2, x1:x2] = True
        return Masks(masks, np.ones(len(regions), np.float32))


class Store:
    """What `ModelStore` is to the page, with models that need no weights."""

    def __init__(self, weights: Weights, _device: str) -> None:
        self.weights, self.grounder = weights, RedFinder()

    def get(self, *_: Any) -> Models:
        source = Source("fake", Path(), demo=False)
        return Models(self.grounder, Filler(), source, source)


@dataclass(frozen=True)
class Site:
    """The page, a client of its server, a server of pictures elsewhere, and the grounder."""

    page: Any
    client: TestClient
    elsewhere: Server
    grounder: RedFinder

    def call(self, name: str, **given: Any) -> dict[str, Any]:
        """Call an endpoint as a program does; what is not given stays as the page has it.

        Args:
            name: Of the endpoint.
            given: Values by the component's elem_id, with _ for -, or by its label.
        """
        fn = next(fn for fn in self.page.fns.values() if fn.api_name == name)
        data = [self._value(block, {"seg_url": ""} | given) for block in fn.inputs]
        body = json.dumps({"data": data})  # NaN and all
        return self.client.post(f"/gradio_api/run/{name}", content=body).json()

    def _value(self, block: Any, given: dict[str, Any]) -> Any:
        if block.stateful:
            return None
        names = str(block.elem_id).replace("-", "_"), block.label
        return next((given[name] for name in names if name in given), block.value)


@contextmanager
def open_site() -> Iterator[Site]:
    """Serve the page to a test client."""
    stores: list[Store] = []

    def make(*arguments: Any) -> Store:
        stores.append(Store(*arguments))
        return stores[-1]

    with pytest.MonkeyPatch.context() as patch, serving(Server()) as elsewhere:
        patch.setattr(application, "ModelStore", make)
        ports = frozenset({elsewhere.server_port})
        fetch = partial(fetch_image, ports=ports, resolve=local, allow=is_local)
        page = application.build_page(Weights("demo"), "cpu", fetch)
        with TestClient(App.create_app(page)) as client:
            yield Site(page, client, elsewhere, stores[0].grounder)
