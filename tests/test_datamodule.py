"""From folders to batches of uint8 pixels, used from Python: what is in them, and in what order."""

import pickle
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from src import cores as cores_module
from src.data import audit, workers
from src.data import loader as loader_module
from src.data.datamodule import DataModule
from src.data.dataset import Pictures
from src.data.index import Index
from src.data.loader import ResumableLoader
from src.data.sampler import PADDING
from src.data.transforms import Augmentation
from src.errors import UserError
from tests.cli.conftest import make_pictures

SIZE = 16
PARTS = {"train": 7, "val": 3, "test": 2}  # pictures of each of the two classes
SPIN = [{"class_path": "albumentations.Affine", "init_args": {"rotate": [-90, 90], "p": 1}}]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with train, val and test; tests must not write into it."""
    return make_pictures(tmp_path_factory.mktemp("data"), PARTS)


class StubTrainer:
    """What a data module asks of a Trainer."""

    def __init__(self, stage: str = "fit", epoch: int = 0, batch: int = 0) -> None:
        self.global_rank, self.world_size, self.is_global_zero = 0, 1, True
        self.num_devices = 1
        self.overfit_batches = 0.0
        self.state = SimpleNamespace(fn=stage)
        self.strategy = SimpleNamespace(root_device=torch.device("cpu"))
        epochs = SimpleNamespace(current=SimpleNamespace(processed=epoch))
        batches = SimpleNamespace(current=SimpleNamespace(ready=batch))
        self.fit_loop = SimpleNamespace(
            epoch_progress=epochs, epoch_loop=SimpleNamespace(batch_progress=batches)
        )


def make(root: Path, trainer: Any = None, **options: Any) -> DataModule:
    found = DataModule(root=str(root), **{"image_size": SIZE, "batch_size": 4, **options})
    found.trainer = trainer or StubTrainer()
    return found


def decoded(path: Path) -> np.ndarray:
    """Decode by hand: the pictures are upright RGB, and stretched by Pillow's bilinear filter."""
    with Image.open(path) as picture:
        return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR))


def copy_of(root: Path, folder: Path) -> Path:
    for path in root.rglob("*.png"):
        target = folder / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return folder


class TestBatches:
    def test_training_batches_hold_the_pixels_of_their_files(self, root: Path) -> None:
        data = make(root)
        paths = data.index("fit").subset("train").paths
        batches = list(data.train_dataloader())
        assert [len(batch["index"]) for batch in batches] == [4, 4, 4, 2]
        for batch in batches:
            assert set(batch) == {"image", "target", "index"}
            size = len(batch["index"])
            assert (batch["image"].dtype, batch["image"].shape) == (
                torch.uint8,
                (size, SIZE, SIZE, 3),
            )
            assert batch["target"].dtype == batch["index"].dtype == torch.int64
            for image, target, index in zip(*batch.values(), strict=True):
                assert paths[index].startswith(f"train/{('ant', 'bug')[target]}/")
                assert np.array_equal(image.numpy(), decoded(root / paths[index]))

    def test_evaluation_blocks_are_in_order_and_the_last_is_masked(self, root: Path) -> None:
        data = make(root, eval_batch_size=4)
        first, second = data.val_dataloader()
        assert first["index"].tolist() == [0, 1, 2, 3]
        assert second["index"].tolist() == [4, 5, PADDING, PADDING]
        assert first["target"].tolist() == [0, 0, 0, 1]
        assert second["target"].tolist() == [1, 1, -1, -1]
        assert second["image"][:2].any()
        assert not second["image"][2:].any()

    def test_augmentation_is_for_training_alone(self, root: Path) -> None:
        plain, spun = make(root), make(root, augment=SPIN)
        for stage in ("val", "train"):
            one, other = (
                torch.cat([b["image"] for b in getattr(data, f"{stage}_dataloader")()])
                for data in (plain, spun)
            )
            assert torch.equal(one, other) == (stage == "val")

    def test_crop_keeps_the_aspect_ratio(self, tmp_path: Path) -> None:
        root = make_pictures(tmp_path, {"train": 2, "val": 1})
        wide = np.zeros((8, 24, 3), np.uint8)
        wide[:, 8:16] = 255  # the middle third is what a crop keeps
        Image.fromarray(wide).save(root / "val" / "ant" / "0.png")
        options: dict[str, Any] = {"image_size": 8, "resize": "crop"}
        batch = next(iter(make(root, **options).val_dataloader()))
        assert bool((batch["image"][0] == 255).all())

    def test_a_block_of_masked_rows_alone(self, root: Path) -> None:
        batch = make_pictures_of(root).__getitems__([(0, PADDING, 0)] * 3)
        assert batch["image"].shape == (3, SIZE, SIZE, 3)
        assert batch["target"].tolist() == batch["index"].tolist() == [-1, -1, -1]

    def test_predicted_pictures_have_no_label_and_keep_their_order(
        self, root: Path, tmp_path: Path
    ) -> None:
        for name, source in (("b.png", "ant/0.png"), ("a.png", "bug/1.png")):
            (tmp_path / name).write_bytes((root / "train" / source).read_bytes())
        (tmp_path / "c.png").write_bytes(b"no picture")
        data = make(tmp_path, StubTrainer("predict"), classes=["ant", "bug"])
        (batch,) = data.predict_dataloader()
        assert data.found("predict").listed == ("a.png", "b.png", "c.png")
        assert data.index("predict").paths == ("a.png", "b.png")
        assert list(data.found("predict").errors) == ["c.png"]
        assert batch["target"].tolist() == [-1, -1]
        assert batch["index"].tolist() == [0, 1]  # a block is never larger than the data
        assert np.array_equal(batch["image"][0], decoded(tmp_path / "a.png"))


def make_pictures_of(root: Path, **options: Any) -> Pictures:
    return make(root, **options).train_dataloader().dataset  # type: ignore[return-value]


class TestOrder:
    def test_epoch_and_place_come_from_the_loops_counters(self, root: Path) -> None:
        def indices(trainer: StubTrainer) -> list[list[int]]:
            return [batch["index"].tolist() for batch in make(root, trainer).train_dataloader()]

        whole = indices(StubTrainer(epoch=1))
        assert sorted(i for batch in whole for i in batch) == list(range(14))
        assert indices(StubTrainer(epoch=1, batch=3)) == whole[3:]
        assert indices(StubTrainer(epoch=2)) != whole

    def test_overfit_batches_sees_the_same_batches_every_epoch(self, root: Path) -> None:
        found = []
        for epoch in (0, 1):
            trainer = StubTrainer(epoch=epoch)
            trainer.overfit_batches = 2
            found.append(next(iter(make(root, trainer).train_dataloader()))["index"].tolist())
        assert found[0] == found[1]

    def test_the_seed_orders_and_augments_and_splits_nothing(self, root: Path) -> None:
        one, other = (make(root / "train", seed=seed) for seed in (0, 1))
        assert one.index("fit").splits.tolist() == other.index("fit").splits.tolist()
        first, second = (next(iter(data.train_dataloader()))["index"] for data in (one, other))
        assert first.tolist() != second.tolist()

    def test_the_processes_share_an_epoch(self, root: Path) -> None:
        indices = []
        for rank in range(2):
            trainer = StubTrainer()
            trainer.global_rank, trainer.world_size = rank, 2
            loader = make(root, trainer).train_dataloader()
            indices += [i for batch in loader for i in batch["index"].tolist()]
        assert sorted(indices) == list(range(14))


def run_bytes(loader: ResumableLoader) -> list[tuple[list[int], bytes]]:
    """Return the bytes of two epochs."""
    epochs = iter([(0, 0), (1, 0)])
    loader.position = lambda: next(epochs)
    return [
        (batch["index"].tolist(), batch["image"].numpy().tobytes())
        for _ in range(2)
        for batch in loader
    ]


class TestWorkers:
    def test_workers_change_no_byte(self, root: Path) -> None:
        alone, shared = (
            run_bytes(make(root, augment=SPIN, num_workers=workers).train_dataloader())
            for workers in (0, 2)
        )
        assert alone == shared
        assert alone[0] != alone[4]  # the second epoch is another one

    def test_a_spawned_worker_changes_no_byte(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        alone = run_bytes(make(root, augment=SPIN).train_dataloader())
        monkeypatch.setattr(loader_module, "start_method", lambda: "spawn")
        loader = make(root, augment=SPIN, num_workers=1).train_dataloader()
        assert loader.multiprocessing_context.get_start_method() == "spawn"
        assert run_bytes(loader) == alone

    @pytest.mark.parametrize("cache", [True, False])
    def test_threads_share_a_batch_and_change_no_byte(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, cache: bool
    ) -> None:
        found = []
        for cores in (1, 3):
            monkeypatch.setattr(workers, "usable_cores", lambda cores=cores: cores)
            loader = make(root, augment=SPIN, cache=cache).train_dataloader()
            found.append(run_bytes(loader))
            assert loader.dataset.threads == cores
        assert found[0] == found[1]

    def test_each_thread_makes_its_part_with_a_pipeline_of_its_own(self, root: Path) -> None:
        pictures, makers = make_pictures_of(root, augment=SPIN), []
        rekey = Augmentation._rekey

        def noted(self: Augmentation, epoch: int, index: int, showing: int) -> None:
            makers.append((threading.get_ident(), id(self), index))
            rekey(self, epoch, index, showing)

        pictures.threads = 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Augmentation, "_rekey", noted)
            pictures.__getitems__([(0, i, 0) for i in range(5)])
        parts = {
            who: sorted(i for *one, i in makers if tuple(one) == who)
            for who in {m[:2] for m in makers}
        }
        assert sorted(parts.values()) == [[0, 2, 4], [1, 3]]
        assert len({thread for thread, _ in parts}) == len({pipeline for _, pipeline in parts}) == 2

    def test_each_row_is_made_whatever_becomes_of_the_number_of_threads(self, root: Path) -> None:
        pictures, keys = make_pictures_of(root, augment=SPIN), [(0, i, 0) for i in range(7)]
        pictures.threads = 1
        expected = pictures.__getitems__(keys)["image"]
        for threads in (2, 4, 1):
            pictures.threads = threads
            assert torch.equal(pictures.__getitems__(keys)["image"], expected)

    def test_an_error_in_another_thread_is_the_batchs(self, root: Path, tmp_path: Path) -> None:
        copy = copy_of(root, tmp_path / "copy")
        pictures = make_pictures_of(copy, augment=SPIN, cache=False)
        pictures.threads = 2
        pictures.index.path(1).unlink()
        keys = [(0, i, 0) for i in range(4)]
        with pytest.raises(UserError, match=rf"{pictures.index.path(1).name} could be read at"):
            pictures.__getitems__(keys)

    def test_an_interrupted_batch_leaves_the_next_one_whole(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other thread is still at its part, with its pipeline, when this one is stopped."""
        expected = make_pictures_of(root, augment=SPIN).__getitems__([(0, i, 0) for i in range(6)])
        pictures, main, made = make_pictures_of(root, augment=SPIN), threading.get_ident(), []
        pictures.threads = 2
        call, stopped = Augmentation.__call__, threading.Event()

        def stops(self: Augmentation, *words: Any) -> Any:
            if threading.get_ident() == main:
                stopped.set()
                raise KeyboardInterrupt
            assert stopped.wait(30)
            made.append(words)
            return call(self, *words)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Augmentation, "__call__", stops)
            with pytest.raises(KeyboardInterrupt):
                pictures.__getitems__([(1, i, 0) for i in range(6)])
            assert len(made) == 3  # it has ended its part
        found = pictures.__getitems__([(0, i, 0) for i in range(6)])
        assert torch.equal(found["image"], expected["image"])

    def test_workers_and_ready_pixels_get_no_threads(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(workers, "usable_cores", lambda: 8)
        assert make(root, augment=SPIN, num_workers=1).train_dataloader().dataset.threads == 1
        assert make(root, augment=SPIN).train_dataloader().dataset.threads == 4
        loader = make(root).train_dataloader()
        list(loader)
        assert "_crew" not in vars(loader.dataset)

    def test_what_goes_to_a_worker_holds_no_pixels(self, root: Path) -> None:
        pictures = make_pictures_of(root, augment=SPIN)
        pictures.threads = 2
        fresh = len(pickle.dumps(pictures))
        pictures.__getitems__([(0, i, 0) for i in range(14)])
        assert len(pickle.dumps(pictures)) == fresh  # nothing was kept
        assert fresh < 14 * SIZE * SIZE * 3  # less than its pixels: paths and hashes alone

    def test_the_runs_own_random_stream_is_left_alone(self, root: Path) -> None:
        data = make(root, augment=SPIN)
        before = torch.get_rng_state()
        list(data.train_dataloader())
        list(data.val_dataloader())
        assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture(scope="module")
def lopsided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on 7 ants and 2 bugs; validation and test lean the other way."""
    root = make_pictures(tmp_path_factory.mktemp("lopsided"), {"train": 7, "val": 9, "test": 9})
    for i in range(2, 7):
        (root / "train" / "bug" / f"{i}.png").unlink()
    for i in range(1, 9):
        (root / "val" / "ant" / f"{i}.png").unlink()
    return root


class TestBalanced:
    def test_classes_of_the_training_pictures_come_equally_often(self, lopsided: Path) -> None:
        data = make(lopsided, sampling="balanced")
        batches = list(data.train_dataloader())
        assert [len(batch["index"]) for batch in batches] == [4, 5]  # as long as without
        counts = Counter(torch.cat([batch["index"] for batch in batches]).tolist())
        # 9 draws: 5 of the ants, each at most once; 4 of the bugs, each of the two twice
        assert sum(counts[i] for i in range(7)) == 5
        assert max(counts[i] for i in range(7)) == 1
        assert (counts[7], counts[8]) == (2, 2)
        targets = torch.cat([batch["target"] for batch in batches]).tolist()
        assert sorted(targets) == [0] * 5 + [1] * 4

    def test_without_it_every_picture_comes_once(self, lopsided: Path) -> None:
        for options in ({}, {"sampling": "uniform"}):
            batches = list(make(lopsided, **options).train_dataloader())
            assert sorted(torch.cat([b["index"] for b in batches]).tolist()) == list(range(9))

    def test_showings_of_a_picture_in_one_epoch_are_augmented_apart(self, lopsided: Path) -> None:
        data = make(lopsided, sampling="balanced", augment=SPIN, batch_size=9)
        (batch,) = data.train_dataloader()
        for index in (7, 8):
            one, other = batch["image"][batch["index"] == index]
            assert not torch.equal(one, other)

    def test_workers_change_no_byte_and_any_batch_is_resumed(self, lopsided: Path) -> None:
        options: dict[str, Any] = {"sampling": "balanced", "augment": SPIN, "batch_size": 2}
        alone, shared = (
            run_bytes(make(lopsided, num_workers=workers, **options).train_dataloader())
            for workers in (0, 2)
        )
        assert alone == shared
        per_epoch = len(alone) // 2
        rest = make(lopsided, StubTrainer(epoch=1, batch=2), **options).train_dataloader()
        again = [(b["index"].tolist(), b["image"].numpy().tobytes()) for b in rest]
        assert again == alone[per_epoch + 2 :]

    def test_a_name_that_is_none(self) -> None:
        match = r"--data\.sampling is 'balance'; allowed is uniform or balanced\."
        with pytest.raises(UserError, match=match):
            DataModule(sampling="balance")  # type: ignore[arg-type]


class TestPythonUse:
    def test_classes_come_from_the_data_without_a_trainer(self, root: Path) -> None:
        assert DataModule(root=str(root)).classes == ("ant", "bug")

    def test_classes_that_are_given_rule_the_order(self, root: Path) -> None:
        data = make(root, classes=["bug", "ant"])
        assert data.preprocessing.classes == ("bug", "ant")
        assert next(iter(data.val_dataloader()))["target"].tolist() == [1, 1, 1, 0]

    def test_the_record_tells_how_files_become_pixels(self, root: Path) -> None:
        record = make(root, resize="crop").preprocessing
        assert (record.image_size, record.resize, record.classes) == (SIZE, "crop", ("ant", "bug"))

    def test_a_source_is_fetched_where_there_is_no_root(self, root: Path) -> None:
        source = SimpleNamespace(fetch=lambda: root)
        assert DataModule(source=source).classes == ("ant", "bug")  # type: ignore[arg-type]

    def test_splits_are_cut_where_the_data_have_none(self, root: Path) -> None:
        data = make(root / "train", val_fraction=0.3, test_fraction=0.2)
        counts = data.index("fit").counts()
        # 7 of a class: 30 % are 2.1, 20 % are 1.4
        assert counts == {
            "train": {"ant": 4, "bug": 4},
            "val": {"ant": 2, "bug": 2},
            "test": {"ant": 1, "bug": 1},
        }

    def test_val_fraction_of_zero_means_no_validation(self, root: Path) -> None:
        data = make(root / "train", val_fraction=0.0, test_fraction=0.0)
        assert data.val_dataloader() == []
        assert len(list(data.train_dataloader())) == 4

    def test_validate_on_test(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        root = make_pictures(tmp_path, {"train": 7, "test": 2})
        data = make(root, validate_on_test=True)
        data.setup("fit")
        assert "WARNING: data.validate_on_test: the TEST pictures" in capsys.readouterr().err
        (block,) = data.val_dataloader()
        files = data.index("fit").subset("test").paths
        assert [files[i] for i in block["index"]] == [
            f"test/{name}/{i}.png" for name in ("ant", "bug") for i in (0, 1)
        ]
        assert data.index("fit").counts()["train"] == {"ant": 7, "bug": 7}  # nothing was cut

    def test_no_warning_without_it(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make(root).setup("fit")
        assert "WARNING" not in capsys.readouterr().err

    def test_the_files_are_looked_through_once(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = make(root)
        data.prepare("fit")
        monkeypatch.setattr(audit, "scan", None)
        data.setup("fit")
        assert len(list(data.train_dataloader())) == 4

    def test_the_runs_own_split_is_read_back(self, root: Path, tmp_path: Path) -> None:
        index: Index = make(root / "train").index("fit")
        index.to_csv(tmp_path / "samples.csv")
        data = make(root / "train", StubTrainer("validate"), classes=list(index.classes))
        data.samples = tmp_path / "samples.csv"
        assert data.index("validate").paths == index.subset("val").paths
        assert data.index("test").paths == index.subset("test").paths
        rows = [row for block in data.val_dataloader() for row in block["index"].tolist()]
        assert [row for row in rows if row != PADDING] == list(range(len(index.subset("val"))))

    def test_damaged_files_are_left_out_and_kept_in_mind(self, root: Path, tmp_path: Path) -> None:
        copy = copy_of(root, tmp_path / "copy")
        (copy / "train" / "bug" / "3.png").write_bytes(b"no picture")
        with pytest.raises(UserError, match=r"(?s)1 of 24 files.*train/bug/3\.png"):
            make(copy).prepare("fit")
        data = make(copy, on_bad_image="skip")
        assert len(data.index("fit")) == 23
        assert data.found("fit").skipped == (("train/bug/3.png", "bug"),)


class TestErrors:
    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"batch_size": 0}, r"--data\.batch_size is 0; allowed is 1 or more"),
            ({"batch_size": -3}, r"--data\.batch_size is -3"),
            ({"eval_batch_size": 0}, r"--data\.eval_batch_size is 0; allowed is 1 or more"),
            ({"eval_batch_size": -1}, r"--data\.eval_batch_size is -1"),
            ({"num_workers": -1}, r"--data\.num_workers is -1; allowed is 0 or more"),
            ({"image_size": 0}, r"--data\.image_size is 0; allowed is 1 or more"),
            ({"augment": ["HorizontalFlip"]}, r"data\.augment is a list of"),
        ],
    )
    def test_values_out_of_range(self, options: dict[str, Any], match: str) -> None:
        with pytest.raises(UserError, match=match):
            DataModule(**options)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"val_fraction": 0.2}, "val_fraction"),
            ({"classes": ["ant", "bgu"]}, "did you mean 'bug'"),
            (
                {"augment": [{"class_path": "albumentations.Normalize"}]},
                "Remove Normalize",
            ),
        ],
    )
    def test_mistakes_that_the_data_show(
        self, root: Path, options: dict[str, Any], match: str
    ) -> None:
        with pytest.raises(UserError, match=match):
            make(root, **options).prepare("fit")

    def test_no_data(self) -> None:
        match = r"no data: give --data\.root a folder or a CSV, or a config with data\.source"
        with pytest.raises(UserError, match=match):
            DataModule().prepare("fit")

    def test_pictures_of_many_sizes_in_one_batch(self, root: Path) -> None:
        sizes = [
            {"class_path": "albumentations.Resize", "init_args": {"height": n, "width": n}}
            for n in (8, 9)
        ]
        either = [
            {"class_path": "albumentations.OneOf", "init_args": {"transforms": sizes, "p": 1}}
        ]
        loader = make(root, augment=either, batch_size=14).train_dataloader()
        match = r"data\.augment gave pictures of \(., .\) and \(., .\) pixels in one batch"
        with pytest.raises(UserError, match=match):
            next(iter(loader))

    @pytest.mark.parametrize("content", [None, b"no picture"], ids=["gone", "damaged"])
    def test_a_file_that_is_lost_after_the_start(
        self, root: Path, tmp_path: Path, content: bytes | None
    ) -> None:
        copy = copy_of(root, tmp_path / "copy")
        data = make(copy, cache=False)
        data.prepare("fit")
        lost = copy / "val" / "bug" / "1.png"
        lost.unlink()
        if content:
            lost.write_bytes(content)
        match = r"(?s)val/bug/1\.png could be read at the start and can't be now: .*Bring the file"
        with pytest.raises(UserError, match=match):
            list(data.val_dataloader())

    def test_too_few_pictures_for_the_processes(self, root: Path) -> None:
        trainer = StubTrainer()
        trainer.world_size = 8
        with pytest.raises(UserError, match="14 training pictures, and a step needs at least 16"):
            make(root, trainer).train_dataloader()
        with pytest.raises(UserError, match="6 pictures to score on 8 processes"):
            make(root, trainer).val_dataloader()

    def test_nothing_that_can_be_predicted(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(b"no picture")
        data = make(tmp_path, classes=["ant", "bug"])
        with pytest.raises(UserError, match=r"none of the 1 files .* can be decoded; a\.png: "):
            data.prepare("predict")

    def test_nothing_to_score(self, root: Path, tmp_path: Path) -> None:
        index = make(root).index("fit")
        index.subset("train").to_csv(tmp_path / "samples.csv")
        data = make(root, classes=["ant", "bug"])
        data.samples = tmp_path / "samples.csv"
        match = r"nothing to score: looked for the test split in .*samples\.csv .*`validate`"
        with pytest.raises(UserError, match=match):
            data.prepare("test")


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda", True)])
def test_batches_are_pinned_where_they_are_copied_to_a_gpu(
    device: str, pinned: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = StubTrainer()
    trainer.strategy.root_device = torch.device(device)
    data = make(root, trainer)
    data.prepare("fit")
    assert data.train_dataloader().pin_memory == pinned


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(2, 1, 2), (64, 1, 4), (64, 32, 2), (8, 16, 1)]
)
def test_workers_that_nobody_measures(
    cores: int, processes: int, expected: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a scoring where files have to be decoded: few, whatever the machine."""
    monkeypatch.setattr(workers, "usable_cores", lambda: cores)
    own = workers.own_cores(processes)
    data = make(root, StubTrainer("test"), num_workers="auto", cache=False)
    data.prepare("test")
    assert data.workers(data.pictures("test"), own) == expected
    cached = make(root, StubTrainer("test"), num_workers="auto")
    cached.prepare("test")
    assert cached.workers(cached.pictures("test"), own) == 0


def test_cores_are_shared_by_the_processes_of_a_machine(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes on each of two machines of 6 cores."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 6)
    trainer = StubTrainer()
    trainer.num_devices, trainer.world_size = 2, 4
    assert make(root, trainer, augment=SPIN).train_dataloader().dataset.threads == 3


@pytest.mark.parametrize(
    ("text", "cores"),
    [("max 100000\n", 8), ("200000 100000\n", 2), ("50000 100000\n", 1), ("150000 100000", 2)],
)
def test_cores_that_a_container_allows(
    text: str, cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    monkeypatch.setattr(cores_module, "CGROUP", tmp_path / "cpu.max")
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert cores_module.usable_cores() == cores
    monkeypatch.setattr(cores_module, "CGROUP", tmp_path / "none")
    assert cores_module.usable_cores() == 8


@pytest.mark.parametrize("cache", [True, False])
def test_pixels_are_mixed_as_asked(cache: bool, root: Path) -> None:
    data = make(root, image_size=9, interpolation="nearest", cache=cache)
    data.prepare("fit")
    assert data.preprocessing.interpolation == "nearest"
    shown = data.pictures("fit", "train")
    with Image.open(shown.index.path(0)) as picture:
        expected = np.asarray(picture.resize((9, 9), Image.Resampling.NEAREST))
    assert np.array_equal(shown.pixels(0, 0), expected)
