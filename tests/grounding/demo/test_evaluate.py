"""The command that README names, with the bundled weights on a few scenes."""

import re

import pytest

from grounding.demo.evaluate import main

# Below what the README's table has, as a few scenes are.
LEAST = {"miou": 0.7, "hit50": 0.8, "ap50": 0.8, "absent": 0.6, "colour": 0.7}


def test_the_bundled_weights_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--scenes", "4", "--seed", "1"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    measured = {name: dict(re.findall(r"(\w+) ([\d.]+)", row)) for name, row in lines}
    assert set(measured) == {"grounding_dino", "clipseg", "glip", "sam2"}
    assert {name for name, row in measured.items() if "ap50" in row} == {"grounding_dino", "glip"}
    for name, row in measured.items():
        assert all(LEAST[metric] < float(value) <= 1 for metric, value in row.items()), (name, row)
