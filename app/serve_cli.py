"""`readloop serve`: the app in a browser."""

from __future__ import annotations

import ipaddress
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from app.arguments import WorkspacePath
from ssl_core.errors import ConfigError, ReadloopError
from ssl_core.workspace import Workspace, open_workspace


def serve(
    workspace: WorkspacePath,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8501,
    jobs: Annotated[
        str, typer.Option(help="Where rounds run: ray://… or http://… of a Ray cluster; else here.")
    ] = "",
    secrets: Annotated[
        Path | None, typer.Option(help="Streamlit's secrets file with [auth], for the sign-in.")
    ] = None,
) -> None:
    """Open the app for a workspace; it goes on until Ctrl-C, and rounds that it started go on."""
    ws = open_workspace(workspace)
    _check_sign_in(ws, host, secrets)
    _check_port(host, port)
    if jobs:
        from app.jobs import launcher

        launcher(jobs)  # refuses an address that is none
    from app.web import server

    shown = f"[{host}]" if ":" in host else host
    print(f"Readloop for {ws.root} at http://{shown}:{port} (Ctrl-C ends it)", flush=True)
    ws.ledger.close()
    os.environ[server.JOBS] = jobs
    server.run(workspace.resolve(), host, port, secrets)


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_sign_in(ws: Workspace, host: str, secrets: Path | None) -> None:
    if not loopback(host) and not ws.config.access.login:
        raise ConfigError(
            f"--host {host} lets others in, and nobody has to sign in: set `login = true` and the "
            "roles under [access] in readloop.toml, or leave --host out."
        )
    if secrets is not None and not secrets.is_file():
        raise ConfigError(f"--secrets {secrets}: there is no such file; it holds [auth] for OIDC.")
    if ws.config.access.login and secrets is None:
        raise ConfigError(
            "[access] login is on, which needs --secrets FILE: Streamlit's secrets.toml with "
            "[auth] (redirect_uri, cookie_secret, client_id, client_secret, server_metadata_url)."
        )


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ReadloopError(
                f"{host}:{port} cannot be listened on ({error.strerror}): choose another --port."
            ) from None


def add_to(cli: typer.Typer) -> None:
    """Give the command to the `readloop` command."""
    cli.command()(serve)
