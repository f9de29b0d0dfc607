import pytest
import torch
from torch import Tensor, nn

from vit.checkpoint import Preprocessing
from vit.data import ImageSet
from vit.evaluation import accuracy, confusion_matrix, predict
from vit.model import ViT


def test_the_confusion_matrix_counts_the_answers(tiny_model: ViT, tiny_set: ImageSet) -> None:
    answers = predict(tiny_model, tiny_set.test, Preprocessing())
    assert (answers.dtype, answers.shape) == (torch.int64, (9,))
    expected = [[0] * 3 for _ in range(3)]
    for truth, answer in zip(tiny_set.test.labels.tolist(), answers.tolist(), strict=True):
        expected[truth][answer] += 1
    confusion = confusion_matrix(tiny_model, tiny_set.test, Preprocessing())
    assert confusion.tolist() == expected
    right = (answers == tiny_set.test.labels).sum() / 9
    assert accuracy(confusion) == pytest.approx(float(right))


def test_predict_leaves_the_mode_as_it_was(tiny_model: ViT, tiny_set: ImageSet) -> None:
    for mode in (True, False):
        tiny_model.train(mode)
        predict(tiny_model, tiny_set.test, Preprocessing())
        assert tiny_model.training is mode


def test_dropout_is_off_while_answers_are_counted(tiny_set: ImageSet) -> None:
    class Mode(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.eye(3)[[0 if self.training else 2] * len(images)]

    assert predict(Mode().train(), tiny_set.test, Preprocessing()).tolist() == [2] * 9
