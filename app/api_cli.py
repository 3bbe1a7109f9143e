"""`readloop api`: the prediction API on the command line."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from typing import Annotated

import typer

from app.arguments import WorkspacePath
from ssl_core.errors import ConfigError
from ssl_core.workspace import open_workspace

TOKEN = "READLOOP_API_TOKEN"


def api(
    workspace: WorkspacePath,
    host: Annotated[
        str, typer.Option(help=f"Any but this machine's own needs {TOKEN} in the environment.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: a free one.")] = 8000,
    max_mb: Annotated[float, typer.Option(min=0.001, max=1024, help="Largest upload.")] = 32.0,
) -> None:
    """Serve predictions of the newest student over HTTP, until Ctrl-C."""
    ws = open_workspace(workspace)
    token = os.environ.get(TOKEN, "").strip() or None
    if not _loopback(host):
        _check_token(host, token)
    import uvicorn  # with FastAPI half a second that no other command needs

    from app.api import create_app

    application = create_app(ws, max_bytes=int(max_mb * 2**20), token=token)
    with _listening(host, port) as listening:
        name, taken = listening.getsockname()[:2]
        place = f"http://{f'[{name}]' if ':' in name else name}:{taken}"
        who = "with the token" if token else "this machine only"
        print(f"Predictions at {place}/predict ({who}); described at {place}/openapi.json")
        print("Stop with Ctrl-C.", flush=True)
        # No access log: an address may hold what a caller put into it.
        settings = uvicorn.Config(
            application, log_level="warning", access_log=False, server_header=False
        )
        uvicorn.Server(settings).run(sockets=[listening])


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(host: str, token: str | None) -> None:
    if token is None:
        raise ConfigError(
            f"--host {host} lets other machines in: set {TOKEN} to a long random word that they "
            "must send, or leave --host out."
        )
    print(
        f"Mind: with --host {host} other machines reach this server, and what they send and the "
        "token travel unencrypted; put it behind a proxy that speaks TLS.",
        file=sys.stderr,
    )


def _listening(host: str, port: int) -> socket.socket:
    """A bound socket, so that a taken port is one sentence."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"--host {host} --port {port} cannot be used ({error.strerror}): choose another port, "
            "or 0 for a free one."
        ) from None


def add_to(cli: typer.Typer) -> None:
    """Give the command to the `readloop` command."""
    cli.command()(api)
