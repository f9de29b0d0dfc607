"""Opening a photo of 12 megapixels, from its bytes to the picture that everything works on.

    python benchmarks/photo.py [--rounds 15] [--threads 2]

Plain is Pillow's usual way to the same size: open, to RGB, shrink with its sharpest filter.
"""

import io

from PIL import Image
from real_size import medians, read_rounds

from common.images import MAX_SIDE, decode_image

SIZE = (4000, 3000)


def make_photo() -> bytes:
    """Return a JPEG of soft noise, about as many bytes a pixel as a photo has."""
    small = Image.merge("RGB", [Image.effect_noise((1000, 750), 60) for _ in range(3)])
    file = io.BytesIO()
    small.resize(SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def open_plain(data: bytes) -> Image.Image:
    """Return the picture as Pillow's documentation shows it."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return image


def main() -> None:
    """Measure both, in turns, and print medians and their ratio."""
    rounds, data = read_rounds(__doc__, 15), make_photo()
    sides = {"plain": lambda _: open_plain(data), "ours": lambda _: decode_image(data)}
    taken = medians(sides, rounds)
    print(f"a photo of {SIZE[0]} x {SIZE[1]}, {len(data) / 2**20:.1f} MiB, {rounds} rounds:")
    print(f"plain {1000 * taken['plain']:.0f} ms, ours {1000 * taken['ours']:.0f} ms, "
          f"ratio {taken['plain'] / taken['ours']:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
