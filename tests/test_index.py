"""Folders and CSVs -> a listing -> the table of samples; and `samples.csv`, which keeps it."""

import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.data import listing as listing_module
from src.data.index import (
    Index,
    Listing,
    list_data,
    list_labelled,
    list_pictures,
    settle_classes,
)
from src.data.tables import write_table
from src.errors import UserError

# Whatever a Linux file system takes for a name, but for what we pass over.
names = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: not name.startswith(".") and name.lower() not in ("thumbs.db", "__macosx"))
words = st.sampled_from(["bee", "wasp", "bumble bee", 'a "fly"', "x, y", "Hornisse ä", "蜂"])


def fill(root: Path, *files: str) -> Path:
    """Make files below root, each with its own path as content; return root."""
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def csv_of(root: Path, text: str, *files: str) -> Path:
    fill(root, *files)
    (root / "list.csv").write_text(text, encoding="utf-8")
    return root / "list.csv"


def listing_of(paths, labels, splits=None, groups=None) -> Listing:
    blank = ("",) * len(paths)
    return Listing(
        Path("/data"), tuple(paths), tuple(labels), tuple(splits or blank), tuple(groups or blank)
    )


SPLIT_TREE = ("train/bee/1.jpg", "train/wasp/2.jpg", "test/bee/3.jpg", "test/wasp/deep/4.jpg")
FLAT_TREE = ("bee/1.jpg", "wasp/2.jpg", "wasp/deep/er/3.jpg")

# Folders


def test_folders_by_split(tmp_path):
    listing = list_data(fill(tmp_path, *SPLIT_TREE))
    assert listing.root == tmp_path
    assert listing.paths == (
        "test/bee/3.jpg",
        "test/wasp/deep/4.jpg",
        "train/bee/1.jpg",
        "train/wasp/2.jpg",
    )
    assert listing.labels == ("bee", "wasp", "bee", "wasp")
    assert listing.splits == ("test", "test", "train", "train")
    assert listing.has_split("test") and not listing.has_split("val")
    assert (len(listing), listing.passed_over) == (4, 0)


def test_folders_by_class(tmp_path):
    listing = list_data(fill(tmp_path, *FLAT_TREE))
    assert listing.paths == ("bee/1.jpg", "wasp/2.jpg", "wasp/deep/er/3.jpg")
    assert listing.labels == ("bee", "wasp", "wasp")
    assert listing.splits == ("", "", "")


def test_a_class_may_be_called_train(tmp_path):
    listing = list_data(fill(tmp_path, "train/1.jpg", "plane/2.jpg", "val/3.jpg"))
    assert listing.labels == ("plane", "train", "val")
    assert not any(listing.splits)


def test_files_and_folders_outside_class_folders_are_ignored(tmp_path):
    fill(tmp_path, *SPLIT_TREE, "README.md", "train/notes.txt", "annotations/a.xml")
    assert list_data(tmp_path).paths == list_data(fill(tmp_path / "b", *SPLIT_TREE)).paths


def test_system_files_are_passed_over_and_counted(tmp_path):
    fill(tmp_path, *FLAT_TREE, ".DS_Store", "bee/._1.jpg", "bee/Thumbs.db", "wasp/desktop.ini")
    fill(tmp_path, "__MACOSX/bee/1.jpg", ".git/config", "wasp/deep/thumbs.db")
    listing = list_data(tmp_path)
    assert listing.paths == ("bee/1.jpg", "wasp/2.jpg", "wasp/deep/er/3.jpg")
    assert listing.passed_over == 7  # a folder counts once


def test_the_order_is_not_that_of_the_file_system(tmp_path, monkeypatch):
    fill(tmp_path, *SPLIT_TREE, *(f"train/bee/{i}.jpg" for i in range(30)))
    expected = list_data(tmp_path)
    real = os.scandir

    class Reversed:
        def __init__(self, folder):
            self.entries = sorted(real(folder), key=lambda e: e.name, reverse=True)

        def __enter__(self):
            return iter(self.entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Reversed)
    assert list_data(tmp_path) == expected
    assert list(expected.paths) == sorted(expected.paths)


def test_links_to_files_and_folders_are_followed(tmp_path):
    store = fill(tmp_path / "store", "bees/1.jpg", "bees/more/2.jpg", "wasp.jpg")
    root = fill(tmp_path / "root", "wasp/1.jpg")
    (root / "bee").symlink_to(store / "bees")
    (root / "wasp" / "2.jpg").symlink_to(store / "wasp.jpg")
    (root / "wasp" / "far").symlink_to(store / "bees" / "more")
    listing = list_data(root)
    assert listing.paths == (
        "bee/1.jpg",
        "bee/more/2.jpg",
        "wasp/1.jpg",
        "wasp/2.jpg",
        "wasp/far/2.jpg",
    )
    assert Index.of(listing, ("bee", "wasp"), "abcde").path(3).read_text() == "wasp.jpg"


def test_a_link_to_nothing_is_a_sample_for_the_audit_to_name(tmp_path):
    fill(tmp_path, *FLAT_TREE)
    (tmp_path / "bee" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    assert list_data(tmp_path).paths[0] == "bee/0.jpg"


@pytest.mark.parametrize(
    ("link", "target", "found_at"),
    [("bee/up", ".", "bee/up/bee"), ("bee/self", "bee", "bee/self"), ("fly", ".", "fly/fly")],
)
def test_a_circle_of_links_is_an_error(tmp_path, link, target, found_at):
    fill(tmp_path, *FLAT_TREE)
    (tmp_path / link).symlink_to((tmp_path / target).resolve(), target_is_directory=True)
    # The first turn, not the fortieth, at which the system gives up.
    with pytest.raises(UserError, match=f"circle: {re.escape(str(tmp_path / found_at))} is the "):
        list_data(tmp_path)


def test_a_link_to_itself_is_an_error(tmp_path):
    fill(tmp_path, *FLAT_TREE)
    (tmp_path / "bee" / "x").symlink_to(tmp_path / "bee" / "x")
    with pytest.raises(UserError, match=r"lead in a circle: .*bee/x "):
        list_data(tmp_path)


def test_a_pipe_is_passed_over(tmp_path):
    fill(tmp_path, *FLAT_TREE)
    os.mkfifo(tmp_path / "bee" / "pipe")
    assert list_data(tmp_path).passed_over == 1


# What is wrong with folders


def test_no_such_folder_names_the_nearest(tmp_path):
    (tmp_path / "insects").mkdir()
    with pytest.raises(UserError, match=r"no folder or file .*insect\. did you mean 'insects'\?"):
        list_data(tmp_path / "insect")


@pytest.mark.parametrize("files", [(), ("1.jpg", "2.jpg")])
def test_no_class_folders(tmp_path, files):
    with pytest.raises(UserError, match="holds no class folders"):
        list_data(fill(tmp_path, *files))


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_split_without_class_folders_is_named(tmp_path, split):
    fill(tmp_path, *(name for name in SPLIT_TREE if not name.startswith(split)), f"{split}/1.jpg")
    with pytest.raises(UserError, match=rf"/{split} holds no class folders"):
        list_data(tmp_path)


@pytest.mark.parametrize("tree", [SPLIT_TREE, FLAT_TREE])
def test_an_empty_class_folder_is_named(tmp_path, tree):
    fill(tmp_path, *tree)
    empty = tmp_path / ("train/hornet" if tree is SPLIT_TREE else "hornet")
    fill(empty, ".gitkeep")
    with pytest.raises(UserError, match=r"class folder .*hornet is empty"):
        list_data(tmp_path)


def test_one_class_only(tmp_path):
    with pytest.raises(UserError, match="one class only, 'bee'"):
        list_data(fill(tmp_path, "bee/1.jpg", "bee/2.jpg"))


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_class_that_train_lacks_is_named_with_its_folder(tmp_path, split):
    fill(tmp_path, "train/bee/1.jpg", "train/wasp/2.jpg", f"{split}/wasps/3.jpg")
    with pytest.raises(UserError, match=rf"/{split} has the class 'wasps'.*did you mean 'wasp'\?"):
        list_data(tmp_path)


def test_only_val_and_test_is_nothing_to_train_on(tmp_path):
    with pytest.raises(UserError, match="no pictures in the split 'train'"):
        list_data(fill(tmp_path, "val/bee/1.jpg", "test/wasp/2.jpg"))


@pytest.mark.parametrize(
    ("folder", "right"),
    [("valid", "val"), ("validation", "val"), ("testing", "test"), ("Test", "test")],
)
def test_a_split_by_another_name_is_to_be_renamed(tmp_path, folder, right):
    fill(tmp_path, "train/bee/1.jpg", "train/wasp/2.jpg", f"{folder}/bee/3.jpg")
    with pytest.raises(UserError, match=rf"/{folder} looks like a split.*Rename it to '{right}'"):
        list_data(tmp_path)


def test_splits_that_all_go_by_another_name_are_not_taken_for_classes(tmp_path):
    fill(tmp_path, "training/bee/1.jpg", "training/wasp/2.jpg", "testing/bee/3.jpg")
    with pytest.raises(UserError, match="Rename it to"):
        list_data(tmp_path)


def test_training_as_a_class_stays_a_class(tmp_path):
    assert list_data(fill(tmp_path, "training/1.jpg", "racing/2.jpg")).labels == (
        "racing",
        "training",
    )


# CSV


def test_csv_with_splits_and_groups(tmp_path):
    text = "Label, path ,split,group,width\nwasp,b/2.jpg,test,g1,9\nbee,1.jpg,,,9\nwasp,3.jpg,,,\n"
    listing = list_data(csv_of(tmp_path, text, "1.jpg", "b/2.jpg", "3.jpg"))
    assert listing.root == tmp_path
    assert listing.paths == ("1.jpg", "3.jpg", "b/2.jpg")
    assert listing.labels == ("bee", "wasp", "wasp")
    assert listing.splits == ("", "", "test")
    assert listing.groups == ("", "", "g1")


def test_csv_from_windows(tmp_path):
    fill(tmp_path, "a b/1.jpg", "é/2.jpg")
    data = "path,label\r\n.\\a b\\1.jpg,bee\r\né\\2.jpg,wasp\r\n".encode("utf-8-sig")
    (tmp_path / "list.csv").write_bytes(data)
    assert list_data(tmp_path / "list.csv").paths == ("a b/1.jpg", "é/2.jpg")


def test_csv_with_absolute_paths_inside_and_outside(tmp_path):
    fill(tmp_path, "in/1.jpg", "out/2.jpg", "out/3.jpg")
    text = f"path,label\n{tmp_path}/in/1.jpg,a\n{tmp_path}/out/2.jpg,b\n../out/3.jpg,b\n"
    listing = list_data(csv_of(tmp_path / "in", text))
    assert set(listing.paths) == {"1.jpg", f"{tmp_path}/out/2.jpg", f"{tmp_path}/out/3.jpg"}


def test_csv_order_does_not_matter(tmp_path):
    files = ("1.jpg", "2.jpg", "3.jpg")
    first = list_data(csv_of(tmp_path, "path,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n", *files))
    second = list_data(csv_of(tmp_path, "path,label\n3.jpg,a\n1.jpg,a\n2.jpg,b\n"))
    assert first == second


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "is empty. Its first line must name the columns"),
        ("path,label\n", "names its columns and no pictures"),
        ("file,label\n1.jpg,a\n", "no column 'path'.*'file', 'label'"),
        ("path,lable\n1.jpg,a\n", r"no column 'label'.*did you mean 'lable'\?"),
        ("path;label\n1.jpg;a\n", "Separate the columns by commas"),
        ("path,label,path\n1.jpg,a,1.jpg\n", "the column 'path' twice"),
        ("path,label\n1.jpg\n", "line 2: 1 values for 2 columns"),
        ('path,label\n"1.jpg,a\n', "is no CSV: line 2"),
        ("path,label\n1.jpg,a\n2.jpg, \n", r"1 of 2 rows have an empty label:\n  2.jpg"),
        ("path,label,split\n1.jpg,a,tset\n", r"unknown split 'tset'.*did you mean 'test'\?"),
        ("path,label,split\n1.jpg,a,validation\n", r"'validation'.*did you mean 'val'\?"),
        ("path,label\n1.jpg,a\n./1.jpg,b\n", r"1 files are named more than once:\n  1.jpg"),
        ("path,label\n1.jpg,a\n8.jpg,b\n9.jpg,b\n", r"2 of 3 rows have no file.*\n  8.jpg\n  9"),
        ("path,label\n1.jpg,a\n,b\n", "(an empty path)"),
        ("path,label\n1.jpg,a\n2.jpg,a\n", "one class only, 'a'"),
        ("path,label,split\n1.jpg,a,test\n2.jpg,b,test\n", "no pictures in the split 'train'"),
        (
            "path,label,split\n1.jpg,a,train\n2.jpg,b,train\n3.jpg,c,test\n",
            "split 'test' of .*list.csv has the class 'c', which train lacks",
        ),
    ],
)
def test_what_is_wrong_with_a_csv(tmp_path, text, match):
    with pytest.raises(UserError, match=match):
        list_data(csv_of(tmp_path, text, "1.jpg", "2.jpg", "3.jpg"))


def test_a_long_list_of_missing_files_is_cut(tmp_path):
    text = "path,label\n" + "".join(f"{i}.jpg,a\n" for i in range(57))
    with pytest.raises(UserError, match="57 of 57 rows have no file") as caught:
        list_data(csv_of(tmp_path, text))
    assert "and 37 more" in str(caught.value)
    assert str(caught.value).count(".jpg") == 20


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (bytes(range(256)) * 9, "no UTF-8 text|binary file"),
        (b"path,label\n\xff.jpg,a\n", r"no UTF-8 text \(byte 11 is 0xff\)"),
        (b"path,label\n\0\0\0", "binary file"),
    ],
)
def test_noise_is_no_csv(tmp_path, data, match):
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(UserError, match=match):
        list_data(tmp_path / "a.csv")


def test_a_file_that_is_no_csv(tmp_path):
    with pytest.raises(UserError, match="a file and no CSV"):
        list_data(fill(tmp_path, "a.jpg") / "a.jpg")


@given(st.lists(st.tuples(names, words), min_size=2, max_size=8, unique_by=lambda row: row[0]))
def test_property_any_name_survives_folder_listing_and_samples_csv(rows):
    folder = Path(tempfile.mkdtemp())
    try:
        for name, label in rows:
            fill(folder, f"data/{label}/{name}.jpg")
        fill(folder, "data/bee/1", "data/wasp/1")
        listing = list_data(folder / "data")
        assert set(listing.paths) == {f"{label}/{name}.jpg" for name, label in rows} | {
            "bee/1",
            "wasp/1",
        }
        index = Index.of(listing, settle_classes(listing, None), listing.paths)
        index.to_csv(folder / "samples.csv", skipped=[("a,b.jpg", "bee")])
        again = Index.from_csv(folder / "samples.csv", index.root, index.classes)
        assert again.fingerprint() == index.fingerprint()
        assert again.paths == index.paths
        assert all(again.path(i).is_file() for i in range(len(again)))
    finally:
        shutil.rmtree(folder)


# Names that hold a backslash mean a folder in a CSV, and blanks around them may be a slip.
csv_names = names.filter(lambda name: "\\" not in name and name == name.strip())


@given(st.lists(st.tuples(csv_names, words), min_size=2, max_size=6, unique_by=lambda r: r[0]))
def test_property_a_csv_that_we_write_lists_the_same(rows):
    folder = Path(tempfile.mkdtemp())
    try:
        rows = [*rows, ("a b.jpg", "bee"), ("c.jpg", "wasp")]
        rows = list(dict(rows).items())
        for name, _ in rows:
            (folder / f"{name}").touch()
        samples = listing_of([name for name, _ in rows], [label for _, label in rows])
        classes = settle_classes(samples, None)
        Index.of(samples, classes, [""] * len(rows)).to_csv(folder / "a.csv")
        if "a.csv" in dict(rows):  # overwritten by the table itself
            return
        listing = list_data(folder / "a.csv")
        assert dict(zip(listing.paths, listing.labels, strict=True)) == dict(rows)
    finally:
        shutil.rmtree(folder)


# Pictures to predict, pictures to score


def test_pictures_of_a_folder_a_file_and_a_csv(tmp_path):
    fill(tmp_path, "b/2.jpg", "1.jpg", "b/.hidden", "3.png")
    folder = list_pictures(tmp_path)
    assert (folder.paths, folder.labels, folder.passed_over) == (
        ("1.jpg", "3.png", "b/2.jpg"),
        ("", "", ""),
        1,
    )
    one = list_pictures(tmp_path / "b" / "2.jpg")
    assert (one.root, one.paths) == (tmp_path / "b", ("2.jpg",))
    table = list_pictures(csv_of(tmp_path, "label,path\nx,b\\2.jpg\ny,1.jpg\nz,gone.jpg\n"))
    assert table.paths == ("b/2.jpg", "1.jpg", "gone.jpg")
    assert table.labels == ("", "", "")


def test_nothing_to_predict(tmp_path):
    with pytest.raises(UserError, match="holds no files"):
        list_pictures(tmp_path)
    with pytest.raises(UserError, match="no folder or file"):
        list_pictures(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="no column 'path'"):
        list_pictures(csv_of(tmp_path, "file\n1.jpg\n"))


def test_labelled_pictures_of_the_split_or_else_all(tmp_path):
    split = fill(tmp_path / "split", *SPLIT_TREE)
    assert list_labelled(split, "test").paths == ("test/bee/3.jpg", "test/wasp/deep/4.jpg")
    assert len(list_labelled(split, "val")) == 4
    flat = fill(tmp_path / "flat", *FLAT_TREE)
    assert list_labelled(flat, "test").labels == ("bee", "wasp", "wasp")


def test_labelled_pictures_of_a_csv(tmp_path):
    text = "path,label,split\n1.jpg,a,test\n2.jpg,b,\n"
    path = csv_of(tmp_path, text, "1.jpg", "2.jpg")
    assert list_labelled(path, "test").paths == ("1.jpg",)
    assert list_labelled(path, "val").paths == ("1.jpg", "2.jpg")


def test_scoring_asks_for_nothing_that_only_training_needs(tmp_path):
    fill(tmp_path, "test/bee/1.jpg", "test/unknown/.keep")
    assert list_labelled(tmp_path, "test").labels == ("bee",)


def test_nothing_to_score(tmp_path):
    with pytest.raises(UserError, match=r"no labelled pictures.*Looked for test/<class>/"):
        list_labelled(fill(tmp_path, "1.jpg"), "test")


def test_an_empty_test_folder_never_means_scoring_train(tmp_path):
    fill(tmp_path, "train/bee/1.jpg", "train/wasp/2.jpg", "test/3.jpg")
    with pytest.raises(UserError, match="no labelled pictures to score"):
        list_labelled(tmp_path, "test")


# Classes


def test_classes_are_sorted_or_as_given():
    listing = listing_of("abc", ["wasp", "bee", "bee"])
    assert settle_classes(listing, None) == ("bee", "wasp")
    assert settle_classes(listing, ["wasp", "bee"]) == ("wasp", "bee")


def test_classes_are_those_of_train():
    listing = listing_of("abcd", ["wasp", "bee", "bee", "fly"], ["train", "train", "test", ""])
    assert settle_classes(listing, None) == ("bee", "fly", "wasp")
    with pytest.raises(UserError, match="Found 'wasp' as the only class"):
        settle_classes(listing_of("ab", ["wasp", "bee"], ["train", "test"]), None)


@pytest.mark.parametrize(
    ("given_classes", "match"),
    [
        (["bee"], "'bee' as the only class"),
        ([], "Found nothing as the only class"),
        (["bee", "wasp", "bee"], "names 'bee' more than once"),
        (["bee", "wasps"], r"names 'wasps', of which .* no pictures.*did you mean 'wasp'\?"),
        (["bee", "fly"], r"2 pictures of /data are labelled 'wasp', which data.classes does not"),
    ],
)
def test_classes_that_do_not_fit_the_data(given_classes, match):
    listing = listing_of("abcd", ["wasp", "wasp", "bee", "fly"])
    with pytest.raises(UserError, match=match):
        settle_classes(listing, given_classes)


def test_labels_are_looked_through_once_for_many_classes():
    asked = []

    class Classes(tuple):
        def __contains__(self, name):
            asked.append(name)
            return super().__contains__(name)

        def __iter__(self):
            asked.append(None)
            return super().__iter__()

    classes = Classes(f"c{i}" for i in range(50))
    listing = listing_of([str(i) for i in range(1000)], [f"c{i % 50}" for i in range(1000)])
    asked.clear()
    listing_module._check_known(listing, classes)
    assert len(asked) <= 1


# The table

ROWS = listing_of(
    ["test/a.jpg", "train/b.jpg", "train/c.jpg"], ["bee", "wasp", "bee"], ["test", "train", "train"]
)


def table(root: str = "/data", **change: object) -> Index:
    listing = Listing(
        Path(root),
        change.get("paths", ROWS.paths),
        change.get("labels", ROWS.labels),
        change.get("splits", ROWS.splits),
        ROWS.groups,
    )
    classes = change.get("classes", ("bee", "wasp"))
    return Index.of(listing, classes, change.get("hashes", ("h1", "h2", "h3")))


def test_the_table_holds_its_columns():
    index = table()
    assert len(index) == 3
    assert index.labels.tolist() == [0, 1, 0]
    assert index.labels.dtype == np.int64
    assert index.path(1) == Path("/data/train/b.jpg")
    assert index.counts() == {"train": {"bee": 1, "wasp": 1}, "test": {"bee": 1, "wasp": 0}}
    train = index.subset("train")
    assert (train.paths, train.hashes) == (("train/b.jpg", "train/c.jpg"), ("h2", "h3"))
    assert (train.labels.tolist(), train.splits.tolist()) == ([1, 0], ["train", "train"])
    assert len(index.subset("val")) == 0


def test_samples_without_labels():
    index = Index.of(listing_of("ab", ["", "bee"]), ("bee", "wasp"), ("", ""), "predict")
    assert index.labels.tolist() == [-1, 0]
    assert index.splits.tolist() == ["predict", "predict"]
    assert index.counts() == {"predict": {"bee": 1, "wasp": 0}}
    assert Listing.of(index).labels == ("", "bee")


def test_an_index_can_be_listed_again():
    assert Listing.of(table()) == ROWS


def test_a_label_that_is_no_class():
    with pytest.raises(UserError, match=r"labelled 'wasp'.*did you mean 'wasps'\?"):
        table(classes=("bee", "wasps"))


def test_columns_of_unequal_length_are_a_fault_of_ours():
    with pytest.raises(ValueError, match="equally long"):
        table(hashes=("h1",))


def test_the_fingerprint_does_not_depend_on_where_the_data_lies():
    assert table().fingerprint() == table("/somewhere/else").fingerprint()
    here, there = (
        table(paths=(f"{root}/a.jpg", "train/b.jpg", "train/c.jpg")) for root in ("/x", "/y/z")
    )
    assert here.fingerprint() == there.fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"paths": ("test/A.jpg", "train/b.jpg", "train/c.jpg")},
        {"labels": ("bee", "bee", "bee")},
        {"splits": ("test", "train", "val")},
        {"hashes": ("h1", "h2", "h4")},
        {"hashes": ("h1h", "2", "h3")},
        {"classes": ("wasp", "bee")},
    ],
)
def test_the_fingerprint_changes_with_everything_else(change):
    assert table(**change).fingerprint() != table().fingerprint()


def test_the_fingerprint_is_the_same_on_every_machine():
    assert table().fingerprint().startswith("cfd1e4d3d0800b5e")


def test_samples_csv(tmp_path):
    table().to_csv(tmp_path / "samples.csv", skipped=[("train/bad.jpg", "wasp")])
    assert (tmp_path / "samples.csv").read_text() == (
        "path,label,split,hash\n"
        "test/a.jpg,bee,test,h1\n"
        "train/b.jpg,wasp,train,h2\n"
        "train/c.jpg,bee,train,h3\n"
        "train/bad.jpg,wasp,skipped,\n"
    )
    again = Index.from_csv(tmp_path / "samples.csv", Path("/data"), ("bee", "wasp"))
    assert again.fingerprint() == table().fingerprint()
    assert [path.name for path in tmp_path.iterdir()] == ["samples.csv"]


def test_names_that_are_no_utf8_survive(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")
    table(paths=(name, "b\r.jpg", "c\n.jpg")).to_csv(tmp_path / "samples.csv")
    again = Index.from_csv(tmp_path / "samples.csv", Path("/data"), ("bee", "wasp"))
    assert again.paths == (name, "b\r.jpg", "c\n.jpg")
    assert again.fingerprint()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("path,label\na.jpg,bee\n", "no column 'split'"),
        ("path,label,split,hash\na.jpg,bee,tran,h\n", r"unknown split 'tran'.*'train'\?"),
        ("path,label,split,hash\na.jpg,fly,train,h\n", "labelled 'fly', which is none of"),
    ],
)
def test_a_samples_csv_that_is_none(tmp_path, text, match):
    (tmp_path / "samples.csv").write_text(text)
    with pytest.raises(UserError, match=match):
        Index.from_csv(tmp_path / "samples.csv", tmp_path, ("bee", "wasp"))


def test_a_table_that_breaks_off_leaves_nothing(tmp_path):
    def rows():
        yield ["a"]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_table(tmp_path / "t.csv", ["x"], rows())
    assert list(tmp_path.iterdir()) == []
