import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torchvision.models
import transformers
from PIL import Image
from torch import Tensor

from vit import convnet
from vit.checkpoint import Preprocessing
from vit.data import ImageSet, normalize, statistics
from vit.model import ViT
from vit.teacher import _preprocessing, fingerprint, load_teacher, try_teacher

CPU = torch.device("cpu")
Labels = Callable[[Tensor], Tensor]


def test_a_checkpoint(tiny_checkpoint: Path, tiny_model: ViT, tiny_set: ImageSet) -> None:
    images = tiny_set.train.images
    teach = load_teacher(str(tiny_checkpoint), ("red", "green", "blue"), CPU)
    with torch.no_grad():
        logits = tiny_model(normalize(images, *statistics(Preprocessing(), CPU)))
    torch.testing.assert_close(teach(images).logits, logits)
    assert teach(images).maps == ()
    # Other classes in another order: the answer is about those only.
    pair = load_teacher(str(tiny_checkpoint), ("blue", "red"), CPU)
    torch.testing.assert_close(pair(images).logits, logits[:, [2, 0]])


def test_a_convnet(tmp_path: Path, tiny_set: ImageSet) -> None:
    model, images = convnet.build(3).eval(), tiny_set.train.images.repeat(1, 1, 2, 2)
    trained = convnet.TrainedConvNet(model, tiny_set.classes, 16)
    convnet.save(tmp_path / "net.safetensors", trained)
    teach = load_teacher(f"convnet:{tmp_path / 'net.safetensors'}", tiny_set.classes[::-1], CPU)
    with torch.no_grad():
        inputs = normalize(images, *statistics(Preprocessing(), CPU))
        logits = model(inputs)
        maps = model.layer1(model.relu(model.bn1(model.conv1(inputs))))
        first = model.layer2(maps)
        maps = model.layer3(first)
    answer = teach(images)
    torch.testing.assert_close(answer.logits, logits.flip(1))
    torch.testing.assert_close(answer.maps, (first, maps, model.layer4(maps).detach()))


class Brightest(torch.nn.Module):
    """Answer 1 ("bright") if the normalised picture's mean is above 0, else 0 ("dark")."""

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 16, 16)  # the side it was trained with
        mean = images.mean((1, 2, 3))
        return torch.stack((-mean, mean), 1)


@pytest.fixture
def torchvision_name(monkeypatch: pytest.MonkeyPatch) -> str:
    transform = SimpleNamespace(crop_size=[16], mean=[0.5] * 3, std=[0.25] * 3)
    weights = SimpleNamespace(meta={"categories": ["dark", "bright"]}, transforms=lambda: transform)
    kinds = {"tiny_net": SimpleNamespace(DEFAULT=weights)}
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: kinds[name])
    monkeypatch.setattr(torchvision.models, "get_model", lambda name, weights: Brightest())
    return "torchvision:tiny_net"


@pytest.fixture
def transformers_name(tmp_path: Path) -> str:
    """Save a ViT of transformers whose answer is fixed: "bright" by its bias."""
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        image_size=16, patch_size=8, id2label={0: "dark", 1: "bright"},
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.constant_(model.classifier.bias[1:], 100.0)
    model.save_pretrained(tmp_path / "net")
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(
        tmp_path / "net"
    )
    return f"transformers:{tmp_path / 'net'}"


def test_torchvision(torchvision_name: str) -> None:
    images = torch.tensor([10, 250, 120, 135], dtype=torch.uint8).view(-1, 1, 1, 1)
    teach = load_teacher(torchvision_name, ("bright", "dark"), CPU)
    logits = teach(images.expand(-1, 3, 8, 8)).logits
    # By the teacher's own mean and deviation.
    means = (images.view(-1) / 255 - 0.5) / 0.25
    torch.testing.assert_close(logits, torch.stack((means, -means), 1))


def test_transformers(transformers_name: str) -> None:
    path = Path(transformers_name.removeprefix("transformers:")) / "config.json"
    config = json.loads(path.read_text())
    # As a file with "10" before "2".
    path.write_text(json.dumps(config | {"id2label": {"1": "bright", "0": "dark"}}))
    teach = load_teacher(transformers_name, ("bright", "dark"), CPU)
    answers = teach(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    assert answers.logits.argmax(1).tolist() == [0, 0]


def test_a_teacher_has_to_know_the_classes(torchvision_name: str) -> None:
    with pytest.raises(ValueError, match=re.escape("does not know the classes ['cat']; it must")):
        load_teacher(torchvision_name, ("dark", "cat"), CPU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.safetensors", "nowhere.safetensors is not a checkpoint of train_vit.py"),
        ("torchvision:resnet9000", "Unknown model resnet9000"),
        ("transformers:./nowhere", "teacher transformers:./nowhere cannot be loaded"),
        ("convnet:nowhere", "there is no such file; `python -m vit.convnet` trains"),
    ],
)
def test_unknown_teachers(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=re.escape(message)):
        load_teacher(name, ("dark",), CPU)


def test_the_fingerprint_of_a_file_is_of_what_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    prints = {fingerprint(f"convnet:{path}")}  # there is none yet
    for content in (b"one", b"other"):
        path.write_bytes(content)
        prints.add(fingerprint(str(path)))
        assert fingerprint(f"convnet:{path}") == fingerprint(str(path))
    assert len(prints) == 3
    assert fingerprint("torchvision:resnet18") == "torchvision:resnet18"
    assert fingerprint("") == ""  # Path("") is the working folder


def test_the_fingerprint_of_a_folder_is_of_what_is_in_it(tmp_path: Path) -> None:
    name, prints = f"transformers:{tmp_path}", set()
    for file in ("config.json", "model.safetensors"):
        for content in (b"one", b"other"):
            (tmp_path / file).write_bytes(content)
            prints.add(fingerprint(name))
    assert len(prints) == 4
    assert fingerprint(name) in prints
    assert fingerprint("transformers:google/vit") == "transformers:google/vit"  # of the hub


@pytest.mark.parametrize(
    "processor",
    [
        {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 16}},
        {
            "image_processor_type": "DeiTImageProcessor",
            "size": {"height": 18, "width": 18},
            "crop_size": {"height": 16, "width": 16},
        },
    ],
    ids=["shortest edge", "crop"],
)
def test_pictures_have_the_side_that_the_processor_says(
    transformers_name: str, processor: dict[str, object]
) -> None:
    folder = Path(transformers_name.removeprefix("transformers:"))
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    teach = load_teacher(transformers_name, ("bright", "dark"), CPU)
    assert teach(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)).logits.shape == (1, 2)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("ViT", {}),
        ("ViT", {"do_normalize": False}),  # some have a mean in their file even so
        ("ViT", {"do_rescale": False}),
        ("ViT", {"do_rescale": False, "do_normalize": False}),
        ("ViT", {"rescale_factor": 1 / 127.5}),  # from 0 to 2
        ("ViT", {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}),
        ("EfficientNet", {"include_top": True}),  # divides by the deviation once more
    ],
)
def test_pixels_are_what_the_processor_makes_of_them(kind: str, said: dict[str, object]) -> None:
    processor = getattr(transformers, f"{kind}ImageProcessor")(do_resize=False, **said)
    colours = [Image.new("RGB", (4, 4), colour) for colour in ("black", "white", "red")]
    found = _preprocessing(processor(colours, return_tensors="pt")["pixel_values"])
    pixels = torch.randint(256, (2, 3, 4, 4), dtype=torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
    expected = processor(pictures, return_tensors="pt")["pixel_values"]
    got = normalize(pixels, *statistics(found, CPU))
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-4)


def test_a_processor_to_which_all_is_one() -> None:
    with pytest.raises(ValueError, match="it cannot tell black from white"):
        _preprocessing(torch.zeros(3, 3, 4, 4))


@pytest.mark.parametrize(
    ("model", "processor", "words"),
    [
        ({}, {"image_processor_type": "MobileViTImageProcessor"}, "loaded: it wants its colours"),
        ({}, {"rescale_factor": 0}, "cannot be loaded: "),
        ({}, {"image_mean": None}, "cannot be loaded: "),
        ({"num_channels": 1}, {}, "takes no square pictures in colour"),
        ({}, {"size": {"height": 16, "width": 32}}, r"its pictures are \(3, 16, 32\), not"),
        ({}, {"size": {"longest_edge": 16}}, "loaded: "),
    ],
    ids=["BGR", "nothing", "no mean", "grey", "not square", "any size"],
)
def test_teachers_that_cannot_teach(
    tmp_path: Path, model: dict[str, object], processor: dict[str, object], words: str
) -> None:
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        patch_size=8, **{"image_size": 16} | model,
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    usual = transformers.ViTImageProcessor(size={"height": 16, "width": 16}).to_dict()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(usual | processor))
    with pytest.raises(ValueError, match=f"teacher transformers:.* {words}"):
        try_teacher(f"transformers:{tmp_path}")


def test_a_teacher_that_can(transformers_name: str) -> None:
    try_teacher(transformers_name)
