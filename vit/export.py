"""A trained ViT as an ONNX file, which runs without torch.

    session = onnxruntime.InferenceSession("vit.onnx")
    texts = session.get_modelmeta().custom_metadata_map
    facts = {key: json.loads(text) for key, text in texts.items()}
    size = (facts["image_size"],) * 2
    photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
    picture = ImageOps.fit(photo, size, Image.Resampling.BICUBIC)
    pixels = (np.asarray(picture) / 255 - facts["mean"]) / facts["std"]
    image = pixels.transpose(2, 0, 1)[None].astype(np.float32)
    (logits,) = session.run(["logits"], {"image": image})
    print(facts["classes"][logits[0].argmax()])

The file's metadata hold these facts as JSON, and in words what the model wants to see.
"""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from vit.checkpoint import load_checkpoint, replacing
from vit.model import ViT

PREPARATION = (
    "RGB, upright; the middle square, scaled to image_size x image_size (bicubic, antialiased); "
    "divided by 255; minus mean, divided by std, for each channel"
)


class _WithAttention(nn.Module):
    """A ViT whose forward pass also returns the attention."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.model.forward_with_attention(image)


def export_onnx(checkpoint: Path, out: Path) -> None:
    """Write a checkpoint as ONNX; needs the packages onnx and onnxscript.

    The input is "image": normalised float32 (B, 3, S, S) with any B. The outputs are "logits"
    (B, num_classes) and "attentions" (L, B, h, N, N), as of `ViT.forward_with_attention`.

    Args:
        checkpoint: File written by `train_vit.py`.
        out: File to write; its folder is made.

    Raises:
        ValueError: If the checkpoint cannot be read, the file cannot be written or is the
            checkpoint, or a package is missing.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"{error}; ONNX needs it: pip install onnx onnxscript onnxruntime"
        ) from error
    loaded = load_checkpoint(checkpoint)
    if out.exists() and out.samefile(checkpoint):
        raise ValueError(f"{out} is the checkpoint itself; choose another --out")
    if out.is_dir():
        raise ValueError(f"{out} cannot be written, as it is a folder; choose a file for --out")
    side = loaded.model.config.image_size
    with warnings.catch_warnings():
        # From inside of torch.export.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        program = torch.onnx.export(
            _WithAttention(loaded.model).eval(),
            # Of two pictures, as torch takes a size of 1 for a fixed one.
            (torch.zeros(2, 3, side, side),),
            input_names=["image"],
            output_names=["logits", "attentions"],
            dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    statistics = loaded.preprocessing
    facts = {
        "classes": loaded.classes,
        "image_size": side,
        "mean": statistics.mean,
        "std": statistics.std,
        "preparation": PREPARATION,
    }
    program.model.metadata_props.update({key: json.dumps(value) for key, value in facts.items()})
    with replacing(out) as new:
        program.save(new)
