"""SAM 2.1 (Ravi et al., 2024, https://arxiv.org/abs/2408.00714) through the official predictor."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

from common.precision import fast
from grounding.core import Clicks, Masks, Regions, mask_box
from grounding.loading import NoInit
from grounding.recent import Recent, tensor_bytes

BATCH = 8
# A coarse mask becomes logits from -10 to 10, about the range of the decoder's own.
LOGIT_SCALE = 20.0
STABILITY = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


class Sam2:
    """Refine boxes and coarse masks to masks."""

    def __init__(self, model: Any) -> None:
        """Take a `SAM2Base` in eval mode on its device."""
        self.model = model
        self._encoded: Recent[Any] = Recent(lambda predictor: tensor_bytes(predictor._features))

    @torch.inference_mode()
    def segment(self, image: Image.Image, regions: Regions) -> Masks:
        """Return one mask a region, decoded in small batches; the picture is encoded only once."""
        predictor = self._predictor(image)
        masks, scores = [], []
        for start in range(0, len(regions), BATCH):
            part = slice(start, start + BATCH)
            coarse = None if regions.masks is None else self._mask_inputs(regions.masks[part])
            found, score, _ = predictor.predict(
                box=regions.boxes[part], mask_input=coarse, multimask_output=False
            )
            masks.append(found.reshape(-1, image.height, image.width) > 0)
            scores.append(score.reshape(-1))
        return Masks(
            np.concatenate(masks), np.clip(np.concatenate(scores), 0, 1).astype(np.float32)
        )

    @torch.inference_mode()
    def refine(self, image: Image.Image, mask: np.ndarray, clicks: Clicks) -> Masks:
        """Return a mask that follows clicks; the old mask, its box and all clicks are the prompt.

        Args:
            image: RGB picture.
            mask: bool (H, W), may be empty.
            clicks: At least one.
        """
        points = np.array([click[:2] for click in clicks], np.float32)
        belongs = np.array([click[2] for click in clicks], np.int64)
        corners = [*points[belongs == 1], *(np.array(mask_box(mask)).reshape(2, 2))]
        box = np.concatenate([np.min(corners, axis=0), np.max(corners, axis=0)])
        coarse = self._mask_inputs(mask[None].astype(np.float32))[0] if mask.any() else None
        found, score, _ = self._predictor(image).predict(
            points, belongs, box if mask.any() else None, coarse, multimask_output=False
        )
        return Masks(found > 0, np.clip(score, 0, 1).astype(np.float32))

    def _predictor(self, image: Image.Image) -> Any:
        """Return a predictor that has encoded the picture, now or a short while ago."""
        pixels = np.array(image)
        return self._encoded.get(pixels, lambda: self._encode(pixels))

    def _encode(self, pixels: np.ndarray) -> Any:
        from sam2.sam2_image_predictor import SAM2ImagePredictor

        # The predictor holds one picture, so each picture has its own: users never share one.
        predictor = SAM2ImagePredictor(self.model)
        side = self.model.image_size
        # It assumes pictures of 1024 pixels; these are its feature sizes for any side.
        predictor._bb_feat_sizes = [(side // stride,) * 2 for stride in (4, 8, 16)]
        with fast(self.model.device.type):
            predictor.set_image(pixels)
        # The decoder stays in float32: its masks are where its logits change their sign.
        parts = predictor._features
        parts["image_embed"] = parts["image_embed"].float()
        parts["high_res_feats"] = [features.float() for features in parts["high_res_feats"]]
        return predictor

    def _mask_inputs(self, masks: np.ndarray) -> np.ndarray:
        """Scale coarse masks (N, H, W) in [0, 1] to the encoder's logits (N, 1, s, s)."""
        side = self.model.sam_prompt_encoder.mask_input_size
        small = [cv2.resize(m, side[::-1], interpolation=cv2.INTER_AREA) for m in masks]
        peaks = masks.max((1, 2)).reshape(-1, 1, 1, 1)
        return (np.array(small)[:, None] / peaks - 0.5) * LOGIT_SCALE


def _read(folder: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """Return the configuration file and the weights that lie in `folder`."""
    from safetensors.torch import load_file

    # First, for beside it the hub has a model.safetensors that is transformers' and not ours.
    checkpoint = next(folder.glob("sam2.1_*.pt"), None)
    if checkpoint is None:
        return folder / "config.yaml", load_file(folder / "model.safetensors")
    # sam2.1_hiera_base_plus.pt -> sam2.1_hiera_b+.yaml
    size = checkpoint.stem.removeprefix("sam2.1_hiera_").replace("base_plus", "b+")
    weights = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["model"]
    return _official(size if size == "b+" else size[0]), weights


def _official(size: str) -> Path:
    import sam2

    return Path(sam2.__file__).parent / "configs" / "sam2.1" / f"sam2.1_hiera_{size}.yaml"


def _read_config(path: Path) -> dict[str, Any]:
    """Read a configuration, of which hydra calls whatever it names as a `_target_`.

    Raises:
        ValueError: If it names anything that the official ones do not.
    """
    from omegaconf import OmegaConf

    # Resolved, so that no name hides behind an interpolation.
    config = OmegaConf.to_container(OmegaConf.load(path).model, resolve=True)
    official = _official("t")
    if path.parent == official.parent:
        return config
    known = OmegaConf.to_container(OmegaConf.load(official).model)
    if foreign := _targets(config) - _targets(known):
        raise ValueError(f"{path.name} names {sorted(foreign)}, which are no parts of SAM 2.1.")
    return config


def _targets(config: Any) -> set[str]:
    if isinstance(config, list):
        return set().union(*map(_targets, config))
    if not isinstance(config, dict):
        return set()
    named = {str(config["_target_"])} if "_target_" in config else set()
    return named.union(*map(_targets, config.values()))


def load(folder: Path, device: str) -> Sam2:
    """Load the segmenter from a folder with an official checkpoint, or our demo weights.

    Raises:
        ValueError: If the configuration beside the weights names foreign code.
    """
    from hydra.utils import instantiate

    config_file, weights = _read(folder)
    config = _read_config(config_file) | {"sam_mask_decoder_extra_args": STABILITY}
    with NoInit():
        model = instantiate(config)
    # The tensors may lie in a mapped file: a copy would take time and double the memory.
    model.load_state_dict({name: x.float() for name, x in weights.items()}, assign=True)
    return Sam2(model.eval().to(device))
