"""A real PostgreSQL server for the tests: on a free loopback port, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

USER = "tester"


def binaries() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: Debian's newest, or the one on the PATH."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_major_version)
    found = shutil.which("initdb")
    if debian:
        return debian[-1].parent
    return Path(found).parent if found else None


def _major_version(initdb: Path) -> int:
    return int(initdb.parts[-3])


@contextmanager
def server() -> Iterator[str]:
    """The URL of a running server, without a database's name. It keeps nothing and syncs nothing.

    PostgreSQL refuses to run as root, so root lends it to an unprivileged user.
    """
    folder = binaries()
    if folder is None:
        raise FileNotFoundError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="readloop-postgres-") as home:
        data, log = Path(home, "data"), Path(home, "log")
        password, port = secrets.token_urlsafe(16), _free_port()
        Path(home, "password").write_text(password)
        user = _give_to_unprivileged(Path(home))
        access = ["--auth=scram-sha-256", f"--pwfile={home}/password", f"--username={USER}"]
        layout = [f"--pgdata={data}", "--encoding=UTF8", "--no-locale", "--no-sync"]
        _run([folder / "initdb", *layout, *access], user)
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -F"
        control = [folder / "pg_ctl", f"--pgdata={data}", "--silent", "--wait"]
        _run([*control, f"--log={log}", f"--options={options}", "start"], user)
        try:
            yield f"postgresql://{USER}:{password}@127.0.0.1:{port}"
        finally:
            _run([*control, "--mode=immediate", "stop"], user)


def _give_to_unprivileged(home: Path) -> str | None:
    """Make the folder the unprivileged user's, and name it; None where the tests are not root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = "postgres" if "postgres" in names else "nobody"
    for path in (home, *home.iterdir()):
        shutil.chown(path, user)
    return user


def _run(command: list, user: str | None) -> None:
    # The server outlives pg_ctl and would hold a pipe open: its output goes to the log file.
    group = pwd.getpwnam(user).pw_gid if user else None
    done = subprocess.run(
        command,
        user=user,
        group=group,
        extra_groups=[] if user else None,
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if done.returncode:
        raise RuntimeError(f"{Path(command[0]).name} failed with code {done.returncode}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
