"""Checkpoints in the layout of the official GLIP: names and strict loading."""

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from grounding.grounders.glip.config import GlipConfig, read_config
from grounding.grounders.glip.model import Glip
from grounding.grounders.glip.release import read_converted
from grounding.loading import NoInit

RELEASED = "glip_tiny_model_o365_goldg_cc_sbu.pth"
# What other versions of the official code save besides the weights of this network.
IGNORED = re.compile(
    r"relative_position_index$|position_ids$|rpn\.anchor_generator\.|rpn\.head\.cls_logits\."
    r"|\.pooler\.|rpn\.resizer\.|rpn\.head\.mlm_head\.|rpn\.tunable_linear\."
)
_SWIN = (
    (r"^swin\.swin\.embeddings\.patch_embeddings\.projection", "backbone.body.patch_embed.proj"),
    (r"^swin\.swin\.embeddings\.norm", "backbone.body.patch_embed.norm"),
    (r"^swin\.swin\.encoder\.layers", "backbone.body.layers"),
    (r"^swin\.hidden_states_norms\.stage2", "backbone.body.norm1"),
    (r"^swin\.hidden_states_norms\.stage3", "backbone.body.norm2"),
    (r"^swin\.hidden_states_norms\.stage4", "backbone.body.norm3"),
    (r"\.attention\.relative_position_bias\.", ".attn."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.[qkv]_proj\.", ".attn.qkv."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
)
_OTHERS = (
    (r"^fpn\.", "backbone.fpn."),
    (r"^bert\.", "language_backbone.body.model."),
)
_TOWER = {"fusion": (0, "b_attn."), "text": (1, ""), "visual": (2, "")}
_QKV = re.compile(r"\.attention\.([qkv])_proj\.")


def official_name(name: str) -> str:
    """Return the official name of a weight of `Glip`; q, k and v of Swin share one.

    >>> official_name("tower.2.visual.offset.bias"), official_name("bias0")
    ('rpn.head.dyhead_tower.8.offset.bias', 'rpn.head.bias0')
    """
    if match := re.match(r"tower\.(\d+)\.(\w+)\.(.*)", name):
        offset, prefix = _TOWER[match[2]]
        return f"rpn.head.dyhead_tower.{3 * int(match[1]) + offset}.{prefix}{match[3]}"
    rules = _SWIN if name.startswith("swin.") else _OTHERS
    renamed = name
    for pattern, new in rules:
        renamed = re.sub(pattern, new, renamed)
    return renamed if renamed != name else f"rpn.head.{name}"


def load_weights(model: Glip, weights: dict[str, Tensor], path: Path) -> None:
    """Copy official weights into the model.

    Args:
        model: The network, on the CPU.
        weights: Official name to tensor.
        path: Where they come from, for the message.

    Raises:
        ValueError: If a weight is missing, unknown or of another shape; the message names them.
    """
    wanted = {name: official_name(name) for name in _weights(model)}
    given = {name for name in weights if not IGNORED.search(name)}
    problems = [
        _list("missing", set(wanted.values()) - given),
        _list("unknown", given - set(wanted.values())),
    ]
    if not any(problems):
        ours = {name: _part(name, weights[official]) for name, official in wanted.items()}
        shapes = {name: tensor.shape for name, tensor in _weights(model).items()}
        wrong = {wanted[name] for name, tensor in ours.items() if tensor.shape != shapes[name]}
        problems.append(_list("of another shape", wrong))
    if any(problems):
        raise ValueError(
            f"{path} does not fit this GLIP; weights {'; '.join(filter(None, problems))}"
        )
    # The tensors may lie in a mapped file; a copy would double the memory.
    model.load_state_dict(ours, strict=False, assign=True)


def official_weights(model: Glip) -> dict[str, Tensor]:
    """Return the model's weights under their official names."""
    parts: dict[str, list[Tensor]] = {}
    for name, tensor in _weights(model).items():  # q, k and v come in this order
        parts.setdefault(official_name(name), []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in parts.items()}


def _weights(model: Glip) -> dict[str, Tensor]:
    """Return all weights, without the tables that the libraries compute by themselves."""
    return dict(sorted(model.named_parameters(), key=_qkv_order))


def _qkv_order(item: tuple[str, Tensor]) -> tuple[str, int]:
    match = _QKV.search(item[0])
    return _QKV.sub(".qkv.", item[0]), "qkv".index(match[1]) if match else 0


def _part(name: str, tensor: Tensor) -> Tensor:
    match = _QKV.search(name)
    return tensor.chunk(3)["qkv".index(match[1])] if match else tensor


def _list(what: str, names: set[str]) -> str:
    shown = sorted(names)[:5]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    return f"{what}: {', '.join(shown)}{more}" if names else ""


def read_model(path: Path) -> Glip:
    """Load a GLIP.

    Args:
        path: A released checkpoint (`.pth`), a safetensors file with the same names, or a folder
            with one of the two. A `config.json` beside it holds the sizes; without it they are
            GLIP-T's.

    Raises:
        ValueError: If there are no weights, or they are damaged or do not fit.
    """
    file = find_weights(path)
    config_file = file.with_name("config.json")
    config = read_config(config_file) if config_file.is_file() else GlipConfig()
    weights = read_converted(file) if file.suffix == ".pth" else _read_safetensors(file)
    with NoInit():
        model = Glip(config)
    load_weights(model, {name: tensor.float() for name, tensor in weights.items()}, file)
    return model.eval()


def find_weights(path: Path) -> Path:
    """Return the file of the weights in a folder; a file is its own.

    Raises:
        ValueError: If there is none, or several and none is GLIP-T as released.
    """
    if path.is_file():
        return path
    if (path / RELEASED).is_file():  # whatever else of the repository lies beside it
        return path / RELEASED
    files = sorted([*path.glob("*.safetensors"), *path.glob("*.pth")])
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise ValueError(
            f"{path} must hold one file *.pth or *.safetensors with GLIP; it has: {found}"
        )
    return files[0]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and get it anew.") from error
