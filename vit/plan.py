"""What a training run says of itself before and after: how much it does, and where it stopped."""

from collections.abc import Sequence

from vit.report import Row

# On 240 drawn pictures, 12 steps of 128 pictures taught 83 %, and 180 or 600 steps of 16 92 %.
FEW_STEPS, SMALL_BATCH = 150, 16


def describe_plan(epochs: int, pictures: int, batch_size: int) -> str:
    """Say how many steps there will be, which pictures they leave out, and if they are few.

    >>> print(describe_plan(epochs=2, pictures=240, batch_size=128))
    Epochs: 2, steps in each: 1, pictures in each step: 128
    112 of 240 pictures fill no step and sit out the epoch, each time others
    Few steps teach little; --batch-size 16 makes more of them
    """
    steps, left = divmod(pictures, batch_size)
    lines = [f"Epochs: {epochs}, steps in each: {steps}, pictures in each step: {batch_size}"]
    if left:
        lines.append(
            f"{left} of {pictures:,} pictures fill no step and sit out the epoch, each time others"
        )
    if epochs * steps < FEW_STEPS and batch_size > SMALL_BATCH:
        lines.append(f"Few steps teach little; --batch-size {SMALL_BATCH} makes more of them")
    return "\n".join(lines)


def describe_stop(step: int, steps: int, history: Sequence[Row]) -> str:
    """Say where a run was stopped, and which weights there are.

    Args:
        step: How many it has taken.
        steps: Of how many.
        history: A row for each epoch.
    """
    tested = [row["epoch"] for row in history if "test_accuracy" in row]
    weights = f"those of epoch {tested[-1]}" if tested else "none yet"
    return f"Stopped at step {step} of {steps}. Weights in model.safetensors: {weights}."
