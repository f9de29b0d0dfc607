import json
import os
from pathlib import Path
from typing import Any

import pytest
from transformers import BertTokenizer

from grounding.grounders.glip.checkpoint import load_weights
from grounding.grounders.glip.config import GlipConfig
from grounding.grounders.glip.model import Glip
from grounding.grounders.glip.release import read_released

# What the official code answers; another folder of the same layout does as well.
PARITY = Path(os.environ.get("GLIP_PARITY_DIR", Path(__file__).parent / "parity"))


def fixture_config(facts: dict[str, Any]) -> GlipConfig:
    swin, bert = facts["swin"], facts["bert"]
    return GlipConfig(
        embed_dim=swin["EMBED_DIM"],
        depths=tuple(swin["DEPTHS"]),
        num_heads=tuple(swin["NUM_HEADS"]),
        window_size=swin["WINDOW_SIZE"],
        channels=facts["channels"],
        head_blocks=facts["num_dyhead_blocks"],
        fusion_dim=facts["fusion_embed_dim"],
        fusion_heads=facts["fusion_heads"],
        vocab_size=bert["vocab_size"],
        text_dim=bert["hidden_size"],
        text_layers=bert["num_hidden_layers"],
        text_heads=bert["num_attention_heads"],
        text_mlp_dim=bert["intermediate_size"],
        text_positions=bert["max_position_embeddings"],
        short_side=facts["eval_min_size"],
        long_side=facts["eval_max_size"],
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "parity_run" in metafunc.fixturenames:
        runs = json.loads((PARITY / "facts.json").read_text())["runs"]
        names = [f"{run['name']}-{run['kind']}" for run in runs]
        metafunc.parametrize("parity_run", runs, ids=names)


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    return PARITY


@pytest.fixture(scope="session")
def parity_facts() -> dict[str, Any]:
    return json.loads((PARITY / "facts.json").read_text())


@pytest.fixture(scope="session")
def parity_model(parity_facts: dict[str, Any]) -> Glip:
    """Return a GLIP with the weights the official code was run with; do not change it."""
    model = Glip(fixture_config(parity_facts))
    load_weights(model, read_released(PARITY / "checkpoint.pth"), PARITY / "checkpoint.pth")
    return model.eval()


@pytest.fixture(scope="session")
def parity_tokenizer() -> BertTokenizer:
    return BertTokenizer(str(PARITY / "vocab.txt"))
