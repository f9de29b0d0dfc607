"""Kills and full disks: what was saved stays, and going on gives what never stopping gives."""

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from vit.checkpoint import load_tensors, save_tensors
from vit.data import ImageSet
from vit.model import ViTConfig
from vit.recipes import TrainConfig
from vit.report import write_csv
from vit.training import Trainer

ROOT = Path(__file__).parents[2]
# One process imports torch and forks the trainings, which takes a tenth of starting each anew.
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from vit import report
from vit.checkpoint import load_tensors
from vit.data import ImageSet, Split
from vit.model import ViTConfig
from vit.recipes import TrainConfig
from vit.training import Trainer

torch.set_num_threads(1)
report._is_installed = lambda _: False
SIZES = ViTConfig(image_size=8, patch_size=2, num_classes=3, embed_dim=16, depth=2, num_heads=2,
                  mlp_dim=24, drop_path=0.1)
CONFIG = TrainConfig(optimizer="muon", batch_size=4, epochs=8, crop_padding=1, augment="trivial",
                     cutmix=0.5, drop_path=0.1, ema_decay=0.9)


def split(count):
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(images, torch.arange(count) % 3)


def train(folder):
    trainer = Trainer(CONFIG, SIZES, ImageSet(split(12), split(9), tuple("abc"), "noise"), folder,
                      torch.device("cpu"))
    if (folder / "state.safetensors").exists():
        trainer.resume()
    trainer.run()


def train_apart(folder, seconds=None):
    # Returns whether it came to its end.
    child = os.fork()
    if child == 0:
        train(folder)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1] == 0


def read(folder):
    # Whatever is there must be whole.
    files = {path.name: load_tensors(path) for path in folder.glob("*.safetensors")}
    return {name: (tensors, facts.get("step")) for name, (tensors, facts) in files.items()}


def same(one, other):
    return one.keys() == other.keys() and all(
        one[file][1] == other[file][1]
        and all(torch.equal(tensor, other[file][0][name]) for name, tensor in one[file][0].items())
        for file in one)


root, moments, kills, runs = Path(sys.argv[1]), random.Random(0), 0, 0
began = time.monotonic()
assert train_apart(root / "whole")
seconds, whole = time.monotonic() - began, read(root / "whole")
assert {"model.safetensors", "state.safetensors"} <= whole.keys()
while kills < 10:
    runs += 1
    folder, steps = root / str(runs), 0
    while kills < 10 and not train_apart(folder, moments.uniform(0, seconds)):
        kills += 1
        saved = read(folder).get("state.safetensors", ({}, 0))[1]
        assert saved >= steps, "what had been saved is lost"
        steps = saved
    assert train_apart(folder)
    assert same(read(folder), whole)
print(kills, "kills")
"""


def test_killed_at_ten_moments_and_resumed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.endswith("10 kills\n"), done.stderr


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 4 kB. No fixture: pytest may be writing its report to a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.ones(2)}, {})
    with (
        pytest.raises(ValueError, match=r"a\.safetensors cannot be written .*disk full"),
        full_disk(),
    ):
        save_tensors(path, {"x": torch.zeros(5000)}, {})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    assert torch.equal(load_tensors(path)[0]["x"], torch.ones(2))


def test_a_full_disk_keeps_the_old_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "log.csv", [{"epoch": 1}])
    with pytest.raises(ValueError, match=r"log\.csv cannot be written"), full_disk():
        write_csv(tmp_path / "log.csv", [{"epoch": epoch} for epoch in range(5000)])
    assert [file.name for file in tmp_path.iterdir()] == ["log.csv"]
    assert (tmp_path / "log.csv").read_text().split() == ["epoch", "1"]


def test_a_full_disk_ends_a_training_with_a_sentence(
    tmp_path: Path, tiny_config: ViTConfig, tiny_set: ImageSet
) -> None:
    config = TrainConfig(optimizer="adam", batch_size=4, epochs=1, crop_padding=1)
    trainer = Trainer(config, tiny_config, tiny_set, tmp_path, torch.device("cpu"))
    with pytest.raises(ValueError, match="cannot be written"), full_disk():
        trainer.run()
    assert not list(tmp_path.glob("*.safetensors")) and not list(tmp_path.glob("*.partial"))
