"""A job on a real Ray cluster of one node, on loopback; and what is said when there is none."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from app import jobs
from app.ray_jobs import dashboard_of
from ssl_core.errors import WorkspaceError
from ssl_core.rounds import run_round
from tests import toy

ROOT = Path(__file__).parents[2]
START_SECONDS = 60


def free_ports(number: int) -> list[int]:
    held = [socket.socket() for _ in range(number)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """The addresses of a running cluster, by scheme."""
    ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or shutil.which("ray")
    if ray is None:
        pytest.skip("Ray is not installed (it is an optional extra)")
    gcs, dashboard, client = free_ports(3)
    home = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # its sockets need a short path
    options = [
        "--head",
        "--block",
        "--disable-usage-stats",
        "--num-cpus=1",
        "--object-store-memory=80000000",
        "--node-ip-address=127.0.0.1",
        f"--port={gcs}",
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        f"--ray-client-server-port={client}",
        f"--temp-dir={home}",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
    log = Path(home, "start.log").open("wb")  # noqa: SIM115
    process = subprocess.Popen(
        [ray, "start", *options],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        if not answers(f"http://127.0.0.1:{dashboard}/api/version", process):
            pytest.skip(f"Ray does not start here within {START_SECONDS} s")
        yield {"http": f"http://127.0.0.1:{dashboard}", "ray": f"ray://127.0.0.1:{client}"}
    finally:
        stop(process)
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def answers(url: str, process: subprocess.Popen) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return True
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    return False


def stop(process: subprocess.Popen) -> None:
    """End this cluster alone: `ray stop` would end every one of the machine."""
    process.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_round_on_a_cluster(cluster, tmp_path):
    ws, room = toy.opened(toy.make(tmp_path / "w"))
    run_round(ws, room)
    options = {"selection": {"query_size": 5}}
    job = jobs.start_round(ws, options, "ann", jobs.launcher(cluster["http"]))
    deadline = time.monotonic() + 90
    while (found := ws.ledger.jobs.state(job.id)).state not in ("finished", "failed", "cancelled"):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert (found.state, found.round, found.message) == ("finished", 2, "")
    assert len(ws.ledger.selections(2)) == 5
    assert any("teacher: epoch 2 of 2" in line for line in jobs.log_tail(ws.root, job.id))


def test_a_ray_address_leads_to_the_dashboard(cluster):
    try:
        found = dashboard_of(cluster["ray"])
    except WorkspaceError as error:
        if "Initialization failure from server" not in str(error):
            raise
        pytest.skip("Ray's own server for ray:// clients did not start, twice")
    assert found == cluster["http"]
    assert jobs.launcher(cluster["ray"]).args[0] == cluster["http"]


def test_a_cluster_that_is_away_is_one_sentence(tmp_path):
    pytest.importorskip("ray")
    ws, _ = toy.opened(toy.make(tmp_path / "w"))
    (port,) = free_ports(1)
    address = f"http://somebody:secret@127.0.0.1:{port}"
    with pytest.raises(WorkspaceError, match="did not take job 1") as caught:
        jobs.start_round(ws, {}, "ann", jobs.launcher(address))
    said = str(caught.value)
    assert f"The Ray cluster at http://127.0.0.1:{port} " in said
    assert "secret" not in said
    assert "\n" not in said
    assert ws.ledger.jobs.state(1).state == "failed"


def test_without_ray_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.job_submission", None)
    ws, _ = toy.opened(toy.make(tmp_path / "w"))
    with pytest.raises(WorkspaceError, match=r"pip install 'readloop\[ray\]'"):
        jobs.start_round(ws, {}, "ann", jobs.launcher("http://127.0.0.1:1"))
    with pytest.raises(WorkspaceError, match=r"pip install 'readloop\[ray\]'"):
        jobs.launcher("ray://127.0.0.1:1")


def test_ray_is_imported_only_when_it_is_used():
    program = "import sys, app.cli; print('ray' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
