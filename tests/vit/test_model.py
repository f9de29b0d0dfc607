import dataclasses
import re

import pytest
import torch
from torch import Tensor
from torchvision.models import VisionTransformer

from vit.model import ViT, ViTConfig


def pictures(config: ViTConfig, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 3, config.image_size, config.image_size, generator=generator)


def torchvision_twin(model: ViT) -> VisionTransformer:
    """Build torchvision's ViT of the same sizes with the weights of ours."""
    c = model.config
    twin = VisionTransformer(
        c.image_size, c.patch_size, c.depth, c.num_heads, c.embed_dim, c.mlp_dim,
        num_classes=c.num_classes,
    )  # fmt: skip
    names = {
        "cls_token": "class_token",
        "pos_embed": "encoder.pos_embedding",
        "patch_embed.proj": "conv_proj",
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.qkv.": "self_attention.in_proj_",
        "attn.proj": "self_attention.out_proj",
        "mlp.fc1": "mlp.0",
        "mlp.fc2": "mlp.3",
    }
    state = {}
    for name, tensor in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        name = re.sub(r"^blocks\.(\d+)", r"encoder.layers.encoder_layer_\1", name)
        name = re.sub(r"^norm\.", "encoder.ln.", name)
        state[re.sub(r"^head\.", "heads.head.", name)] = tensor
    twin.load_state_dict(state)
    return twin.eval()


def test_reference_size() -> None:
    assert sum(p.numel() for p in ViT(ViTConfig()).parameters()) == 3_195_146


def test_equals_torchvision(tiny_model: ViT) -> None:
    x = pictures(tiny_model.config)
    torch.testing.assert_close(tiny_model(x), torchvision_twin(tiny_model)(x))


@pytest.mark.parametrize("training", [False, True])
def test_forward_with_attention_equals_forward(tiny_model: ViT, training: bool) -> None:
    x = pictures(tiny_model.config)
    tiny_model.train(training)
    torch.manual_seed(0)  # the same dropout in both
    plain = tiny_model(x)
    torch.manual_seed(0)
    logits, attentions = tiny_model.forward_with_attention(x)
    torch.testing.assert_close(logits, plain)
    assert attentions.shape == (2, 3, 2, 17, 17)
    torch.testing.assert_close(attentions.sum(-1), torch.ones(2, 3, 2, 17))


def test_attention_is_what_the_layers_use(tiny_model: ViT) -> None:
    """The returned weights applied to the values by hand give the attention's output."""
    attention = tiny_model.blocks[0].attn
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))
    out, weights = attention.forward_with_attention(x)
    values = attention.qkv(x)[..., 32:].view(2, 5, 2, 8)
    by_hand = torch.einsum("bhij,bjhd->bihd", weights, values).flatten(2)
    torch.testing.assert_close(attention.proj(by_hand), out)


def test_pictures_of_a_batch_do_not_mix(tiny_model: ViT) -> None:
    x = pictures(tiny_model.config)
    torch.testing.assert_close(tiny_model(x)[1:2], tiny_model(x[1:2]))


def test_patches_are_embedded_row_by_row(tiny_model: ViT) -> None:
    black = torch.zeros(1, 3, 8, 8)
    dotted = black.clone()
    dotted[0, :, 3, 6] = 1  # row 1, column 3 of the 4 x 4 patches of side 2
    changed = (tiny_model.embed(black) != tiny_model.embed(dotted)).any(-1)[0]
    assert changed.nonzero().flatten().tolist() == [1 + 1 * 4 + 3]


def test_a_new_model_predicts_uniformly(tiny_config: ViTConfig) -> None:
    logits = ViT(tiny_config).eval()(pictures(tiny_config))
    assert torch.equal(logits, torch.zeros(3, 3))


def test_every_block_starts_as_the_identity(tiny_config: ViTConfig) -> None:
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(4))
    for block in ViT(tiny_config).eval().blocks:
        assert torch.equal(block(x), x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, "patch_size 3 does not divide image_size 8"),
        ({"num_heads": 3}, "embed_dim 16 is not a multiple of num_heads 3"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be in [0, 1)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"mlp_dim": -4}, "mlp_dim is -4; it must be at least 1"),
    ],
)
def test_impossible_sizes(tiny_config: ViTConfig, changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(tiny_config, **changes)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 3, 8, 9),  # not square
        (1, 1, 8, 8),  # grey
        (3, 8, 8),  # no batch axis
    ],
)
def test_wrong_input(tiny_model: ViT, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{shape}; expected (B, 3, 8, 8)")):
        tiny_model(torch.zeros(shape))
