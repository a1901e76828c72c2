"""Augmentation: a pure function of (seed, epoch, index, showing), and clear errors for recipes."""

import hashlib
import pickle
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.data.transforms import Augmentation, Pixels
from src.errors import UserError


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": f"albumentations.{name}", "init_args": arguments}


FLIPS = [spec("HorizontalFlip", p=0.5), spec("VerticalFlip", p=0.5)]
# Transforms that draw from Python's generator, from numpy's, and from both, in groups of groups.
RICH = [
    spec("Affine", rotate=(-40, 40), p=0.8),
    spec("GaussNoise", p=0.5),
    spec(
        "OneOf",
        p=0.9,
        transforms=[
            spec("ColorJitter", p=1),
            spec("SomeOf", n=1, transforms=[*FLIPS, spec("CoarseDropout", p=1)]),
            spec("Sequential", p=0.7, transforms=[spec("Transpose", p=0.5), spec("GaussNoise")]),
        ],
    ),
]
# Transforms that only move, drop or swap bytes: their results are the same on every machine.
EXACT = [
    *FLIPS,
    spec("Transpose", p=0.5),
    spec("RandomCrop", height=9, width=9),
    spec("PixelDropout", dropout_prob=0.3, p=0.8),
    spec("OneOf", p=0.7, transforms=[spec("ChannelShuffle", p=1), spec("RandomRotate90", p=1)]),
]
NOISE: Pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3)).astype(np.uint8)
CORNERS: Pixels = np.arange(4, dtype=np.uint8).repeat(3).reshape(2, 2, 3)  # [[0, 1], [2, 3]]


def corners(image: Pixels) -> tuple[int, ...]:
    """Return which corners lie where, from the top left."""
    return tuple(image[..., 0].ravel().tolist())


AS_IT_WAS, LEFT_RIGHT, TOP_BOTTOM, BOTH = (0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)
keys = st.tuples(st.integers(0, 300), st.integers(0, 100_000), st.integers(0, 50))


class TestPure:
    @given(st.lists(keys, min_size=2, max_size=6, unique=True), st.randoms())
    @settings(deadline=None, max_examples=30)
    def test_order_does_not_matter(self, order: list[Any], shuffled: random.Random) -> None:
        augmentation = Augmentation(RICH, seed=3)
        first = {key: augmentation(NOISE, *key).tobytes() for key in order}
        shuffled.shuffle(order)
        assert {key: augmentation(NOISE, *key).tobytes() for key in order} == first

    @pytest.mark.parametrize("index", range(20))
    def test_other_draws_in_between_change_nothing(self, index: int) -> None:
        augmentation = Augmentation(RICH, seed=3)
        alone = augmentation(NOISE, 5, index)
        for other in (0, 1, 17):  # each leaves the generators in another state
            augmentation(NOISE, other, other)
        assert np.array_equal(augmentation(NOISE, 5, index), alone)

    def test_a_pickled_copy_gives_the_same_and_holds_plain_data_alone(self) -> None:
        augmentation = Augmentation(RICH, seed=3)
        augmentation(NOISE, 1, 1)
        stored = pickle.dumps(augmentation)
        assert len(stored) < 1500
        copy = pickle.loads(stored)  # noqa: S301 - our own bytes
        for index in range(20):
            assert np.array_equal(copy(NOISE, 2, index), augmentation(NOISE, 2, index))

    @pytest.mark.parametrize(
        "transform",
        [spec("Affine", rotate=(-180, 180), p=1), spec("PixelDropout", dropout_prob=0.5, p=1)],
        ids=["Python's generator", "numpy's"],
    )
    def test_epochs_indices_and_seeds_differ(self, transform: dict[str, Any]) -> None:
        images = {
            Augmentation([transform], seed)(NOISE, epoch, index).tobytes()
            for seed in (0, 1, 2**32 - 1)
            for epoch in range(5)
            for index in range(5)
        }
        assert len(images) == 3 * 5 * 5

    @pytest.mark.parametrize(
        "transform",
        [spec("Affine", rotate=(-180, 180), p=1), spec("PixelDropout", dropout_prob=0.5, p=1)],
        ids=["Python's generator", "numpy's"],
    )
    def test_showings_of_a_sample_in_one_epoch_differ(self, transform: dict[str, Any]) -> None:
        augmentation = Augmentation([transform], seed=0)
        images = [augmentation(NOISE, 3, 4, showing).tobytes() for showing in range(50)]
        assert len(set(images)) == 50
        # nor is a showing another sample or epoch
        images += [augmentation(NOISE, 3, index).tobytes() for index in range(50) if index != 4]
        images += [augmentation(NOISE, epoch, 4).tobytes() for epoch in range(50) if epoch != 3]
        assert len(set(images)) == 148

    @pytest.mark.parametrize(
        ("seed", "digest"),
        [(0, "ea956749e7a01c44"), (3, "25de43306dd724bf"), (2**32 - 1, "44ee278a587fca8a")],
    )
    def test_bytes_of_the_first_showing_stay_what_they_were(self, seed: int, digest: str) -> None:
        # Taken before showings were part of the key; a change here is a change of every run.
        augmentation = Augmentation(EXACT, seed)
        for showing in [(), (0,)]:
            found = hashlib.sha256()
            for epoch in (0, 1, 5):
                for index in (0, 1, 7, 70_000):
                    found.update(augmentation(NOISE, epoch, index, *showing).tobytes())
            assert found.hexdigest()[:16] == digest

    def test_the_picture_itself_is_left_alone(self) -> None:
        before = NOISE.copy()
        augmentation = Augmentation(RICH, seed=3)
        for index in range(20):
            augmentation(NOISE, 0, index)
        assert np.array_equal(NOISE, before)


class TestDraws:
    """Counts are fixed by the keys; the bounds are 99.9 % quantiles of chi-square."""

    def test_two_flips_give_all_four_outcomes_alike(self) -> None:
        augmentation = Augmentation(FLIPS, seed=0)
        counts = Counter(
            corners(augmentation(CORNERS, epoch, index))
            for epoch in range(20)
            for index in range(100)
        )
        assert set(counts) == {AS_IT_WAS, LEFT_RIGHT, TOP_BOTTOM, BOTH}
        # 2,000 keys, 500 expected of each; 3 degrees of freedom
        assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 16.27

    @pytest.mark.parametrize("step", [(0, 1), (1, 0)], ids=["index", "epoch"])
    def test_neighbours_are_independent(self, step: tuple[int, int]) -> None:
        augmentation = Augmentation(FLIPS, seed=0)
        pairs = Counter(
            (
                corners(augmentation(CORNERS, epoch, index)),
                corners(augmentation(CORNERS, epoch + step[0], index + step[1])),
            )
            for epoch in range(0, 40, 2)
            for index in range(0, 160, 2)
        )
        # 1,600 pairs, 100 expected of each of the 16; 15 degrees of freedom
        assert len(pairs) == 16
        assert sum((count - 100) ** 2 / 100 for count in pairs.values()) < 37.70

    def test_one_of_takes_one_of_them(self) -> None:
        sure = [spec("HorizontalFlip", p=1), spec("VerticalFlip", p=1)]
        augmentation = Augmentation([spec("OneOf", p=1, transforms=sure)], seed=0)
        counts = Counter(corners(augmentation(CORNERS, 0, index)) for index in range(1000))
        assert set(counts) == {LEFT_RIGHT, TOP_BOTTOM}
        # 500 expected of each; 1 degree of freedom
        assert sum((count - 500) ** 2 / 500 for count in counts.values()) < 10.83

    def test_sequential_takes_all_and_some_of_takes_n(self) -> None:
        sure = [spec("HorizontalFlip", p=1), spec("VerticalFlip", p=1)]
        both = Augmentation([spec("Sequential", p=1, transforms=sure)], seed=0)
        two = Augmentation([spec("SomeOf", n=2, p=1, replace=False, transforms=sure)], seed=0)
        nested = Augmentation(
            [spec("OneOf", p=1, transforms=[spec("Sequential", p=1, transforms=sure)])], seed=0
        )
        for index in range(20):
            assert corners(both(CORNERS, 0, index)) == BOTH
            assert corners(two(CORNERS, 0, index)) == BOTH
            assert corners(nested(CORNERS, 0, index)) == BOTH

    def test_transforms_keep_their_order(self) -> None:
        crop, flip = spec("Crop", x_min=0, y_min=0, x_max=1, y_max=2), spec("HorizontalFlip", p=1)
        assert corners(Augmentation([crop, flip], seed=0)(CORNERS, 0, 0)) == (0, 2)
        assert corners(Augmentation([flip, crop], seed=0)(CORNERS, 0, 0)) == (1, 3)


class TestErrors:
    @pytest.mark.parametrize(
        ("wrong", "match"),
        [
            (
                spec("HorizontalFlop"),
                "albumentations has no class 'HorizontalFlop'; did you mean 'HorizontalFlip'",
            ),
            (spec("Xyzzy"), "has no class 'Xyzzy'; see its docs"),
            (spec("__version__"), "has no class '__version__'"),
            (
                {"class_path": "albumentation.Blur"},
                r"no module 'albumentation' \(albumentation\.Blur\)\. Write albumentations\.Blur",
            ),
            (spec("Affine", rotat=3), "Affine has no argument 'rotat'; did you mean 'rotate'"),
            (
                spec("HorizontalFlip", x=3),
                "HorizontalFlip has no argument 'x'; allowed are p$",
            ),
            (spec("Resize", height=3), r"Resize needs width\."),
            (spec("Resize"), r"Resize needs height, width\."),
            (spec("OneOf"), r"OneOf needs transforms\."),
            (spec("HorizontalFlip", p=2), r"albumentations\.HorizontalFlip: .*less than or equal"),
            (spec("Affine", rotate="far"), r"albumentations\.Affine: .*rotate"),
            (spec("Crop", x_min=5, x_max=2), r"albumentations\.Crop: .*x_max"),
            ("HorizontalFlip", r"is a list of \{class_path: .*found 'HorizontalFlip'"),
            ({"class": "albumentations.Blur"}, r"is a list of .*found \{'class'"),
            ({"class_path": 3}, "is a list of .*found"),
            (
                {"class_path": "albumentations.Blur", "args": {}},
                r"Blur has the keys \['args'\]; allowed are class_path and init_args",
            ),
            (
                {"class_path": "pathlib.PurePath", "init_args": {}},
                "pathlib.PurePath is not an Albumentations transform",
            ),
            (
                {"class_path": "albumentations.Blur", "init_args": 3},
                "(?s)Blur.*init_args.*3",
            ),
            (spec("OneOf", transforms=3), "(?s)OneOf.*transforms.*3"),
            (
                spec("OneOf", transforms=[spec("SomeOf", n=1, transforms=[spec("Blurr")])]),
                "has no class 'Blurr'; did you mean 'Blur'",
            ),
        ],
    )
    def test_wrong_recipes(self, wrong: Any, match: str) -> None:
        with pytest.raises(UserError, match=match) as raised:
            Augmentation([spec("HorizontalFlip"), wrong], seed=0)
        assert str(raised.value).startswith("data.augment")
        assert "\n" not in str(raised.value)

    @pytest.mark.parametrize(
        ("name", "found"), [("Normalize", "float32"), ("ToTensorV2", r"torch\.uint8")]
    )
    def test_anything_but_uint8_pixels_is_refused(self, name: str, found: str) -> None:
        augmentation = Augmentation([spec(name)], seed=0)
        with pytest.raises(UserError, match=f"gave {found}. Remove Normalize and ToTensorV2"):
            augmentation(NOISE, 0, 0)
        with pytest.raises(UserError, match=f"gave {found}. Remove Normalize and ToTensorV2"):
            augmentation.check(32, 32)

    def test_a_pipeline_that_does_not_fit_the_pictures(self) -> None:
        augmentation = Augmentation([spec("RandomCrop", height=64, width=64)], seed=0)
        augmentation.check(64, 64)
        match = r"data\.augment fails on a picture of 63 x 64 pixels: .*64.* or data\.image_size"
        with pytest.raises(UserError, match=match):
            augmentation.check(64, 63)

    def test_a_sound_pipeline_passes_the_check(self) -> None:
        assert Augmentation(RICH, seed=0).check(32, 32) == (32, 32, 3)
