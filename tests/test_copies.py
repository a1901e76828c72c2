"""Near copies: found whatever was done to a picture, and nothing else accused.

The built-in insects stand for photographs: textures, edges, noise, each picture another scene.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageOps

from src.data import copies
from src.data.anatomy import ANATOMY, paint_insect
from src.data.copies import near_pairs
from src.data.insects import draw
from src.data.looks import SIDE, look_at
from src.data.matching import MIRRORED, View, alike, standing_out
from src.data.scenery import background
from src.data.ties import Ties, groups_of

SIZE, NUMBER = 128, 16

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    numbers = range(1, NUMBER // 2 + 1)
    return [
        Image.fromarray(draw(5, "train", name, number, SIZE)[0])
        for name in ("bee", "wasp")
        for number in numbers
    ]


def thumbs_of(pictures: Sequence[Image.Image]) -> np.ndarray:
    return np.concatenate([look_at(picture.convert("RGB"))["thumb"] for picture in pictures])


def groups_in(pictures: Sequence[Image.Image]) -> list[list[int]]:
    return groups_of(near_pairs(thumbs_of(pictures)).tolist())


def encoded(picture: Image.Image, quality: int = 60) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def crop(picture: Image.Image, rng: np.random.Generator, share: float = 0.9) -> Image.Image:
    side = round(picture.width * share)
    x, y = rng.integers(0, picture.width - side + 1, 2)
    return picture.crop((x, y, x + side, y + side))


def resized(picture: Image.Image, width: float, height: float) -> Image.Image:
    return picture.resize((round(picture.width * width), round(picture.height * height)))


CHANGES: dict[str, Change] = {
    "encoded anew": lambda picture, rng: encoded(picture),
    "half": lambda picture, rng: resized(picture, 0.5, 0.5),
    "another aspect": lambda picture, rng: resized(picture, 1.3, 0.8),
    "mirrored": lambda picture, rng: ImageOps.mirror(picture),
    "grey": lambda picture, rng: picture.convert("L"),
    "brighter": lambda picture, rng: picture.point(lambda value: 0.8 * value + 45),
    "crop of 90 %": crop,
    "crop of 95 %": lambda picture, rng: crop(picture, rng, 0.95),
    "small, encoded crop": lambda picture, rng: encoded(resized(crop(picture, rng), 0.6, 0.6)),
}


class TestFound:
    @pytest.mark.parametrize("name", CHANGES)
    def test_each_copy_with_its_original_and_with_nothing_else(
        self, name: str, photographs: list[Image.Image]
    ) -> None:
        rng = np.random.default_rng(3)
        changed = [CHANGES[name](picture, rng) for picture in photographs]
        assert groups_in([*photographs, *changed]) == [[i, i + NUMBER] for i in range(NUMBER)]

    def test_whatever_the_order(self, photographs: list[Image.Image]) -> None:
        rng = np.random.default_rng(4)
        pictures = [*photographs, *(crop(picture, rng, 0.95) for picture in photographs[:5])]
        order = rng.permutation(len(pictures)).tolist()
        found = groups_in([pictures[i] for i in order])
        renamed = sorted(sorted(order[i] for i in group) for group in found)
        assert renamed == groups_in(pictures) == [[i, i + NUMBER] for i in range(5)]

    def test_all_of_many_copies_of_one_picture(self, photographs: list[Image.Image]) -> None:
        """The three nearest of a copy are copies too: they must not hide the others."""
        rng = np.random.default_rng(5)
        original = thumbs_of(photographs[:1]).astype(np.float32)
        noise = rng.normal(0, 3, (300, SIDE, SIDE))
        many = (original + noise).clip(0, 255).astype(np.uint8)
        pairs = near_pairs(np.concatenate([many, thumbs_of(photographs[1:])]))
        assert groups_of(pairs.tolist()) == [list(range(300))]
        assert len(pairs) == 299  # what ties them, and not each with each

    def test_families_of_copies(
        self, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Five that hardly differ hide the other families of the same picture."""
        monkeypatch.setattr(copies.Search, "gather_crops", lambda *_: None)  # would tie them too
        monkeypatch.setattr(copies.Search, "tie_crops", lambda *_: None)
        rng = np.random.default_rng(8)
        original = thumbs_of(photographs[:1]).astype(np.float32)
        of_family = rng.normal(0, 3, (30, 1, SIDE, SIDE))
        of_member = rng.normal(0, 0.5, (30, 5, SIDE, SIDE))
        many = (original + of_family + of_member).reshape(150, SIDE, SIDE)
        pairs = near_pairs(many.clip(0, 255).astype(np.uint8))
        assert groups_of(pairs.tolist()) == [list(range(150))]

    def test_a_mirrored_pair_in_both_orders(self, photographs: list[Image.Image]) -> None:
        one, other = thumbs_of([photographs[0], ImageOps.mirror(photographs[0])])[:, None]
        assert alike(one, other, mirrored=True) and alike(other, one, mirrored=True)
        assert not alike(one, other)

    def test_positions_count_pictures_that_are_left_out_too(
        self, photographs: list[Image.Image]
    ) -> None:
        white = Image.new("RGB", (40, 30), "white")
        pictures = [white, photographs[0], white, encoded(photographs[0])]
        assert groups_in(pictures) == [[1, 3]]


class TestNotAccused:
    def test_different_photographs(self, photographs: list[Image.Image]) -> None:
        assert groups_in(photographs) == []

    def test_bursts(self) -> None:
        """The same background without a camera's shake: as near as two photographs come."""
        pictures = [picture for scene in range(8) for picture in burst(scene)]
        assert groups_in(pictures) == []

    @pytest.mark.parametrize(("side", "most"), [(24, 2), (36, 0), (48, 0), (72, 0), (96, 0)])
    def test_insects_before_a_fixed_camera(self, side: int, most: int) -> None:
        """One background, to the pixel, with 20 different insects and with none.

        One of 24 pixels in 480 is 3 x 4 pixels of a thumbnail, and may vanish between leaves.
        """
        behind = background(np.random.default_rng(2), 480).transpose(1, 2, 0)[60:420] * 255
        empty = Image.fromarray(behind.astype(np.uint8))
        pictures = [before_camera(behind, shot, side) for shot in range(20)]
        assert sum(map(len, groups_in([empty, *pictures]))) <= most

    def test_the_brightness_is_matched_before_a_spot_can_stand_out(self) -> None:
        """A gamma curve bends the brightness everywhere, unlike a spot of 3 x 3 pixels."""
        rng = np.random.default_rng(1)
        one = np.asarray(background(rng, SIDE)[:1] * 255, np.float32)
        curved = (255 * (one / 255) ** 0.7).round()
        spotted = curved.copy()
        spotted[0, 30:33, 30:33] += 60
        assert standing_out(one, curved) < 15
        assert standing_out(one, spotted) > 200

    def test_what_shares_its_blurred_parts_or_its_details_alone(self) -> None:
        rng = np.random.default_rng(9)
        ramp = np.broadcast_to(np.linspace(-75, 75, SIDE), (1, SIDE, SIDE))
        tilted = 0.8 * ramp + 0.6 * ramp.transpose(0, 2, 1)  # correlates with it by 0.8
        one, other = rng.normal(0, 8, (2, 1, SIDE, SIDE))
        first, details, ground, both = (
            (part + 125).clip(0, 255).astype(np.uint8)
            for part in (ramp + one, tilted + one, ramp + other, ramp + one + 30)
        )
        assert not alike(first, ground)
        assert not alike(first, details)
        assert alike(first, both)

    def test_blank_pages_under_one_lamp(self) -> None:
        """Hardly a grey level of difference: nothing that tells pages apart, and all correlate."""
        lamp = np.broadcast_to(np.linspace(0, 5, SIDE), (SIDE, SIDE))
        pages = np.stack([lamp + level for level in range(200, 240, 8)]).astype(np.uint8)
        assert near_pairs(pages).tolist() == []

    def test_flat_pictures(self) -> None:
        greys = [Image.new("RGB", (50, 50), (level,) * 3) for level in (0, 1, 128, 254, 255)]
        rng = np.random.default_rng(6)
        noise = rng.normal(200, 1.5, (5, SIDE, SIDE)).astype(np.uint8)  # of a scanner on paper
        assert near_pairs(np.concatenate([thumbs_of(greys), noise])).tolist() == []

    def test_noise(self) -> None:
        rng = np.random.default_rng(7)
        assert near_pairs(rng.integers(0, 256, (40, SIDE, SIDE), np.uint8)).tolist() == []

    def test_drawings_on_white(self) -> None:
        assert groups_in([drawing(seed) for seed in range(40)]) == []

    @pytest.mark.parametrize("size", [28, 96])
    def test_drawn_digits(self, size: int) -> None:
        """The same digit in the same hand, moved, turned and scaled, is no copy."""
        accused = sum(map(len, groups_in([digit(seed, size) for seed in range(60)])))
        assert accused == 0

    @pytest.mark.parametrize("number", [0, 1])
    def test_nothing_to_compare(self, number: int, photographs: list[Image.Image]) -> None:
        thumbs = thumbs_of(photographs)[:number]
        assert near_pairs(thumbs).shape == (0, 2)


def burst(scene: int) -> list[Image.Image]:
    """Return two pictures of a scene in which the insect has moved, each with its own noise."""
    behind, found = background(np.random.default_rng(scene), SIZE), []
    for shot in range(2):
        rng = np.random.default_rng([scene, shot])
        layer = paint_insect(rng, ANATOMY["bee"], SIZE)
        scaled = (behind * (1 - layer.cover) + layer.colour).transpose(1, 2, 0) * 255
        pixels = scaled + rng.normal(0, 4, scaled.shape)
        found.append(Image.fromarray(pixels.clip(0, 255).astype(np.uint8)))
    return found


def before_camera(behind: np.ndarray, shot: int, side: int) -> Image.Image:
    """Return a background [H, W, 3] with noise, and an insect of this side at some place."""
    rng = np.random.default_rng([shot, side])
    layer = paint_insect(rng, ANATOMY["bee" if shot % 2 else "wasp"], side)
    y, x = (int(rng.integers(0, free - side)) for free in behind.shape[:2])
    pixels = behind + rng.normal(0, 4, behind.shape)
    there = pixels[y : y + side, x : x + side].transpose(2, 0, 1)
    there[:] = there * (1 - layer.cover) + layer.colour * 255
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def drawing(seed: int) -> Image.Image:
    """Return a few black strokes on white, as pupils draw houses."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (96, 96), "white")
    pen = ImageDraw.Draw(picture)
    for _ in range(5):
        pen.line(rng.integers(8, 88, 6).tolist(), "black", width=3)
    return picture


def digit(seed: int, size: int) -> Image.Image:
    """Return a white digit on black."""
    rng = np.random.default_rng(seed)
    side = 4 * size
    picture = Image.new("L", (side, side))
    place = side / 2 + rng.normal(0, 0.03 * side, 2)
    font = ImageFont.load_default(size=side * rng.uniform(0.75, 0.95))
    pen = ImageDraw.Draw(picture)
    pen.text(tuple(place), str(seed % 10), 255, font, "mm", stroke_width=int(rng.integers(0, 7)))
    turned = picture.rotate(rng.normal(0, 9), Image.Resampling.BILINEAR)
    return turned.resize((size, size), Image.Resampling.BOX)


class TestSearch:
    def test_views_of_a_picture_lie_in_it(self) -> None:
        crops = copies._crops()
        assert len(crops) == len(set(crops)) == 34
        for view in crops:
            assert min(view.x, view.y) >= 0
            assert max(view.x, view.y) + view.side <= 1 + 1e-9

    def test_the_direction_of_a_view_is_that_of_its_pixels(
        self, photographs: list[Image.Image]
    ) -> None:
        view = View(0.75, 0.25, 0.125)
        thumbs = thumbs_of(photographs)
        parts = thumbs[:, 8:56, 16:64]  # 0.125 and 0.25 of 64, three quarters long
        wide = np.stack([np.asarray(Image.fromarray(p).resize((64, 64), 2)) for p in parts])
        expected = copies._directions(copies._coarse(wide), View())
        found = copies._directions(copies._coarse(thumbs), view)
        assert np.linalg.norm(found - expected, axis=1).max() < 0.02
        assert np.linalg.norm(expected, axis=1) == pytest.approx(1)

    def test_a_mirrored_view_is_the_direction_of_the_mirror_image(
        self, photographs: list[Image.Image]
    ) -> None:
        coarse = copies._coarse(thumbs_of(photographs))
        expected = copies._directions(np.ascontiguousarray(coarse[:, :, ::-1]), View())
        assert copies._directions(coarse, MIRRORED) == pytest.approx(expected, abs=1e-5)

    def test_crops_that_others_have_tied_meanwhile_are_not_sought(
        self, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where 0 shows 1, and 0 shows 2, nobody asks whether 1 shows 2."""
        thumbs = thumbs_of(photographs[:3])
        search = copies.Search(thumbs, np.arange(3), copies._coarse(thumbs))
        pairs = np.array([(1, 2), (0, 2), (0, 1)])
        search._crops = [(pairs, np.ones(3, np.float32), View(0.9))]
        sought: list[int] = []

        def agree(ones: np.ndarray, *_: object) -> np.ndarray:
            sought.append(len(ones))
            return np.ones(len(ones), bool)

        monkeypatch.setattr(copies, "crops_alike", agree)
        monkeypatch.setattr(copies, "_BLOCK", 1)
        search.tie_crops()
        assert (sought, search.found) == ([1, 1], [(0, 1), (0, 2)])

    def test_blocks_change_nothing(
        self, photographs: list[Image.Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        thumbs = thumbs_of([*photographs, *map(encoded, photographs)])
        whole = near_pairs(thumbs)
        monkeypatch.setattr(copies, "_BLOCK", 7)
        assert near_pairs(thumbs).tolist() == whole.tolist()

    def test_coarse_is_the_mean_of_four_pixels(self) -> None:
        thumb = np.zeros((1, SIDE, SIDE), np.uint8)
        thumb[0, :2, :2] = [[255, 255], [255, 254]]  # 254.75
        thumb[0, 2:4, 0] = 1, 0  # 0.25
        assert copies._coarse(thumb)[0, :2, 0].tolist() == [255, 0]


class TestTies:
    def test_groups(self) -> None:
        assert groups_of([(7, 3), (1, 2), (3, 9), (5, 4), (2, 9)]) == [[1, 2, 3, 7, 9], [4, 5]]
        assert groups_of([]) == groups_of([(2, 2)]) == []

    def test_tied(self) -> None:
        ties = Ties()
        ties.tie(1, 2)
        ties.tie(2, 3)
        assert ties.tied(1, 3) and ties.tied(4, 4) and not ties.tied(1, 4)
        assert ties.groups() == [[1, 2, 3]]  # asking ties nothing
        assert ties.numbers(5).tolist() == [0, 1, 1, 1, 4]
