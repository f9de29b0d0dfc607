"""The command that README names, with the bundled weights on a few scenes."""

import json
import re

import pytest

from grounding.demo import evaluate
from grounding.demo.evaluate import main

# Below what the README's table has, as a few scenes are.
LEAST = {"miou": 0.7, "hit50": 0.8, "ap50": 0.8, "absent": 0.6, "colour": 0.7}


def test_the_bundled_weights_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--scenes", "4", "--seed", "1", "--json"])
    measured = json.loads(capsys.readouterr().out)
    assert set(measured) == {"grounding_dino", "clipseg", "glip", "sam2"}
    assert {name for name, row in measured.items() if "ap50" in row} == {"grounding_dino", "glip"}
    for name, row in measured.items():
        assert all(LEAST[metric] < value <= 1 for metric, value in row.items()), (name, row)


@pytest.mark.parametrize("scenes", ["0", "-1"])
def test_no_scenes(scenes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--scenes", scenes])
    assert f"--scenes is {scenes}; it must be at least 1" in capsys.readouterr().err


def test_a_table_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"glip": {"miou": 0.8, "ap50": 0.91}, "sam2": {"miou": 0.9}}
    monkeypatch.setattr(evaluate, "evaluate", lambda seed, scenes: table)
    main([])
    rows = [re.split(r"\s\s+", line) for line in capsys.readouterr().out.splitlines()]
    assert rows == [["glip", "miou 0.800", "ap50 0.910"], ["sam2", "miou 0.900"]]
