import pytest

from vit.plan import describe_plan


@pytest.mark.parametrize(
    ("epochs", "pictures", "batch_size", "advised", "left"),
    [
        (149, 17, 17, True, None),
        (150, 17, 17, False, None),  # many steps
        (10, 16, 16, False, None),  # no large batch
        (100, 50_000, 128, False, "80 of 50,000 pictures"),
        (3, 33, 17, True, "16 of 33 pictures"),
    ],
)
def test_few_steps_and_pictures_left_over_are_said(
    epochs: int, pictures: int, batch_size: int, advised: bool, left: str | None
) -> None:
    said = describe_plan(epochs, pictures, batch_size)
    steps = pictures // batch_size
    assert said.startswith(f"Epochs: {epochs}, steps in each: {steps}, pictures in each step: ")
    assert ("--batch-size 16 makes more of them" in said) == advised
    assert (f"{left} fill no step" in said) if left else "fill no step" not in said
