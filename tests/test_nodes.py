"""Several machines: torchrun's agents and SLURM's tasks, each on its own, here on one machine."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from src import hardware
from src.errors import UserError
from tests.cli.conftest import make_pictures
from tests.cli.test_fit import assert_same_run, last
from tests.helpers import ROOT
from tests.test_ddp import SLOWLY, TRAIN, end, kill, odd_pictures, start, wait_until

MULTINODE = [
    f"--config={ROOT / 'configs/trainer/multinode.yaml'}",
    "--trainer.accelerator=cpu",
    "--trainer.devices=1",
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Agents = Callable[..., list[subprocess.Popen[str]]]
WIRE = "wire0"  # the only way from one to the other


@pytest.fixture(scope="module")
def apart() -> Iterator[list[str]]:
    """Two network namespaces joined by a wire; none where this user may not make them."""
    names = [f"waggle-{os.getpid()}-{rank}" for rank in (0, 1)]
    lines = [f"ip netns add {name}" for name in names]
    lines += [f"ip link add {WIRE} netns {names[0]} type veth peer name {WIRE} netns {names[1]}"]
    for rank, name in enumerate(names):
        lines += [f"ip -n {name} address add {address(rank)}/24 dev {WIRE}"]
        lines += [f"ip -n {name} link set {device} up" for device in ("lo", WIRE)]
        lines += [f"ip netns exec {name} true"]
    script = "set -e; " + "; ".join(lines)
    made = subprocess.run(["sh", "-c", script], capture_output=True, check=False).returncode == 0
    yield names if made else []
    for name in names:
        subprocess.run(["sh", "-c", f"ip netns delete {name}"], capture_output=True, check=False)


def address(rank: int) -> str:
    return f"10.77.77.{rank + 1}"


@pytest.fixture(scope="module")
def two_nodes(apart: list[str]) -> Agents:
    """Start the program by two agents of torchrun, one process each, on networks of their own."""

    def started(*words: str, **env: str) -> list[subprocess.Popen[str]]:
        host = address(0) if apart else "127.0.0.1"
        agent = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
        agent += [f"--master-addr={host}", f"--master-port={29500 if apart else free_port()}"]
        nodes = []
        for rank in (0, 1):
            inside = ("ip", "netns", "exec", apart[rank]) if apart else ()
            wire = {"GLOO_SOCKET_IFNAME": WIRE} if apart else {}
            program = [*agent, f"--node-rank={rank}", "-m", "src.train", *words]
            nodes.append(start(*program, inside=inside, **wire, **env))
        return nodes

    return started


def test_the_nodes_are_apart(apart: list[str]) -> None:
    """One does not see what the other listens to, but over the wire."""
    if not apart:
        pytest.skip("not on this system: network namespaces; two agents share one network")
    look = "import socket; socket.create_connection((%r, 29501), 5).close()"
    serve = "import socket; s = socket.create_server(('', 29501)); print(1, flush=True); s.accept()"
    for host, code in ((address(0), 0), ("127.0.0.1", 1)):
        served = start("-c", serve, inside=("ip", "netns", "exec", apart[0]))
        assert served.stdout is not None and served.stdout.readline() == "1\n"
        looking = start("-c", look % host, inside=("ip", "netns", "exec", apart[1]))
        end(looking, code=code)
        kill(served)


def two_tasks(*words: str, **env: str) -> list[subprocess.Popen[str]]:
    """Start the program as srun would, with what it tells two tasks on two machines."""
    job = {
        "SLURM_JOB_ID": "1234", "SLURM_JOB_NAME": "waggle", "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0",
        "SLURM_NODELIST": "127.0.0.1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}",
    }  # fmt: skip
    tasks = ({"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1))
    return [start("-m", "src.train", *words, **job, **task, **env) for task in tasks]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return odd_pictures(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(root: Path, two_nodes: Agents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on two nodes that nobody disturbed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    started = two_nodes("fit", *TRAIN, *MULTINODE, f"--data.root={root}", f"--run_dir={run}")
    (first, _), (second, _) = (end(one) for one in started)
    assert first.rstrip().splitlines()[-1] == str(run)
    assert str(run) not in second
    return run


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="not on this system: /proc")
def test_two_nodes_killed_and_gone_on_with_are_the_whole_run(
    whole: Path, root: Path, two_nodes: Agents, tmp_path: Path
) -> None:
    run = tmp_path / "killed"
    words = ["fit", *TRAIN, *MULTINODE, f"--data.root={root}", f"--run_dir={run}"]
    words += ["--ckpt_path=auto", "--checkpoint_every_steps=1"]
    killed = two_nodes(*words, **SLOWLY)
    wait_until((run / "checkpoints/last.ckpt").exists, *killed)
    kill(*killed)
    assert {one.returncode for one in killed} == {-signal.SIGKILL}
    assert last(run)["global_step"] < 12
    assert not (run / "summary.json").exists()
    for one in two_nodes(*words):
        end(one)
    assert_same_run(whole, run)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="not on this system: SIGUSR1")
def test_a_slurm_job_is_queued_again_and_goes_on(whole: Path, root: Path, tmp_path: Path) -> None:
    """The same command serves both sittings; the signal comes to all tasks, as from sbatch."""
    run, asked = tmp_path / "job", tmp_path / "asked"
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    scontrol.chmod(0o755)
    words = ["fit", f"--config={ROOT / 'configs/trainer/slurm.yaml'}", *TRAIN, *MULTINODE[1:]]
    words += ["--trainer.num_nodes=2", f"--data.root={root}", f"--run_dir={run}"]
    words += ["--ckpt_path=auto", "--checkpoint_every_steps=1"]
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    stopped = two_tasks(*words, **env, **SLOWLY)
    wait_until((run / "checkpoints/last.ckpt").exists, *stopped)
    for one in stopped:
        one.send_signal(signal.SIGUSR1)
    for one in stopped:
        end(one, code=143)
    assert asked.read_text().splitlines() == ["requeue 1234"]
    assert last(run)["global_step"] < 12
    for one in two_tasks(*words, **env):
        end(one)
    assert_same_run(whole, run)


SCAN = """
import sys, time
from pathlib import Path
from src.data import scans

decoded, real = 0, scans.scan_file
def slow(path, keep):
    global decoded
    decoded += 1
    time.sleep(0.05)
    return real(path)
scans.scan_file = slow
print("ready", flush=True)
sys.stdin.readline()
root = Path(sys.argv[1])
found = scans.scan(root, sorted(str(p.relative_to(root)) for p in root.rglob("*.png")))
print(decoded, len(found), sum(len(scan.hash) for scan in found))
"""


def test_processes_that_start_together_decode_each_picture_once(tmp_path: Path) -> None:
    root = make_pictures(tmp_path / "pictures", {"": 10})
    pipe = subprocess.PIPE
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCAN, str(root)],
            cwd=ROOT,
            stdin=pipe,
            stdout=pipe,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
        )
        for _ in range(3)
    ]
    for one in started:
        assert one.stdout is not None and one.stdout.readline() == "ready\n"
    for one in started:
        assert one.stdin is not None
        one.stdin.write("go\n")
        one.stdin.flush()
    printed = [one.communicate(timeout=60)[0].split() for one in started]
    assert sum(int(words[0]) for words in printed) == 20
    assert [words[1:] for words in printed] == [["20", "640"]] * 3  # 32 digits each


@pytest.fixture
def locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache folder in which no lock can be made."""
    (tmp_path / "cache/waggle").mkdir(parents=True)
    (tmp_path / "cache/waggle/scan_locks").write_text("a file, and no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("locked")
def test_without_a_lock_each_process_decodes_for_itself(tmp_path: Path) -> None:
    from src.data.scans import scan

    root = make_pictures(tmp_path / "pictures", {"": 1}, ("ant",))
    assert [found.error for found in scan(root, ["ant/0.png"])] == [""]


def options(devices: object = 2, num_nodes: int = 1) -> Any:
    return SimpleNamespace(
        accelerator="cpu", devices=devices, num_nodes=num_nodes, precision="32-true"
    )


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "1"}
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_JOB_NAME": "w",
}  # fmt: skip


class TestTheLauncherAndTheConfig:
    def env(self, monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> None:
        for name, value in env.items():
            monkeypatch.setenv(name, value)

    @pytest.mark.parametrize(
        ("env", "given"),
        [
            ({}, options(4)),  # the program starts them itself
            (TORCHRUN, options(2)),
            (TORCHRUN, options("2")),
            (TORCHRUN, options([0, 1])),
            (TORCHRUN, options("0,1")),
            (TORCHRUN | {"LOCAL_WORLD_SIZE": "1"}, options("auto")),  # one, on a CPU
            (TORCHRUN | {"GROUP_WORLD_SIZE": "3"}, options(2, 3)),
            (SLURM, options(2, 2)),
            (SLURM | {"SLURM_JOB_NAME": "interactive"}, options(4)),
            ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1"}, options(1)),
            (SLURM | TORCHRUN, options(2)),  # torchrun inside a SLURM job
        ],
    )
    def test_they_agree(
        self, env: dict[str, str], given: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.env(monkeypatch, env)
        hardware.check(given)

    @pytest.mark.parametrize(
        ("env", "given", "message"),
        [
            (
                TORCHRUN,
                options(1),
                r"^--trainer\.devices 1: torchrun started 2 process\(es\) on a machine\. "
                r"Give --trainer\.devices 2, or --nproc-per-node 1\.$",
            ),
            (TORCHRUN, options([0]), r"--trainer\.devices \[0\]: torchrun started 2"),
            (TORCHRUN, options("auto"), r"devices auto: .* or --nproc-per-node 1\.$"),
            (
                # Lightning takes this: the product is right
                TORCHRUN | {"GROUP_WORLD_SIZE": "2", "WORLD_SIZE": "4"},
                options(4, 1),
                r"--trainer\.devices 4: torchrun started 2",
            ),
            (
                TORCHRUN | {"GROUP_WORLD_SIZE": "2"},
                options(2, 1),
                r"^--trainer\.num_nodes 1: torchrun started 2 machine\(s\)\. "
                r"Give --trainer\.num_nodes 2, or --nnodes 1\.$",
            ),
            (SLURM, options(4, 2), r"devices 4: SLURM started 2 .* or --ntasks-per-node 4\.$"),
            (SLURM, options(2, 1), r"num_nodes 1: SLURM started 2 machine\(s\)\. .* --nodes 1\.$"),
            ({"SLURM_NTASKS": "1"}, options(2), r"devices 2: SLURM started 1 process"),
            (
                {"SLURM_NTASKS": "4", "SLURM_NNODES": "2"},
                options(2, 2),
                r"^SLURM does not say how many process\(es\) on a machine it started\. "
                r"Write --ntasks-per-node 2 into the script instead of --ntasks\.$",
            ),
        ],
    )
    def test_they_differ(
        self, env: dict[str, str], given: Any, message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.env(monkeypatch, env)
        with pytest.raises(UserError, match=message):
            hardware.check(given)

    @pytest.mark.slow
    def test_one_message_and_exit_2_on_all_of_them(self, tmp_path: Path) -> None:
        run = tmp_path / "run"
        agent = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        words = ("fit", "--trainer.accelerator=cpu", "--trainer.devices=1", f"--run_dir={run}")
        _, err = end(start(*agent, "-m", "src.train", *words), code=1)  # torchrun's own code
        assert err.count("error: --trainer.devices 1: torchrun started 2") == 1
        assert "exitcode  : 2" in err and "exitcode  : 1 " not in err
        assert not run.exists()
