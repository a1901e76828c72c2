"""The world that every test lives in: no network, no account, no cache of the user's.

Imported before anything that a test imports, so it stays light: no torch, no lightning.
"""

import os
import socket
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from src.cores import usable_cores

ROOT = Path(__file__).resolve().parent.parent

# A reason to skip that holds one of these stays a skip under WAGGLE_NO_SKIP=1: no set-up can
# bring what is missing. Every other skip there is an extra or a program that CI has to install.
EXCUSES = ("no photographs", "no GPU", "not on this system")

# What a machine may carry that would change a test: accounts, seeds, ranks, schedulers.
DROPPED = ("WANDB_", "PL_", "SLURM_", "BATCH_", "MASTER_", "TORCHELASTIC_")
DROPPED_NAMES = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "GROUP_RANK", "LOCAL_WORLD_SIZE")

LOOPBACK = ("localhost", "::1", "127.")


class NetworkUsedError(Exception):
    """A test reached for a machine other than this one."""


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment of this process and of every program that a test starts."""
    home = tempfile.TemporaryDirectory(prefix="waggle-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(home.cleanup)
    patch = pytest.MonkeyPatch()
    config.add_cleanup(patch.undo)
    for name in list(os.environ):
        if name.startswith(DROPPED) or name in DROPPED_NAMES:
            patch.delenv(name)
    if among := getattr(config, "workerinput", {}).get("workercount"):  # of pytest-xdist
        # torch in each would take all cores, and they would fight for them
        patch.setenv("OMP_NUM_THREADS", str(max(1, usable_cores() // among)))
    patch.setenv("XDG_CACHE_HOME", f"{home.name}/cache")
    patch.setenv("WANDB_CACHE_DIR", f"{home.name}/wandb-cache")
    patch.setenv("WANDB_CONFIG_DIR", f"{home.name}/wandb-config")
    patch.setenv("WANDB_DATA_DIR", f"{home.name}/wandb-data")
    patch.setenv("WANDB_MODE", "offline")
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setenv("WAGGLE_REPORT", "false")  # some seconds a fit; a test of it says --report true
    # Nothing listens on port 1: what a started program asks of the network is refused at once.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        patch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        patch.setenv(name, "localhost,127.0.0.1,::1")
    close_network(patch)


def close_network(patch: pytest.MonkeyPatch) -> None:
    """Make every look-up of and connection to another machine raise NetworkUsedError."""

    def allowed(host: object) -> bool:
        host = host.decode() if isinstance(host, bytes) else host
        return host is None or str(host).startswith(LOOPBACK) or host in ("", socket.gethostname())

    def guarded(function: Any, host_of: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args, **kwargs)
            if not allowed(host):
                raise NetworkUsedError(f"a test asked for {host!r}; tests may reach 127.0.0.1 only")
            return function(*args, **kwargs)

        return call

    def address_host(sock: socket.socket, address: Any) -> Any:
        return address[0] if sock.family in (socket.AF_INET, socket.AF_INET6) else None

    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), address_host))
    lookup = guarded(socket.getaddrinfo, lambda host, *args, **kwargs: host)
    patch.setattr(socket, "getaddrinfo", lookup)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the campaigns out, however the tests are chosen, unless `-m` names them."""
    if "campaign" in config.getoption("markexpr"):
        return
    campaigns = [item for item in items if item.get_closest_marker("campaign")]
    if campaigns:
        config.hook.pytest_deselected(items=campaigns)
        items[:] = [item for item in items if item not in campaigns]


def unexcused(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Return why a skip is a failure here, or None if it is none or may stand."""
    if os.environ.get("WAGGLE_NO_SKIP") != "1" or not report.skipped:
        return None
    if hasattr(report, "wasxfail"):
        return None
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if any(excuse in reason for excuse in EXCUSES):
        return None
    return f"WAGGLE_NO_SKIP=1: nothing may be missing here, but the test says: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn an unexcused skip of a test into a failure."""
    report = yield
    if message := unexcused(report):
        report.outcome, report.longrepr = "failed", message
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn an unexcused skip of a whole file into a failure."""
    report = yield
    if message := unexcused(report):
        report.outcome, report.longrepr = "failed", message
    return report


@pytest.fixture(scope="session")
def bee_wasp_root() -> Path:
    """Return the folder of real photographs; skip where there is none."""
    named = os.environ.get("BEE_WASP_ROOT")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "bee-wasp"
    if named and not folder.is_dir():
        pytest.fail(f"BEE_WASP_ROOT={named} is no folder")
    if not folder.is_dir():
        pytest.skip("no photographs: set BEE_WASP_ROOT, or put them in ../shared/data/bee-wasp")
    return folder
