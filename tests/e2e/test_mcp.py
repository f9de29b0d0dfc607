"""The tools that the running app offers to language models by the Model Context Protocol (MCP)."""

import ast
import asyncio
import base64
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from mcp import ClientSession, Tool
from mcp.client.streamable_http import streamable_http_client

from grounding.grounders import GROUNDERS
from grounding.segmenters import SEGMENTERS

from .test_api import PROMPT, STREET, check_detections

# pycocotools is not yet used to NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
T = TypeVar("T")
ASKED = {"image", "url", "prompt", "segmenter"}
STREET_URL = f"data:image/png;base64,{base64.b64encode(STREET.read_bytes()).decode()}"


def talk(app: Any, ask: Callable[[ClientSession], Awaitable[T]]) -> T:
    async def inside() -> T:
        async with (
            streamable_http_client(f"{app.url}/gradio_api/mcp/") as (read, write, _),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            return await ask(session)

    return asyncio.run(inside())


def call(app: Any, name: str, **values: Any) -> list[Any]:
    """Call a tool about the street and return its outputs."""

    async def ask(session: ClientSession) -> list[Any]:
        answer = await session.call_tool(name, {"image": STREET_URL, **values})
        text = " ".join(part.text for part in answer.content if part.type == "text")
        assert not answer.isError, text
        return ast.literal_eval(text)

    return talk(app, ask)


@pytest.fixture(scope="module")
def tools(app: Any) -> dict[str, Tool]:
    async def ask(session: ClientSession) -> list[Tool]:
        return (await session.list_tools()).tools

    return {tool.name: tool for tool in talk(app, ask)}


def test_only_what_the_page_offers_is_a_tool(tools: dict[str, Tool]) -> None:
    assert set(tools) == {"segment", "compare", "classify"}


@pytest.mark.parametrize(
    ("name", "does", "given"),
    [
        ("segment", "Find what the prompt names", ASKED | {"grounder", "threshold"}),
        ("compare", "Run one grounder of each kind", ASKED),
        (
            "classify",
            "Classify a picture with the Vision Transformer",
            {"image", "head_fusion", "discard_ratio", "checkpoint", "across", "down", "size"},
        ),
    ],
)
def test_a_tool_explains_itself(
    tools: dict[str, Tool], name: str, does: str, given: set[str]
) -> None:
    tool, properties = tools[name], tools[name].inputSchema["properties"]
    assert tool.description and tool.description.startswith(does) and "Returns:" in tool.description
    assert set(properties) == given
    assert all(re.fullmatch(r".{10,}\.", one["description"]) for one in properties.values())
    menus = {"grounder": list(GROUNDERS), "segmenter": list(SEGMENTERS)}
    for menu in menus.keys() & given:
        assert properties[menu]["enum"] == menus[menu]


def test_segment_finds_the_objects(app: Any) -> None:
    models = {"grounder": next(iter(GROUNDERS)), "segmenter": next(iter(SEGMENTERS))}
    found = call(app, "segment", url="", prompt=PROMPT, threshold=0.3, **models)[4]
    check_detections(found)
    assert all(len(row["box"]) == 4 and row["grounder_score"] >= 0.3 for row in found)


def test_classify_answers_with_probabilities(app: Any) -> None:
    given = {"head_fusion": "max", "discard_ratio": 0.5, "across": 0, "down": 1, "size": 0.5}
    label, _, _, note = call(app, "classify", checkpoint="vit-cifar10", **given)
    assert sum(one["confidence"] for one in label["confidences"]) <= 1 + 1e-6
    assert label["label"] in note and "192 × 192 of the 384 × 384 pixels" in note
