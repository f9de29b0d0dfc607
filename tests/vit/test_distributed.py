import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import train_vit
from vit import convnet, distributed, report
from vit.checkpoint import load_tensors

ROOT = Path(__file__).parents[2]
# Everything that takes part in a step, but for dropout: its masks differ between processes.
FLAGS = [
    "--image-size", "8", "--embed-dim", "16", "--depth", "1", "--num-heads", "2",
    "--epochs", "2", "--batch-size", "10", "--accumulate", "2", "--optimizer", "muon",
    "--lr", "0.002", "--dropout", "0", "--augment", "trivial", "--cutmix", "0.5",
    "--ema-decay", "0.9", "--hint", "1", "--sam-rho", "0.05", "--device", "cpu",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for split, count in (("train", 15), ("test", 2)):
        for i, name in enumerate(("cat", "dog")):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("RGB", (8, 8), (100 * i, 90, 12 * number))
                picture.save(tmp_path / "data" / split / name / f"{number}.png")
    return tmp_path / "data"


def test_two_processes_are_as_one(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_is_installed", lambda _: False)
    net = tmp_path / "net.safetensors"
    convnet.save(net, convnet.TrainedConvNet(convnet.build(2), ("cat", "dog"), 8))
    arguments = [*FLAGS, "--teacher", f"convnet:{net}", "--data", str(folder), "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = ["--nproc_per_node", "2", str(ROOT / "train_vit.py")]
    done = subprocess.run(
        [*torchrun, *script, *arguments, str(tmp_path / "two")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("epoch   2") == done.stdout.count("30 training") == 1
    train_vit.main([*arguments, str(tmp_path / "one")])

    (two, two_facts), (one, one_facts) = (
        load_tensors(tmp_path / name / "state.safetensors") for name in ("two", "one")
    )
    assert two.keys() == one.keys()
    for name, tensor in one.items():  # weights, their running mean, moments
        torch.testing.assert_close(two[name], tensor, atol=2e-4, rtol=2e-3)
    losses = [[row["loss"] for row in facts["history"]] for facts in (two_facts, one_facts)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert losses[0][0] != losses[0][1]


def test_without_torchrun_there_is_one_process() -> None:
    with distributed.process_group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.total(torch.tensor(3.0)) == 3
        assert distributed.first_alone(lambda: "loaded") == "loaded"


def test_a_group_of_torchrun_is_joined_and_left(monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    for name, value in (address | ranks).items():
        monkeypatch.setenv(name, value)
    with distributed.process_group(torch.device("cpu")) as device:
        assert device == torch.device("cpu")
        assert torch.distributed.get_backend() == "gloo"
        assert distributed.first_alone(lambda: "loaded") == "loaded"
    assert not torch.distributed.is_initialized()
