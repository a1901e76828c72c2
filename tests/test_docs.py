"""README and docs: every command is run, every example works, every name leads somewhere.

The names DATA, NEW, OTHER, PICTURE, RUN, OLD and BUNDLE in the docs are real files here: each
command runs in an empty folder that holds them. A code block whose first line is a comment with a
file name, such as `# my_models.py`, is that file. Sizes are made small by options behind the
command's own, so every word of it is still parsed.
"""

import contextlib
import importlib
import io
import json
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from src import audit, bench, compare, export, predict, repeat, report, serve, verify_resume, watch
from src.data.tables import read_table
from src.data.transforms import Augmentation
from src.loop import CrashCheckpoint
from src.repetition import PLAN
from src.train import main
from tests.cli.conftest import TINY, make_pictures, tree
from tests.helpers import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHONS = ("python", ".venv/bin/python", ".venv/Scripts/python")
PROGRAM = ["-m", "src.train"]
LANGUAGES = {"sh", "python", "yaml", "csv", "text"}  # `text` is shown and never typed
PLACEHOLDERS = ("DATA", "NEW", "OTHER", "PICTURE", "RUN", "OLD", "BUNDLE")

# First words of a command -> why it is not run here.
NOT_RUN = {
    "make setup": "makes an environment; tests/test_setup.py",
    "make fit": "its second line is a command of README.md and is run from there",
    "make test": "is what runs this",
    "make bench-peers": "takes hours; tests/test_peers.py",
    "python .ci/setup.py": "makes an environment; tests/test_setup.py",
    "source .venv/bin/activate": "changes the shell it is typed into",
    "wandb sync": "needs an account",
    "torchrun": "starts processes; its words are parsed below",
    "python -m tests.benchmarks.ablation": "trains for hours",
    "python -m tests.benchmarks.planted": "plants 200 faults; tests/test_planted.py",
    "srun": "starts the tasks of a job; its words are parsed below",
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int  # of its first line of text
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file_name(self) -> str:
        """The file that the block is, or an empty string."""
        first = self.text.split("\n", 1)[0]
        found = re.fullmatch(r"# (\w+\.(?:py|yaml))", first)
        return found[1] if found else ""


@dataclass(frozen=True)
class Command:
    """One line of a shell block, in words."""

    block: Block
    words: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]  # variables of the environment before it

    def __str__(self) -> str:
        return f"{self.block.page.name}: {' '.join(self.words)}"

    @property
    def arguments(self) -> list[str] | None:
        """What the program gets, or None if this is another program's command."""
        start = 1 + len(PROGRAM)
        ours = self.words[0] in PYTHONS and list(self.words[1:start]) == PROGRAM
        return list(self.words[start:]) if ours else None

    @property
    def other_module(self) -> str | None:
        """The module of ours that another `python -m` starts, or None."""
        python, flag, module, *_ = (*self.words, "", "")
        ours = python in PYTHONS and flag == "-m" and module.startswith("src.")
        return module if ours and self.arguments is None else None

    @property
    def reason_not_run(self) -> str | None:
        line = " ".join(self.words)
        return next((why for start, why in NOT_RUN.items() if line.startswith(start)), None)


def blocks_of(page: Path) -> Iterator[Block]:
    inside, start, language = False, 0, ""
    lines = page.read_text("utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.startswith("```") and not inside:
            inside, start, language = True, number + 1, line[3:].strip()
        elif line.startswith("```"):
            inside = False
            yield Block(page, start + 1, language, "\n".join(lines[start:number]) + "\n")
    assert not inside, f"{page.name}: the block at line {start} has no end"


def commands_of(block: Block) -> Iterator[Command]:
    for line in block.text.replace("\\\n", " ").replace("\\", "/").splitlines():
        words = shlex.split(line, comments=True)
        settings = []
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            name, _, value = words.pop(0).partition("=")
            settings.append((name, value))
        if words:
            yield Command(block, tuple(words), tuple(settings))


def prose_of(page: Path) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def spans_of(page: Path) -> list[str]:
    """Return what stands between single backticks outside of blocks."""
    return re.findall(r"`([^`]+)`", prose_of(page))


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
COMMANDS = [c for block in BLOCKS if block.language == "sh" for c in commands_of(block)]
RUN_HERE = list({c.words: c for c in COMMANDS if c.arguments is not None}.values())


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small are faster on one thread, by far where the cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the docs name, OLD among it: a run of one epoch."""
    folder = tmp_path_factory.mktemp("docs")
    classes = ("cat", "dog")
    make_pictures(folder / "DATA", {"train": 6, "test": 2}, classes)
    make_pictures(folder / "OTHER", {"": 2}, classes)
    make_pictures(folder / "NEW", {"": 1}, classes)
    shutil.copy(folder / "NEW/cat/0.png", folder / "PICTURE")
    paths = sorted((folder / "OTHER").rglob("*.png"))
    rows = [f"{path.relative_to(folder).as_posix()},{path.parent.name}\n" for path in paths]
    (folder / "DATA.csv").write_text("path,label\n" + "".join(rows), "utf-8")
    shutil.copytree(ROOT / "configs", folder / "configs")
    with contextlib.chdir(folder):
        words = ["fit", "--data.root=DATA", "--run_dir=OLD", *TINY, "--trainer.max_epochs=1"]
        assert main(words) == 0
        assert export.main(["OLD", "--out", "BUNDLE"]) == 0
    return folder


@pytest.fixture(scope="module")
def complete_run(world: Path) -> Path:
    """A run folder in which every command has left its files."""
    run = world / "complete"
    shutil.copytree(world / "OLD", run)
    with contextlib.chdir(world):
        where = f"--run_dir={run}"
        assert main(["fit", where, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
        assert main(["validate", where]) == 0
        assert main(["test", where]) == 0
        assert main(["predict", where, "--data.root=NEW"]) == 0
    return run


@pytest.fixture
def place(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own copy of the world to run in; modules imported from it are forgotten."""
    folder = tmp_path / "place"
    shutil.copytree(world, folder, ignore=shutil.ignore_patterns("complete"))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("my_"):
            del sys.modules[name]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that the blocks of a page are."""
    for block in BLOCKS:
        if block.page == page and block.file_name:
            (folder / block.file_name).write_text(block.text, "utf-8")


def made_small(words: list[str]) -> list[str]:
    """Return options that make a fit tiny; behind the others they win."""
    line = " ".join(words)
    small = ["--minutes=null"] if "--minutes" in words else []
    small += [*TINY, "--data.num_workers=0", "--trainer.devices=1", "--trainer.strategy=auto"]
    epochs = 2 if "last" in words else 1  # OLD has one already
    small += ["--trainer.precision=32-true", f"--trainer.max_epochs={epochs}"]
    if "logger" in line:
        small.remove("--trainer.logger=false")
    # A network of the page's own, or the one that the recipe's callback is made for.
    of_its_own = {"configs/bee_wasp_quick.yaml", "configs/bee_wasp_transfer.yaml"}
    if "--init_from" in words:  # OLD is a SmallResNet of the default pooling
        small.append("--model.net.pooling=mean")
    elif "--model.net" in words or of_its_own & set(words):
        small = [word for word in small if not word.startswith("--model.net")]
    if "--data.root" not in words and "--data.source" not in words and "last" not in words:
        if "configs/demo.yaml" in words:
            small += ["--data.source.train_per_class=4", "--data.source.test_per_class=2"]
        else:
            small.append("--data.root=DATA")  # instead of a download
    return small


def prepared(words: list[str], folder: Path) -> list[str]:
    """Set up RUN as the command expects it, and return the command's words, made small."""
    if {"--help", "--print_config"} & set(words) or any(w.endswith(".help") for w in words):
        return words
    if words[0] != "fit":
        shutil.copytree(folder / "OLD", folder / "RUN")
        return words
    if "last" in words:
        shutil.copytree(folder / "OLD", folder / "RUN")
    elif "--run_dir" in words:
        target = folder / words[words.index("--run_dir") + 1]
        shutil.rmtree(target, ignore_errors=True)
    return [*words, *made_small(words)]


@pytest.mark.cli
@pytest.mark.parametrize("command", RUN_HERE, ids=str)
def test_commands_end_well(
    command: Command,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_files(command.block.page, place)
    for name, value in command.settings:
        monkeypatch.setenv(name, value)
    assert command.arguments is not None
    code = main(prepared(command.arguments, place))
    assert code == 0, f"{command.block}: {capsys.readouterr().err}"


@pytest.mark.cli
@pytest.mark.parametrize("command", [c for c in COMMANDS if c.other_module], ids=str)
def test_other_commands_end_well(
    command: Command,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("_measure", "_probe"):  # minutes; tests/test_bench.py and tests/test_pace.py
        monkeypatch.setattr(bench, name, lambda *_: ({}, []))
    if "RUN" in command.words:
        shutil.copytree("OLD", "RUN")
    monkeypatch.setattr(watch, "serve", lambda *_: None)  # for ever; tests/test_watch.py
    monkeypatch.setattr(serve, "_serve", lambda *_: None)  # likewise; tests/cli/test_serve.py
    module = importlib.import_module(str(command.other_module))
    assert module.main(list(command.words[3:])) == 0, capsys.readouterr().err


def test_no_command_goes_untested() -> None:
    """A new command is run, or stands in NOT_RUN with a reason; nothing stands there in vain."""
    others = [c for c in COMMANDS if c.arguments is None and c.other_module is None]
    untested = [str(c) for c in others if c.reason_not_run is None]
    assert untested == []
    lines = [" ".join(c.words) for c in COMMANDS]
    assert [start for start in NOT_RUN if not any(x.startswith(start) for x in lines)] == []


def test_commands_stand_in_blocks() -> None:
    """A command inside a sentence, or in a block of another language, would not be run."""
    hidden = [
        f"{page.name}: {span}"
        for page in PAGES
        for span in spans_of(page)
        if re.search(r"src\.train \w", span)
    ]
    hidden += [str(b) for b in BLOCKS if b.language in ("text", "yaml") and "src.train" in b.text]
    assert hidden == []


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert [str(block) for block in BLOCKS if block.language not in LANGUAGES] == []


def test_launchers_words_are_options(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [list(c.words) for c in COMMANDS if c.words[0] in ("torchrun", "srun")]
    assert lines
    for words in lines:
        start = words.index("src.train") + 1
        assert main([*words[start:], "--print_config"]) == 0, capsys.readouterr().err


@pytest.mark.cli
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_run(page: Path, place: Path) -> None:
    """The unnamed ones of a page in their order, in one folder; each starts with empty hands."""
    write_files(page, place)
    for block in BLOCKS:
        if block.page != page or block.language != "python":
            continue
        padding = "\n" * (block.line - 1)  # so that a traceback names the page's line
        code = compile(padding + block.text, str(page), "exec")
        exec(code, {"__name__": block.file_name.removesuffix(".py") or "__main__"})


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "yaml"], ids=str)
def test_yaml_blocks_are_configs(
    block: Block, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(block.page, place)
    Path("block.yaml").write_text(block.text, "utf-8")
    words = ["fit", "--config", "block.yaml", "--data.root", "DATA", "--print_config"]
    code = main(words)
    assert code == 0, f"{block}: {capsys.readouterr().err}"
    specs = (yaml.safe_load(block.text).get("data") or {}).get("augment")
    if specs:
        Augmentation(specs, seed=0)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "csv"], ids=str)
def test_csv_blocks_are_tables(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "block.csv"
    path.write_text(block.text, "utf-8")
    assert read_table(path, ["path", "label"])


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def unknown_targets(text: str) -> list[str]:
    """Return the `make X` in code, a block or a span, of which the Makefile has no X."""
    code = re.findall(r"```.*?```|`[^`]+`", text, re.DOTALL)
    named = re.findall(r"\bmake ([a-z]+)", "\n".join(code))
    return sorted(set(named) - make_targets())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    assert unknown_targets(page.read_text("utf-8")) == []


def test_make_fit_is_the_command_of_the_readme() -> None:
    rule = re.search(r"^fit:.*\n\t@?\$\(VENV_PYTHON\) (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert rule is not None
    words = shlex.split(rule[1].replace("$(ARGS)", ""))
    assert (".venv/bin/python", *words) in {c.words for c in COMMANDS}


def broken_links(page: Path, text: str) -> list[str]:
    """Return the links of a page that lead nowhere; those to other machines are not followed."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    return broken


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, page.read_text("utf-8")) == []


def test_every_page_is_linked_from_the_readme() -> None:
    text = PAGES[0].read_text("utf-8")
    assert [page.name for page in PAGES[1:] if f"(docs/{page.name})" not in text] == []


def missing_files(spans: Iterable[str], known: set[str]) -> list[str]:
    """Return the files and folders among code spans that are neither here nor in `known`."""
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"runs"}
    missing = []
    for span in spans:
        top = span.split("/")[0].split(".csv")[0]
        looks_like_path = re.fullmatch(r"[\w.-]+(/[\w.-]*)*", span) is not None
        suffix = Path(span).suffix in (".py", ".yaml", ".md", ".json", ".csv", ".ckpt", ".toml")
        if not looks_like_path or not (suffix or ("/" in span and top in rooms)):
            continue
        if top in PLACEHOLDERS or span in known or (ROOT / span).exists():
            continue
        missing.append(span)
    return missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_in_the_text_exist(page: Path, complete_run: Path) -> None:
    in_run = tree(complete_run)
    known = in_run | {Path(name).name for name in in_run} | {CrashCheckpoint(ROOT).path.name}
    known |= {block.file_name for block in BLOCKS if block.page == page} | {repeat.RESULT, PLAN}
    known |= {"find_lr.csv", "find_lr.svg", "test_flips.json", "test_flips.csv"}
    known |= {"tables/worst.json", "audit.json", "bundle.json"}
    assert missing_files(spans_of(page), known) == []


def test_architecture_names_every_room() -> None:
    rooms = [*ROOT.glob("src/*.py"), *ROOT.glob("src/data/*.py")]
    names = {path.relative_to(ROOT).as_posix() for path in rooms} - {"src/data/__init__.py"}
    assert sorted(names - set(spans_of(ROOT / "docs/architecture.md"))) == []


def unimportable(text: str) -> list[str]:
    """Return the dotted names of known packages that name nothing."""
    names = set(re.findall(r"\b(?:src|callbacks|albumentations|lightning|torch)(?:\.\w+)+", text))
    return sorted(name for name in names if not importable(name))


def importable(name: str) -> bool:
    module, parts = name, list[str]()
    while module:
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            parts.insert(0, last)
            continue
        for part in parts:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_class_paths_name_something(page: Path) -> None:
    assert unimportable(page.read_text("utf-8")) == []


@pytest.fixture(scope="module")
def options() -> set[str]:
    """Every option of every command, as --help lists them."""
    modules = (
        audit, bench, compare, export, predict, repeat, report, serve, verify_resume, watch
    )  # fmt: skip
    others = "".join(module.parser().format_help() for module in modules)
    found = set(re.findall(r"--([a-z_0-9]+)", others))
    for command in ("fit", "test"):
        text = io.StringIO()
        with contextlib.redirect_stdout(text):
            assert main([command, "--help"]) == 0
        found |= set(re.findall(r"--([a-z_]+(?:\.[a-z_]+)*)", text.getvalue()))
    return found


def unknown_options(prose: str, options: set[str]) -> list[str]:
    """Return the options and dotted keys in sentences and tables that the program lacks."""
    named = re.findall(r"(?<![\w-])--([a-z_0-9]+(?:\.[a-z_]+)*)", prose)
    files = r"model\.(?:onnx|safetensors|fp16|int8)"  # of a bundle
    named += re.findall(rf"`(?!{files})((?:data|model|trainer)\.[a-z_]+)", prose)
    return sorted(set(named) - options - {"trainer.fit"})  # which is a method of Lightning's


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_text_exist(page: Path, options: set[str]) -> None:
    assert unknown_options(prose_of(page), options) == []


@pytest.mark.parametrize("name", ["test.json", "summary.json", "metrics.csv"])
def test_keys_are_those_of_the_files(name: str, complete_run: Path) -> None:
    page = ROOT / "docs/python.md"
    row = re.search(rf"^\| `{re.escape(name)}` \| (.*) \|$", prose_of(page), re.MULTILINE)
    assert row is not None
    text = (complete_run / name).read_text("utf-8")
    there = text.splitlines()[0].split(",") if name.endswith("csv") else json.loads(text)
    assert set(re.findall(r"`([^`]+)`", row[1])) == set(there)


class TestTheChecksCanFail:
    """Each check sees the mistake that it is there for."""

    @pytest.mark.parametrize(
        ("found", "expected"),
        [
            (unknown_targets("`make tset`"), ["tset"]),
            (broken_links(ROOT / "README.md", "[a](docs/dta.md)"), ["docs/dta.md"]),
            (
                broken_links(ROOT / "README.md", "[a](docs/data.md#splitz)"),
                ["docs/data.md#splitz"],
            ),
            (
                missing_files(["src/clii.py", "tset.json"], {"test.json"}),
                ["src/clii.py", "tset.json"],
            ),
            (unimportable("src.models.SmalResNet torch.optim.SGD"), ["src.models.SmalResNet"]),
            (
                unknown_options("`--data.rot` `data.rooot`", {"data.root"}),
                ["data.rooot", "data.rot"],
            ),
        ],
        ids=["target", "link", "anchor", "file", "class path", "option"],
    )
    def test_on_text(self, found: list[str], expected: list[str]) -> None:
        assert found == expected

    def test_on_commands(self) -> None:
        block = Block(PAGES[0], 1, "sh", "python -m src.train fit\\\n --x 1 # why\nrm -r runs\n")
        ours, other = commands_of(block)
        assert ours.arguments == ["fit", "--x", "1"]
        assert other.arguments is None and other.reason_not_run is None

    def test_on_options_behind_a_command(self, place: Path) -> None:
        words = ["fit", "--config", "configs/demo.yaml", "--data.batchsize", "3"]
        assert main(prepared(words, place)) == 2
