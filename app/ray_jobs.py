"""Jobs on a Ray cluster: the same command line, submitted to it; Ray is an optional extra."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ssl_core.errors import WorkspaceError


def launch_on_ray(
    address: str, command: Callable[[Path, int], list[str]], root: Path, job_id: int
) -> None:
    """Submit a job's command line to a Ray cluster and return; the ledger tells the rest.

    The cluster's nodes need what this machine has, at the same paths: the workspace (and the
    image folder that its configuration names) on a shared disk, and Readloop under the same
    interpreter. A ledger on PostgreSQL must be reachable from there, with PGPASSWORD in the
    environment of the nodes: no secret is sent along. A SQLite ledger is safe only if the job
    runs on this machine too. A job that waits for a free node for longer than 25 s looks dead
    until it starts.

    Args:
        address: ray://HOST:PORT, or http://HOST:PORT of the dashboard.
        command: the command line of a job.
        root: the workspace's folder, absolute.
        job_id: the job.

    Raises:
        WorkspaceError: Ray is not installed, cannot be reached, or does not take the job.
    """
    try:
        from ray.job_submission import JobSubmissionClient
    except ImportError:
        raise WorkspaceError(
            "Jobs on a Ray cluster need Ray: install it with `pip install 'readloop[ray]'`, or "
            "leave --jobs out."
        ) from None
    shown = _without_secrets(address)
    try:
        client = JobSubmissionClient(address)
        client.submit_job(
            entrypoint=shlex.join(command(root, job_id)),
            metadata={"workspace": str(root), "job": str(job_id)},
        )
    except Exception as error:  # Ray raises whatever its many parts raise
        said = " ".join(str(error).replace(address, shown).split())[:200]
        raise WorkspaceError(
            f"The Ray cluster at {shown} did not take job {job_id} ({said}): check the address, "
            "and that the cluster runs."
        ) from None


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
