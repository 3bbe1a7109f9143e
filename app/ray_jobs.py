"""Jobs on a Ray cluster: the same command line, submitted to it; Ray is an optional extra."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
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
        address: http://HOST:PORT of the cluster's dashboard (see `dashboard_of`).
        command: the command line of a job.
        root: the workspace's folder, absolute.
        job_id: the job.

    Raises:
        WorkspaceError: Ray is not installed, cannot be reached, or does not take the job.
    """
    with _in_one_sentence(address, f"did not take job {job_id}"):
        _client(address).submit_job(
            entrypoint=shlex.join(command(root, job_id)),
            metadata={"workspace": str(root), "job": str(job_id)},
        )


@cache
def dashboard_of(address: str) -> str:
    """The http:// address of a cluster's dashboard; for ray://… the cluster is asked, once.

    Ray starts a process on the cluster for each ray:// client, which takes seconds, and now and
    then it does not start: hence once and not for each job, and hence a second try. An http://
    address costs nothing.

    Raises:
        WorkspaceError: Ray is not installed, or the cluster cannot be reached.
    """
    if not address.startswith("ray://"):
        return address
    with suppress(WorkspaceError), _in_one_sentence(address, "cannot be reached"):
        return str(_client(address).get_address())
    with _in_one_sentence(address, "cannot be reached"):
        return str(_client(address).get_address())


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient  # optional, and slow to import

    return JobSubmissionClient(address)


@contextmanager
def _in_one_sentence(address: str, what: str) -> Iterator[None]:
    shown = _without_secrets(address)
    try:
        yield
    except ImportError:
        raise WorkspaceError(
            "Jobs on a Ray cluster need Ray: install it with `pip install 'readloop[ray]'`, or "
            "leave --jobs out."
        ) from None
    except Exception as error:  # Ray raises whatever its many parts raise
        said = " ".join(str(error).replace(address, shown).split())[:200]
        raise WorkspaceError(
            f"The Ray cluster at {shown} {what} ({said}): check that it runs, and give the address "
            "of its dashboard, as http://HOST:8265."
        ) from None


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
