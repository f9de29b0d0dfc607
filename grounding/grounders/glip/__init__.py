"""GLIP (Li et al., CVPR 2022, https://arxiv.org/abs/2112.03857) in plain PyTorch.

The official code, https://github.com/microsoft/GLIP, needs CUDA extensions that no longer build.
This is a new implementation of the same network; the tests hold a small one with random weights to
the numbers of the official code.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grounding.grounders.glip.grounder import GlipGrounder

# The released checkpoint comes without its vocabulary: that of bert-base-uncased.
VOCABULARY = Path(__file__).parents[3] / "assets" / "bert-base-uncased" / "vocab.txt"


def load(folder: Path, device: str) -> "GlipGrounder":
    """Load the grounder from a folder (or file) that `checkpoint.read_model` takes.

    A `vocab.txt` beside the weights replaces that of bert-base-uncased.
    """
    from transformers import BertTokenizer

    from grounding.grounders.glip.checkpoint import find_weights, read_model
    from grounding.grounders.glip.grounder import GlipGrounder

    own = find_weights(folder).with_name("vocab.txt")
    tokenizer = BertTokenizer(str(own if own.is_file() else VOCABULARY))
    return GlipGrounder(read_model(folder).to(device), tokenizer, device)
