import numpy as np
from PIL import Image

from grounding.compare import COMPARED, HEADERS, compare
from grounding.core import Regions
from grounding.grounders import GROUNDERS
from grounding.prompt import Query
from grounding.select import Proposals, pack_masks

PICTURE = Image.new("RGB", (10, 10))


ERRORS = {"CLIPSeg": ValueError("The weights are not here."), "GLIP-T": MemoryError()}


def _propose(grounder: str, threshold: float) -> Proposals:
    assert threshold == GROUNDERS[grounder].threshold
    if grounder in ERRORS:
        raise ERRORS[grounder]
    regions = Regions(np.ones((1, 4), np.float32), np.full(1, 0.9, np.float32), ("a dog",))
    bits, sure = pack_masks(np.ones((1, 10, 10), bool)), np.ones(1, np.float32)
    seconds = {"grounder": 0.25, "segmenter": 0.5}
    return Proposals(Query(["a dog"]), regions, bits, sure, (10, 10), 0.05, {"a dog": 0.9}, seconds)


def test_every_grounder_answers_or_says_why_not() -> None:
    answers = list(compare(PICTURE, _propose))
    rows = {answer.row[0]: answer.row for answer in answers}
    assert tuple(rows) == COMPARED and all(len(row) == len(HEADERS) for row in rows.values())
    assert rows["GroundingDINO tiny"] == ["GroundingDINO tiny", 1, 0.9, 0.3, 0.25, 0.5]
    assert [len(answer.detections) for answer in answers] == [1, 0, 0]
    assert "more memory than" in answers[2].caption
    assert answers[0].detections[0]["rle"]["size"] == [10, 10]
    assert "not here" in answers[1].caption and "not here" in rows["CLIPSeg"][1]
    assert answers[0].picture.tobytes() != PICTURE.tobytes() == answers[1].picture.tobytes()
