import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from vit.dropout import Dropout
from vit.model import ViT, ViTConfig

Make = Callable[..., ViT]

# Every option alone and those that meet in the code.
OPTIONS = [
    {},
    {"pool": "mean"},
    {"pool": "seq"},
    {"stem": "conv"},
    {"stem": "conv", "pool": "mean"},
    {"drop_path": 0.5},
    {"distilled": True},
    {"distilled": True, "stem": "conv", "drop_path": 0.5},
]


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
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_forward_with_attention_equals_forward(
    make_model: Make, options: dict[str, Any], training: bool
) -> None:
    """Except for the dropout of the last block, of which `forward` computes fewer tokens."""
    model = make_model(dropout=0.0, **options).train(training)
    tokens = 16 + model.config.num_prefix_tokens
    x = pictures(model.config)
    torch.manual_seed(0)  # the same dropped paths in both
    plain = model(x)
    torch.manual_seed(0)
    logits, attentions = model.forward_with_attention(x)
    torch.testing.assert_close(logits, plain)
    assert attentions.shape == (2, 3, 2, tokens, tokens)
    torch.testing.assert_close(attentions.sum(-1), torch.ones(2, 3, 2, tokens))


@pytest.mark.parametrize(
    ("options", "prefix"),
    [({}, 1), ({"pool": "mean"}, 0), ({"pool": "seq"}, 0), ({"distilled": True}, 2)],
)
def test_prefix_tokens(tiny_config: ViTConfig, options: dict[str, Any], prefix: int) -> None:
    config = dataclasses.replace(tiny_config, **options)
    assert config.num_prefix_tokens == prefix
    assert ViT(config).embed(pictures(config)).shape == (3, prefix + 16, 16)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_all_tokens_of_the_last_block_would_teach_the_same(
    make_model: Make, options: dict[str, Any], depth: int
) -> None:
    model = make_model(dropout=0.0, depth=depth, **options).train()
    torch.manual_seed(0)
    model(pictures(model.config)).square().sum().backward()
    few = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    torch.manual_seed(0)
    model.forward_with_attention(pictures(model.config))[0].square().sum().backward()
    torch.testing.assert_close(few, [p.grad for p in model.parameters()])


@pytest.mark.parametrize(
    ("options", "tokens"), [({}, 1), ({"distilled": True}, 2), ({"pool": "mean"}, 16)], ids=str
)
def test_the_last_block_computes_what_is_read(
    make_model: Make, options: dict[str, Any], tokens: int
) -> None:
    model, seen = make_model(**options), []
    for block in model.blocks:
        block.mlp.register_forward_hook(lambda _, inputs, out: seen.append(out.shape[1]))
    model(pictures(model.config))
    assert seen == [16 + model.config.num_prefix_tokens, tokens]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_weight_learns(make_model: Make, options: dict[str, Any]) -> None:
    model = make_model(**options)
    model(pictures(model.config)).square().sum().backward()
    assert all(p.grad.abs().max() > 1e-4 for p in model.parameters())


def test_mean_pooling_by_hand(make_model: Make) -> None:
    model = make_model(pool="mean")
    x = model.embed(pictures(model.config))
    for block in model.blocks:
        x = block(x)
    by_hand = torch.stack([model.norm(token) for token in x.unbind(1)]).mean(0)
    torch.testing.assert_close(model(pictures(model.config)), model.head(by_hand))


def test_sequence_pooling_reads_the_highest_score(make_model: Make) -> None:
    """A score of a thousand times token 3 leaves that token alone; a score of 0 is the mean."""
    model = make_model(pool="seq")
    x = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model.norm = nn.LayerNorm(16)  # all tokens as long, so that each is most like itself
        model.pool_score.zero_()
        torch.testing.assert_close(model._pool(x), model.norm(x).mean(1))
        model.pool_score.copy_(1000 * model.norm(x[0, 3]))
        torch.testing.assert_close(model._pool(x), model.norm(x[:, 3]))


def test_two_heads(make_model: Make) -> None:
    model = make_model(distilled=True)
    x = pictures(model.config)
    of_class, of_teacher, _ = model.forward_to_learn(x)
    assert not torch.allclose(of_class, of_teacher)
    torch.testing.assert_close(model(x), (of_class + of_teacher) / 2)


@pytest.mark.parametrize("options", [{}, {"pool": "mean"}, {"distilled": True}], ids=str)
def test_what_learns_from_a_teacher(make_model: Make, options: dict[str, Any]) -> None:
    """The tokens after every block, and without a head of their own the logits of `forward`."""
    model = make_model(depth=3, **options)
    x = pictures(model.config)
    of_class, of_teacher, tokens = model.forward_to_learn(x)
    assert len(tokens) == 3
    torch.testing.assert_close(model.blocks[1](tokens[0]), tokens[1])
    torch.testing.assert_close(model._classify(tokens[2]), model(x))
    assert torch.equal(of_class, of_teacher) != model.config.distilled


@pytest.mark.parametrize("patch_size", [2, 4, 8, 16])
def test_conv_stem_gives_the_same_grid(patch_size: int) -> None:
    sizes = {"image_size": 16, "patch_size": patch_size, "embed_dim": 16, "depth": 1}
    x = pictures(ViTConfig(**sizes))
    grids = [ViT(ViTConfig(**sizes, stem=stem)).patch_embed(x).shape for stem in ("patch", "conv")]
    assert grids[0] == grids[1] == (3, (16 // patch_size) ** 2, 16)


def test_conv_stem_sees_beyond_the_patch_and_no_further(make_model: Make) -> None:
    model = make_model(stem="conv")
    black = torch.zeros(1, 3, 8, 8)
    dotted = black.clone()
    dotted[0, :, 3, 6] = 1
    changed = (model.patch_embed(black) != model.patch_embed(dotted)).any(-1).view(4, 4)
    assert changed[1, 3]
    assert 1 < changed.sum() <= changed[1:3, 2:].sum()


def test_drop_path_rises_linearly(tiny_config: ViTConfig) -> None:
    config = dataclasses.replace(tiny_config, depth=5, drop_path=0.4)
    rates = [block.drop_path.p for block in ViT(config).blocks]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_every_branch_is_dropped_for_some_pictures(make_model: Make) -> None:
    model = make_model(dropout=0.0).train()
    for block in model.blocks:
        block.drop_path.p = 1 - 1e-6
    x = torch.randn(50, 5, 16)
    for block in model.blocks:
        assert torch.equal(block(x), x)
        assert not torch.allclose(block.eval()(x), x, atol=0.1)


def test_dropout_after_every_part(make_model: Make) -> None:
    """After the positions, the attention, the GELU and the MLP; attention itself has none."""
    model, seen = make_model(dropout=0.5).train(), []
    for name, module in model.named_modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(pictures(model.config))
    block = ["dropout", "mlp.dropout", "mlp.dropout"]
    assert seen == ["dropout", *(f"blocks.{i}.{part}" for i in range(2) for part in block)]


def test_patches_are_dropped_in_training_alone(make_model: Make) -> None:
    model = make_model(distilled=True)
    model.patch_dropout.p = 0.5
    x = pictures(model.config)
    assert model.train().embed(x).shape == (3, 2 + 8, 16)
    assert model.eval().embed(x).shape == (3, 2 + 16, 16)


def test_parameters_of_the_hybrid_stay_below_the_limit() -> None:
    """3.4 M, so that it may be compared with the reference."""
    assert sum(p.numel() for p in ViT(ViTConfig(stem="conv", pool="seq")).parameters()) < 3_400_000


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
        (
            {"patch_size": 3},
            "patch_size 3 does not divide image_size 8; choose one of [1, 2, 4, 8]",
        ),
        ({"num_heads": 3}, "embed_dim 16 is not a multiple of num_heads 3"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be in [0, 1)"),
        ({"dropout": -0.1}, "dropout is -0.1"),
        ({"drop_path": 1.0}, "drop_path is 1.0; it must be in [0, 1)"),
        ({"pool": "max"}, "pool is 'max'; choose one of ('cls', 'mean', 'seq')"),
        ({"stem": "resnet"}, "stem is 'resnet'; choose one of ('patch', 'conv')"),
        ({"distilled": True, "pool": "mean"}, "pool is 'mean'; with a distillation token"),
        # no number of halvings
        ({"stem": "conv", "patch_size": 1}, "patch_size is 1; with stem 'conv' it must be 2"),
        ({"stem": "conv", "patch_size": 6, "image_size": 12}, "patch_size is 6; with stem 'conv'"),
        ({"depth": 0}, "depth is 0; it must be at least 1"),
        ({"mlp_dim": -4}, "mlp_dim is -4; it must be at least 1"),
    ],
)
def test_impossible_sizes(tiny_config: ViTConfig, changes: dict[str, Any], message: str) -> None:
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


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_tokens_are_short_under_autocast(make_model: Make, pool: str) -> None:
    """The residual stream, that is; the answers stay what they are, within the rounding."""
    model, images = make_model(pool=pool), torch.rand(3, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert model.embed(images).dtype == torch.bfloat16
        short = model(images).float()
    assert model.embed(images).dtype == torch.float32
    torch.testing.assert_close(short, model(images), atol=0.05, rtol=0.05)
