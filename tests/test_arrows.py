"""What may import what: the arrows of the architecture, read from the source with `ast`.

The first tables are the rule. A new room gets a line here, and a reason in its pull request.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT

# Importable from everywhere; they import nothing of ours (`src` itself holds the version).
FOUNDATIONS = {"src", "src.errors", "src.preprocess"}

# What `src` itself starts before any library; it imports nothing of ours.
STARTED_BY_SRC = "src.torchvision_care"

# room -> the rooms it may import, besides itself and the foundations. A room is a module, or a
# package with all its modules; inside src.data every module is a room of its own.
ARROWS: dict[str, set[str]] = {
    STARTED_BY_SRC: set(),
    "src.train": {"src.cli", "src.failures"},
    "src.cli": {
        "src.going_on",
        "src.checkpoint",
        "src.classifier",
        "src.config_check",
        "src.data.datamodule",
        "src.data.find",
        "src.failures",
        "src.fitting",
        "src.hardware",
        "src.loop",
        "src.memory",
        "src.options",
        "src.quiet",
        "src.run",
        "src.run_rules",
        "src.scoring",
        "src.settling",
        "src.trust",
        "src.best_net",
        "src.explained",
    },
    # What cli.py is divided into.
    "src.fitting": {
        "src.rows",
        "src.child",
        "src.hardware",
        "src.checkpoint",
        "src.class_weights",
        "src.classifier",
        "src.data.datamodule",
        "src.data.find",
        "src.data.inspection",
        "src.intervals",
        "src.loop",
        "src.results",
        "src.run",
        "src.run_rules",
        "src.table",
    },
    "src.optimizing": {"src.param_groups"},
    "src.muon": set(),
    "src.scoring": {
        "src.checkpoint",
        "src.classifier",
        "src.data.datamodule",
        "src.memory",
        "src.results",
        "src.run_rules",
        "src.scored",
        "src.seal",
    },
    "src.best_net": {"src.models"},
    "src.explained": {"src.config_check"},
    "src.settling": {
        "src.best_net",
        "src.budget",
        "src.classifier",
        "src.config_check",
        "src.data.datamodule",
        "src.data.trial",
        "src.data.workers",
        "src.find_lr",
        "src.pace",
        "src.run",
        "src.run_rules",
    },
    "src.budget": {"src.pace"},
    "src.find_lr": {"src.pace"},
    "src.going_on": {
        "src.checkpoint",
        "src.drift",
        "src.loop",
        "src.resume",
        "src.run",
        "src.run_rules",
    },
    "src.drift": {"src.config_check", "src.hardware"},
    "src.results": {"src.calibration", "src.metrics", "src.run", "src.scored", "src.table"},
    "src.scored": {"src.calibration", "src.rows", "src.run", "src.seal", "src.table"},
    "src.resume": {"src.checkpoint", "src.run"},
    "src.run_rules": {"src.resume", "src.config_check", "src.run", "src.trust"},
    "src.config_check": set(),
    "src.failures": set(),
    "src.hardware": set(),
    "src.memory": set(),
    "src.pace": set(),
    "src.options": set(),
    "src.quiet": set(),
    "src.trust": set(),
    # The network and its training; it never imports data.
    "src.train_metrics": set(),
    "src.classifier": {
        "src.calibration",
        "src.checkpoint",
        "src.class_weights",
        "src.evaluation",
        "src.metrics",
        "src.models",
        "src.optimizing",
        "src.param_groups",
        "src.schedules",
        "src.table",
        "src.train_metrics",
        "src.trust",
    },
    "src.evaluation": {"src.table"},
    "src.class_weights": set(),
    "src.models": set(),
    "src.param_groups": set(),
    "src.schedules": set(),
    "src.counting": {"src.intervals", "src.table"},
    "src.score_intervals": {"src.calibration", "src.counting", "src.intervals", "src.table"},
    "src.metrics": {
        "src.calibration",
        "src.counting",
        "src.intervals",
        "src.score_intervals",
        "src.table",
    },
    "src.calibration": {"src.roots", "src.table"},
    "src.intervals": set(),
    "src.table": set(),
    # The run and what surrounds the training step.
    "src.loop": {"src.metrics", "src.rows", "src.run", "src.checkpoint", "src.seal"},
    "callbacks": {
        "src.calibration",
        "src.counting",
        "src.metrics",
        "src.mistakes",
        "src.param_groups",
        "src.run",
        "src.scored",
        "src.table",
    },
    "src.rows": set(),
    "src.run": {"src.checkpoint"},
    "src.checkpoint": {"src.seal"},
    "src.seal": set(),
    # What commands share.
    "src.sameness": {"src.checkpoint", "src.run"},
    "src.sitting": {"src.checkpoint", "src.child", "src.run"},
    "src.child": {"src.data.home"},
    "src.paired": {"src.intervals", "src.roots"},
    "src.verdicts": {"src.intervals", "src.paired", "src.scored"},
    "src.spread": {"src.roots"},
    "src.roots": set(),
    "src.repetition": {"src.config_check", "src.run", "src.scored", "src.spread"},
    "src.probe": {"src.pace"},
    "src.startup": {"src.cases", "src.pace", "src.run", "src.sitting"},
    "src.cases": {"src.config_check", "src.data.datamodule", "src.models"},
    "src.busy": set(),
    "src.bench_report": {"src.cases", "src.cores", "src.probe"},
    "src.measure": {
        "src.busy",
        "src.cases",
        "src.classifier",
        "src.pace",
        "src.data.datamodule",
        "src.data.dataset",
        "src.loop",
        "src.run",
        "src.settling",
    },
    "src.followed": {"src.rows"},
    "src.watched": {"src.followed", "src.run"},
    # The exported model: read without torch, and written.
    "src.bundle_record": set(),
    "src.cores": set(),
    "src.bundle": {"src.bundle_record", "src.cores", "src.validation_file"},
    "src.validation_file": set(),
    "src.inputs": {"src.data.folders", "src.data.tables", "src.predicted"},
    "src.predicted": {"src.rows"},
    "src.occlusion": set(),
    "src.batcher": {"src.bundle"},
    "src.uploads": set(),
    "src.limits": set(),
    "src.unread": set(),
    "src.answers": set(),
    "src.served_model": {
        "src.answers",
        "src.batcher",
        "src.bundle",
        "src.cores",
        "src.occlusion",
        "src.uploads",
    },
    "src.api": {"src.answers", "src.bundle", "src.limits", "src.served_model", "src.uploads"},
    "src.onnx_file": {"src.bundle"},
    "src.variants": {"src.bundle", "src.onnx_file"},
    "src.staged": set(),
    "src.known": {"src.data.dataset", "src.table"},
    "src.parity": {"src.bundle", "src.calibration", "src.intervals", "src.known"},
    "src.bundle_files": {
        "src.bundle",
        "src.bundle_record",
        "src.calibration",
        "src.data.index",
        "src.forward",
        "src.known",
        "src.run",
    },
    # What a report is made of.
    "src.heat": set(),
    "src.mistakes": {"src.calibration", "src.table"},
    "src.plots": {"src.intervals"},
    "src.forward": {"src.data.dataset", "src.data.sampler", "src.table"},
    "src.trained": {
        "src.classifier",
        "src.data.dataset",
        "src.data.decoded",
        "src.data.index",
        "src.data.transforms",
        "src.data.workers",
        "src.forward",
        "src.missing",
        "src.run",
        "src.run_rules",
        "src.scored",
    },
    "src.missing": set(),
    "src.opened": {
        "src.followed",
        "src.missing",
        "src.rows",
        "src.run",
        "src.run_rules",
        "src.trained",
        "src.trust",
    },
    "src.shortcut": {"src.forward", "src.intervals", "src.judged"},
    "src.slices": {"src.intervals"},
    "src.judged": {
        "src.calibration",
        "src.classifier",
        "src.data.dataset",
        "src.data.looks",
        "src.forward",
        "src.heat",
        "src.mistakes",
        "src.table",
        "src.trained",
    },
    "src.report_parts": {"src.missing"},
    "src.report_run": {"src.data.index", "src.plots", "src.report_parts", "src.trained"},
    "src.report_scores": {
        "src.calibration",
        "src.data.index",
        "src.judged",
        "src.metrics",
        "src.plots",
        "src.report_parts",
        "src.shortcut",
        "src.slices",
    },
    "src.report_pictures": {
        "src.data.dataset",
        "src.data.decoded",
        "src.forward",
        "src.heat",
        "src.judged",
        "src.pages",
        "src.report_parts",
        "src.run",
        "src.trained",
    },
    "src.comparison": {
        "src.missing",
        "src.pages",
        "src.plots",
        "src.report_parts",
        "src.report_run",
        "src.run",
        "src.scored",
        "src.trained",
        "src.verdicts",
    },
    # The data.
    "src.data": set(),
    "src.data.datamodule": {
        "src.data.audit",
        "src.data.cache",
        "src.data.dataset",
        "src.data.decoded",
        "src.data.find",
        "src.data.index",
        "src.data.kept",
        "src.data.loader",
        "src.data.sampler",
        "src.data.sources",
        "src.data.store",
        "src.data.transforms",
        "src.data.workers",
    },
    "src.data.trial": {
        "src.data.datamodule",
        "src.data.dataset",
        "src.data.decoded",
        "src.data.sampler",
        "src.data.workers",
    },
    "src.data.kept": {"src.data.home", "src.data.room"},
    "src.data.find": {
        "src.data.audit",
        "src.data.index",
        "src.data.sources",
        "src.data.split",
        "src.memory",
    },
    "src.data.workers": {"src.cores"},
    "src.data.dataset": {
        "src.data.index",
        "src.data.sampler",
        "src.data.segments",
        "src.data.transforms",
    },
    "src.data.cache": {
        "src.data.home",
        "src.data.index",
        "src.data.room",
        "src.data.scans",
        "src.data.segments",
        "src.data.store",
        "src.data.writer",
    },
    "src.data.store": {"src.data.home", "src.data.room", "src.data.segments"},
    "src.data.writer": {
        "src.data.home",
        "src.data.room",
        "src.data.segments",
        "src.data.store",
    },
    "src.data.room": {"src.data.home", "src.data.segments"},
    "src.data.decoded": {
        "src.data.audit",
        "src.data.cache",
        "src.data.index",
        "src.data.room",
        "src.data.segments",
        "src.data.writer",
    },
    "src.data.segments": set(),
    "src.data.home": set(),
    "src.data.audit": {"src.data.index", "src.data.remembered", "src.data.scans"},
    # What an audit looks at.
    "src.data.looks": {"src.data.kept", "src.data.scans"},
    "src.data.copies": {"src.data.looks", "src.data.matching", "src.data.ties"},
    "src.data.matching": {"src.data.looks"},
    "src.data.ties": set(),
    "src.data.findings": {"src.class_weights", "src.data.ties"},
    "src.data.oddities": {"src.data.findings", "src.data.looks", "src.data.remembered"},
    "src.data.fixing": {"src.data.findings", "src.data.tables"},
    "src.data.inspection": {
        "src.data.cache",
        "src.data.copies",
        "src.data.findings",
        "src.data.index",
        "src.data.kept",
        "src.data.looks",
        "src.data.oddities",
        "src.data.scans",
    },
    "src.doubt": {"src.data.findings", "src.run", "src.scored"},
    "src.pages": set(),
    "src.audit_page": {"src.data.findings", "src.data.inspection", "src.pages"},
    "src.data.scans": {"src.cores", "src.data.home", "src.data.remembered"},
    "src.data.remembered": {"src.memory"},
    "src.data.split": {"src.data.deal", "src.data.index"},
    "src.data.deal": set(),
    "src.data.index": {"src.data.listing", "src.data.tables"},
    "src.data.listing": {"src.data.folders", "src.data.tables"},
    "src.data.folders": {"src.data.tables"},
    "src.data.tables": set(),
    "src.data.sampler": set(),
    "src.data.loader": {"src.data.sampler", "src.data.workers"},
    "src.data.transforms": set(),
    "src.data.sources": {
        "src.data.download",
        "src.data.home",
        "src.data.insects",
        "src.data.unpack",
    },
    "src.data.download": set(),
    "src.data.unpack": set(),
    "src.data.insects": {"src.data.anatomy", "src.data.scenery"},
    "src.data.anatomy": {"src.data.scenery"},
    "src.data.scenery": set(),
}

# Every other module directly in src is a command: it may import any room, but none of these,
# and no other command.
NEVER_FROM_A_COMMAND = {"src.cli", "src.train"}

# Read the exported model with numpy and Pillow alone.
LIGHT = {
    "src.answers",
    "src.api",
    "src.batcher",
    "src.bundle",
    "src.bundle_record",
    "src.cores",
    "src.data.folders",
    "src.data.tables",
    "src.inputs",
    "src.limits",
    "src.occlusion",
    "src.predict",
    "src.predicted",
    "src.preprocess",
    "src.rows",
    "src.serve",
    "src.served_model",
    "src.uploads",
    "src.validation_file",
}
HEAVY = {"torch", "lightning", "pytorch_lightning", "torchmetrics", "albumentations", "cv2"}

# A file may come from a stranger: nothing here may run code that a file holds.
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
UNSAFE_ARGUMENTS = {("weights_only", False), ("allow_pickle", True)}

# (module, import) pairs that may use a private name of Lightning; empty is the aim.
PRIVATE_ALLOWED: set[tuple[str, str]] = set()


def imports_of(source: str, module: str, is_package: bool = False) -> Iterator[str]:
    """Yield each imported name in full: `from src.data import index` is `src.data.index`."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            parts = base + (node.module.split(".") if node.module else [])
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def room_of(name: str, modules: set[str]) -> str:
    """Return the room that an imported name lies in: the longest known one that it begins with."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        candidate = ".".join(parts[:length])
        if candidate in ARROWS or candidate in FOUNDATIONS - {"src"}:
            return candidate
        if candidate in modules and candidate.count(".") == 1 and parts[0] == "src":
            return candidate  # a command
    return parts[0]


def faults_of(source: str, module: str, modules: set[str], is_package: bool = False) -> list[str]:
    """Return a line for each import of this module that the tables forbid."""
    room = room_of(module, modules)
    command = room not in ARROWS and room not in FOUNDATIONS
    faults = []
    for name in imports_of(source, module, is_package):
        top = name.split(".")[0]
        other = room_of(name, modules)
        private = any(part.startswith("_") for part in name.split("."))
        if room in LIGHT and top in HEAVY:
            faults.append(f"{module} imports {name}: it has to run without {top}")
        elif top in {"lightning", "pytorch_lightning"} and private:
            if (module, name) not in PRIVATE_ALLOWED:
                faults.append(f"{module} imports {name}: private to Lightning")
        elif top == "tests" or (top == "callbacks" and room != "callbacks"):
            faults.append(f"{module} imports {name}: no room may import {top}")
        elif top not in {"src", "callbacks"} or other in (room, STARTED_BY_SRC):
            continue
        elif room in FOUNDATIONS:
            faults.append(f"{module} imports {name}: a foundation imports nothing of ours")
        elif other in FOUNDATIONS:
            continue
        elif command:
            if other in NEVER_FROM_A_COMMAND or other not in ARROWS:
                faults.append(f"{module} imports {name}: a command imports rooms alone")
        elif other not in ARROWS[room]:
            allowed = ", ".join(sorted(ARROWS[room])) or "no other room"
            faults.append(f"{module} imports {name}: {room} may import {allowed}")
    return faults


def unsafe_loads(source: str) -> list[str]:
    """Return a line for each import or argument that lets a loaded file run code."""
    nodes = list(ast.walk(ast.parse(source)))
    found = [name for name in imports_of(source, "") if name.split(".")[0] in UNSAFE_MODULES]
    found += [
        f"{word.arg}={word.value.value}"
        for node in nodes
        if isinstance(node, ast.Call)
        for word in node.keywords
        if isinstance(word.value, ast.Constant) and (word.arg, word.value.value) in UNSAFE_ARGUMENTS
    ]
    return found


def our_modules() -> dict[str, Path]:
    """Return the file of every module in src and callbacks, by its dotted name."""
    files = [path for top in ("src", "callbacks") for path in (ROOT / top).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
    }


def test_every_import_follows_an_arrow():
    modules = our_modules()
    assert {"src", "src.errors", "callbacks"} <= set(modules)
    faults = [
        fault
        for module, path in sorted(modules.items())
        for fault in faults_of(
            path.read_text(encoding="utf-8"), module, set(modules), path.name == "__init__.py"
        )
    ]
    assert not faults, "\n" + "\n".join(faults)


def test_nothing_loads_a_file_that_could_run_code():
    unsafe = {
        module: found
        for module, path in our_modules().items()
        if (found := unsafe_loads(path.read_text(encoding="utf-8")))
    }
    assert not unsafe


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_an_unsafe_load_is_found(line):
    assert len(unsafe_loads(line)) == 1
    assert unsafe_loads("torch.load(path, weights_only=True, hook=None)") == []


def test_every_data_module_has_its_line_in_the_table():
    data = {module for module in our_modules() if module.startswith("src.data.")}
    assert data <= set(ARROWS), f"no line in ARROWS for {sorted(data - set(ARROWS))}"


def test_the_table_itself_has_no_cycle():
    def reach(room: str, path: tuple[str, ...]) -> None:
        assert room not in path, " -> ".join([*path, room])
        for other in ARROWS[room]:
            reach(other, (*path, room))

    for room in ARROWS:
        reach(room, ())


MODULES = {"src", "src.report", "src.compare", "src.cli", "src.train", "src.classifier"}


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        (
            "src.classifier",
            "from src.data.index import Index",
            "may import src.calibration, src.ch",
        ),
        ("src.classifier", "from src.data import index", "src.data.index"),
        ("src.classifier", "from .data import index", "src.data.index"),
        ("src.classifier", "def f():\n    import src.cli", "src.cli"),
        ("src.loop.progress", "import callbacks.ema", "no room may import callbacks"),
        ("src.models.net", "from tests.helpers import ROOT", "no room may import tests"),
        ("src.models.net", "from src.metrics import Table", "may import no other room"),
        ("src.data.index", "from .dataset import Pictures", "src.data.dataset"),
        ("src.errors", "from src.preprocess import Rule", "a foundation"),
        ("src.preprocess", "import torch", "has to run without torch"),
        ("src.serve", "def f():\n    from lightning.pytorch import Trainer", "without lightning"),
        ("src.report", "from src.train import main", "a command imports rooms alone"),
        ("src.report", "from src import cli", "a command imports rooms alone"),
        ("src.report", "from src.compare import pairs", "a command imports rooms alone"),
        ("callbacks.ema", "from src.classifier import Classifier", "callbacks may import"),
        ("src.loop.a", "from lightning.fabric.utilities.types import _PATH", "private to"),
        ("src.loop.a", "import lightning.pytorch.loops._shared", "private to Lightning"),
    ],
)
def test_a_forbidden_import_is_found(module, line, fault):
    faults = faults_of(line, module, MODULES | {module})
    assert len(faults) == 1
    assert fault in faults[0]


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("src.train", "from src.cli import main"),
        ("src.loop.progress", "from src.loop.step_seed import StepSeed"),
        ("src.run", "from src import __version__"),
        ("src.report", "from src.metrics import Table\nfrom src.data import index"),
        ("callbacks.ema", "from callbacks.shared import x\nimport lightning.pytorch as pl"),
        ("src.data.dataset", "from src import preprocess\nfrom . import segments"),
        ("src.cli", "from lightning.pytorch.cli import LightningCLI\nimport typing"),
    ],
)
def test_an_allowed_import_passes(module, line):
    assert faults_of(line, module, MODULES | {module}) == []
