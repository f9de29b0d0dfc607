from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vit import drawings
from vit.curves import ORDERS, area, measure
from vit.drawings import draw_heads, draw_model, draw_patch, run_test
from vit.facts import read_facts
from vit.heads import attention_distance, attention_entropy, head_maps, patch_maps
from vit.heatmap import colour, outline, overlay
from vit.rollout import stretch
from vit.strips import heat_tiles
from vit.view import CHEFER, LAYER, SIDE, Look, Settings, class_name, heat_map


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Return what the sheets are made of."""
    made: list[tuple[Any, ...]] = []
    monkeypatch.setattr(drawings, "sheet", lambda *parts: made.append(parts))
    return made


def test_a_patch_looks_and_is_looked_at(look: Look, sheets: list[tuple[Any, ...]]) -> None:
    """The fourth patch of the first row, in the second layer."""
    found = draw_patch(look, (0.9, 0.1), 2)
    square = look.picture.crop((2, 0, 10, 8))
    both = [stretch(m).numpy()
            for m in patch_maps(look.prediction.attentions[:, 0], 4, 3)]  # fmt: skip
    for picture, maps in zip(found, both, strict=False):
        assert picture == outline(overlay(square, maps[1], SIDE), 3, 4)
    [(tiles, rows, columns)] = sheets
    assert tiles == heat_tiles(np.stack(both), drawings.TILE)
    assert (rows, columns) == (("looks at", "seen by"), ["layer 1", "layer 2"])


def test_every_head_has_its_range_and_its_numbers(
    look: Look, sheets: list[tuple[Any, ...]]
) -> None:
    draw_heads(look)
    [(tiles, rows, columns, captions)] = sheets
    attentions = look.prediction.attentions[:, 0]
    maps = head_maps(attentions, 4)
    assert (len(rows), len(columns)) == maps.shape[:2]
    pixels, bits = attention_distance(attentions, 4, 2), attention_entropy(attentions)
    ends = {tuple(colour(np.full((1, 1), end, np.float32))[0, 0].tolist()) for end in (0, 1)}
    for layer, head in np.ndindex(*maps.shape[:2]):
        said = f"{pixels[layer, head]:.0f} px, {bits[layer, head]:.1f} b"
        assert captions[layer][head] == said
        assert ends <= {shade for _, shade in tiles[layer][head].getcolors()}


@pytest.mark.parametrize("settings", [Settings(LAYER, layer=2, head=1), Settings(CHEFER)])
@pytest.mark.parametrize("label", ["red", "green"])
def test_the_test_is_of_the_map_and_class_that_are_shown(
    look: Look, settings: Settings, label: str
) -> None:
    """The map of a layer is of no class: it is tested for the answer."""
    settings = Settings(settings.method, label, layer=settings.layer, head=settings.head)
    name = label if settings.method == CHEFER else class_name(look.prediction, "")
    index = list(look.prediction.probabilities).index(name)
    x = look.predictor.to_input([look.prediction.seen])
    curves = measure(x, heat_map(look, settings), look.predictor.probabilities, index)
    deletion, insertion, text = run_test(look, settings)
    for table, values in ((deletion, curves.deletion), (insertion, curves.insertion)):
        assert [row[2] for row in table["data"]] == values.flatten().tolist()
        assert [row[1] for row in table["data"][:: len(curves.shares)]] == list(ORDERS)
        assert [row[0] for row in table["data"]] == curves.shares.tolist() * len(ORDERS)
    areas = [area(curves.shares, values)[0] for values in (curves.deletion, curves.insertion)]
    assert f"| this map | {areas[0]:.2f} | {areas[1]:.2f} |" in text
    assert f"for {name}" in text


def test_names_of_classes_are_text(tiny_checkpoint: Path) -> None:
    facts = read_facts(tiny_checkpoint)
    assert facts is not None
    facts["classes"] = ["<b>", "dog", "cat"]
    facts["metrics"]["confusion"] = [[1, 2, 0], [0, 3, 0], [0, 0, 1]]
    text, picture = draw_model(facts)
    assert "&lt;b&gt; → dog (2)" in text and "<b>" not in text
    assert picture is not None


def test_the_random_orders_are_always_the_same() -> None:
    x, heat = torch.rand(1, 3, 8, 8), torch.rand(4, 4)

    def classify(pictures: torch.Tensor) -> torch.Tensor:
        return pictures.flatten(1).cumsum(1).sin().mean(1, keepdim=True)

    first, second = (measure(x, heat, classify, 0) for _ in range(2))
    assert torch.equal(first.deletion, second.deletion)
    assert len(first.deletion.unique(dim=0)) == len(ORDERS)


def test_the_layer_of_a_patch_counts(look: Look) -> None:
    first, last = (draw_patch(look, (0.5, 0.5), layer) for layer in (1, 2))
    assert first[0] != last[0] and first[2] == last[2]


def test_a_map_without_an_order_is_not_tested(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    """In reading order it would be better than chance wherever the thing is at the top."""
    monkeypatch.setattr(drawings, "heat_map", lambda *_: torch.zeros(4, 4))
    with pytest.raises(ValueError, match="the same everywhere"):
        run_test(look, Settings())
