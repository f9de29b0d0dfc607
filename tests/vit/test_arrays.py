import json
from pathlib import Path

import numpy as np
from PIL import Image

from vit.arrays import save_arrays
from vit.crop import Crop
from vit.predictor import Predictor
from vit.view import CHEFER, Look, Settings, heat_map


def test_the_file_holds_what_is_shown(tmp_path: Path, tiny_checkpoint: Path) -> None:
    predictor = Predictor(tiny_checkpoint)
    picture = Image.effect_noise((20, 8), 90).convert("RGB")
    look = Look(predictor, predictor.predict(picture, Crop(across=1)), picture)
    shown = [Settings(), Settings(CHEFER, "green", first=2)]
    with np.load(save_arrays(look, shown, tmp_path)) as arrays:
        assert arrays["attentions"].shape == (2, 2, 17, 17)
        np.testing.assert_allclose(arrays["attentions"].sum(-1), 1, rtol=1e-5)
        for saved, settings in zip(arrays["maps"], shown, strict=True):
            assert np.array_equal(saved, heat_map(look, settings).numpy())
        answer = dict(zip(arrays["classes"], arrays["probabilities"].tolist(), strict=True))
        assert list(answer) == ["red", "green", "blue"]
        assert np.isclose(sum(answer.values()), 1)
        assert arrays["box"].tolist() == [12, 0, 20, 8]
        assert np.array_equal(arrays["seen"], np.asarray(picture)[:, 12:])
        settings = json.loads(str(arrays["settings"]))
        assert [row["method"] for row in settings] == [s.method for s in shown]
        assert settings[1]["first"] == 2
