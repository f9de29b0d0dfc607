"""Saves transformers models as `from_pretrained` reads them, small."""

import copy
import json
from pathlib import Path

from transformers import PreTrainedModel, ProcessorMixin


def save_half(model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
    """Write a model in half precision, and its processor; the model will load in single."""
    copy.deepcopy(model).half().save_pretrained(folder)
    processor.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    # from_pretrained takes the precision from here; half is slow or missing on CPUs.
    (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
