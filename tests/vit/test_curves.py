import pytest
import torch
from torch import Tensor

from vit.curves import CONTROLS, ORDERS, Curves, area, blur, masks, measure, verdict

GRID, SIDE = 4, 8
HEAT = torch.arange(16.0).view(GRID, GRID) / 15  # the last patch is the most important


def sees_the_last_patches(x: Tensor) -> Tensor:
    """Answer class 1 the more, the more of the last row of patches is there (its pixels are 1)."""
    share = x[:, :, -2:].mean(dim=(1, 2, 3))
    return torch.stack((1 - share, share), dim=1)


def striped() -> Tensor:
    x = torch.zeros(1, 3, SIDE, SIDE)
    x[..., -2:, :] = 1
    return x


def _heat(order: list[int]) -> Tensor:
    """Return a map that calls the patches important in an order."""
    heat = torch.empty(16)
    heat[order] = torch.arange(16, 0, -1).float() / 16
    return heat.view(GRID, GRID)


def test_curves_equal_a_slow_reference() -> None:
    curves = measure(striped(), HEAT, sees_the_last_patches, 1)
    generator = torch.Generator().manual_seed(0)
    places = torch.randperm(9, generator=generator)[:CONTROLS].tolist()  # 1 to 3 in each direction
    moved = [torch.roll(torch.roll(HEAT, 1 + p // 3, 0), 1 + p % 3, 1) for p in places]
    generator.manual_seed(0)
    orders = [torch.randperm(16, generator=generator).tolist() for _ in range(CONTROLS)]
    for row, heats in ((1, moved), (2, map(_heat, orders))):
        apart = [measure(striped(), heat, sees_the_last_patches, 1) for heat in heats]
        for name in ("deletion", "insertion"):
            mean = torch.stack([getattr(one, name)[0] for one in apart]).mean(0)
            torch.testing.assert_close(getattr(curves, name)[row], mean)
    for row, order in ((0, list(range(16))[::-1]), (3, list(range(16)))):
        for step, share in enumerate(curves.shares.tolist()):
            deleted, inserted = striped(), blur(striped())
            for patch in order[: round(16 * share)]:
                top, left = 2 * (patch // 4), 2 * (patch % 4)
                area_ = (..., slice(top, top + 2), slice(left, left + 2))
                deleted[area_], inserted[area_] = 0, striped()[area_]
            for got, picture in ((curves.deletion, deleted), (curves.insertion, inserted)):
                expected = sees_the_last_patches(picture)[0, 1]
                torch.testing.assert_close(got[row, step], expected)


def test_ends_do_not_depend_on_the_order() -> None:
    curves = measure(striped(), HEAT, sees_the_last_patches, 1)
    assert curves.shares.tolist() == [round(16 * step / 10) / 16 for step in range(11)]
    assert curves.deletion[:, 0].tolist() == curves.insertion[:, -1].tolist() == [1] * 4
    assert curves.deletion[:, -1].tolist() == [0] * 4


@pytest.mark.parametrize(
    ("grid", "pictures"),
    [
        (1, 2),  # a single patch: all or nothing
        (2, 5),  # fewer patches than steps
        (5, 11),  # 25 patches in 10 steps
    ],
)
def test_masks_grow_from_nothing_to_all(grid: int, pictures: int) -> None:
    order = torch.randperm(grid**2, generator=torch.Generator().manual_seed(1))
    got = masks(order, grid, 2 * grid)
    assert got.shape == (pictures, 1, 2 * grid, 2 * grid)
    assert not got[0].any() and got[-1].all()
    assert (got[:-1] <= got[1:]).all()
    top, left = divmod(int(order[0]), grid)
    assert got[1, 0, 2 * top, 2 * left]


def test_blur_keeps_a_plain_picture_and_the_shape() -> None:
    plain = torch.full((2, 3, SIDE, SIDE), 0.5)
    torch.testing.assert_close(blur(plain), plain)
    dot = torch.zeros(1, 1, SIDE, SIDE)
    dot[..., 3, 3] = 25
    expected = torch.zeros(1, 1, SIDE, SIDE)
    expected[..., 1:6, 1:6] = 1
    torch.testing.assert_close(blur(dot), expected)


def test_area_of_steps_that_are_not_even() -> None:
    assert float(area(torch.tensor([0.0, 0.2, 1.0]), torch.tensor([1.0, 0.0, 0.5]))) == (
        pytest.approx(0.1 + 0.2)
    )


@pytest.mark.parametrize(
    ("heat", "words"),
    [
        (HEAT, "better than chance both ways: it finds what matters for cat"),
        (1 - HEAT, "no better than chance: it does not show what matters for cat"),
    ],
)
def test_verdict_of_a_good_and_a_bad_map(heat: Tensor, words: str) -> None:
    assert words in verdict(measure(striped(), heat, sees_the_last_patches, 1), "cat")


@pytest.mark.parametrize(
    ("deletion", "insertion", "words"),
    [
        (0.2, 0.8, "better than chance both ways"),
        (0.2, 0.6, "better than chance one way only"),
        (0.4, 0.8, "better than chance one way only"),
        (0.3, 0.7, "no better than chance"),  # as good as the best other order
        (0.297, 0.703, "no better than chance"),  # by less than the table shows
        (0.35, 0.65, "no better than chance"),  # better than their mean, which says little
    ],
)
def test_a_map_has_to_be_better_than_each_other_order(
    deletion: float, insertion: float, words: str
) -> None:
    shares, other = torch.tensor([0.0, 1.0]), torch.full((3, 2), 0.5)
    curves = Curves(
        shares,
        deletion=torch.cat((torch.full((1, 2), deletion), other)),
        insertion=torch.cat((torch.full((1, 2), insertion), other)),
        chance=torch.tensor([[0.3, 0.4, 0.5], [0.5, 0.6, 0.7]]),
    )
    assert len(curves.deletion) == len(ORDERS)
    assert words in verdict(curves, "cat")


def test_areas_of_the_other_orders() -> None:
    curves = measure(striped(), HEAT, sees_the_last_patches, 1)
    assert curves.chance.shape == (2, 2 * CONTROLS)
    both = torch.stack((curves.deletion, curves.insertion))[:, 1:3]
    means = curves.chance.view(2, 2, CONTROLS).mean(dim=2)
    torch.testing.assert_close(means, area(curves.shares, both))


@pytest.mark.parametrize(("grid", "places"), [(2, 1), (3, 4), (8, 4)])
def test_of_few_patches_there_are_few_other_places(grid: int, places: int) -> None:
    heat = torch.rand(grid, grid, generator=torch.Generator().manual_seed(2))
    chance = measure(torch.rand(1, 3, 24, 24), heat, lambda x: x.mean((1, 2, 3))[:, None], 0).chance
    assert chance.shape == (2, places + CONTROLS)


def test_a_smooth_map_is_praised_only_in_the_right_place() -> None:
    """Against scattered patches alone, most smooth maps would win."""
    place = torch.arange(8.0)
    middle = -((place[:, None] - 3.5) ** 2 + (place - 3.5) ** 2)
    weights = (middle > -6).float().repeat_interleave(4, 0).repeat_interleave(4, 1)

    def classify(pictures: Tensor) -> Tensor:
        return (weights * pictures).mean(dim=(1, 2, 3))[:, None]

    x = weights.expand(1, 3, -1, -1)
    words = [verdict(measure(x, heat, classify, 0), "it") for heat in (middle, middle.roll(3, 1))]
    assert "both ways" in words[0] and "no better than chance" in words[1]


def test_maps_without_meaning_are_seldom_praised() -> None:
    generator = torch.Generator().manual_seed(3)
    weights, x = (torch.rand(1, 3, 16, 16, generator=generator) for _ in range(2))

    def classify(pictures: Tensor) -> Tensor:
        return (weights * pictures).mean(dim=(1, 2, 3))[:, None]

    heats = torch.rand(200, 8, 8, generator=generator)
    praised = sum("both ways" in verdict(measure(x, h, classify, 0), "it") for h in heats)
    assert praised <= 0.1 * len(heats)
