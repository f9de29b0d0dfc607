"""Which square of a picture the model sees."""

from dataclasses import asdict, dataclass

from PIL import Image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Crop:
    """Hold the place and the size of a square in a picture of any size.

    Attributes:
        across: Share in [0, 1] of the room beside the square that lies at its left.
        down: Share in [0, 1] of the room above and below the square that lies above it.
        size: Side of the square as a share of the picture's shorter side, in (0, 1].
    """

    across: float = 0.5
    down: float = 0.5
    size: float = 1.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not 0 <= value <= 1 or (name == "size" and value == 0):
                allowed = "above 0 and at most 1" if name == "size" else "from 0 to 1"
                raise ValueError(f"{name} is {value}; it must be {allowed}")

    def side(self, size: tuple[int, int]) -> int:
        """Return the side of the square in a picture of `size` (width, height), in pixels."""
        return max(1, round(self.size * min(size)))

    def box(self, size: tuple[int, int]) -> Box:
        """Return the square in a picture of `size` (width, height).

        >>> Crop().box((640, 480))
        (80, 0, 560, 480)
        """
        side = self.side(size)
        shares = zip(size, (self.across, self.down), strict=True)
        # A bit more, or a share that stands for a whole pixel may give the one before it.
        left, top = (int((length - side) * share + 1e-6) for length, share in shares)
        return left, top, left + side, top + side


def cut(image: Image.Image, box: Box, side: int) -> Image.Image:
    """Return the square `box` of a picture as a model sees it: RGB, `side` pixels wide.

    Training and the page look at pictures alike.
    """
    # Pillow's bicubic filter widens when it shrinks, that is, it does not alias. (Its own `box`
    # argument would let pixels beside the square in.)
    return image.crop(box).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)


def crop_around(point: tuple[float, float], crop: Crop, size: tuple[int, int]) -> Crop:
    """Return `crop` moved until its middle is at a point, or as near as the edges allow.

    Args:
        point: x and y in pixels.
        crop: The square to move; its size stays.
        size: Width and height of the picture.

    >>> crop_around((600, 0), Crop(), (640, 480))
    Crop(across=1.0, down=0.5, size=1.0)
    """
    side = crop.side(size)
    rooms = [length - side for length in size]
    shares = [
        min(1.0, max(0.0, (place - side / 2) / room)) if room else 0.5
        for place, room in zip(point, rooms, strict=True)
    ]
    return Crop(*shares, crop.size)
