"""Who is there, and what they may do: OIDC through `st.login` when it is configured.

Without `[access] login` the app is for whoever sits at this machine, and everything is allowed; it
is then bound to loopback alone (see `app.serve_cli`).
"""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from ssl_core.config import Config, Role
from ssl_core.errors import ReadloopError

LOCAL = "this machine"


@dataclass(frozen=True, slots=True)
class Person:
    """Who is signed in: an e-mail address, or `LOCAL`."""

    name: str
    role: Role

    @property
    def may_run(self) -> bool:
        """Whether rounds may be started and models promoted."""
        return self.role == "engineer"


def sign_in(config: Config) -> str:
    """The address of whoever is signed in; asks and stops the page until somebody is."""
    if not config.access.login:
        return LOCAL
    if not st.user.get("is_logged_in", False):
        st.title("Readloop")
        st.write("Sign in to see this workspace.")
        st.button("Sign in", type="primary", on_click=st.login)
        st.stop()
    if not st.user.get("email") or st.user.get("email_verified") is False:
        _refused("Your sign-in carries no verified e-mail address: ask whoever runs the service.")
    return str(st.user["email"])


def role_of(config: Config, person: str) -> Role:
    """The role that `[access]` gives; raises `ReadloopError` for somebody it does not name."""
    if not config.access.login:
        return "engineer"
    role = config.access.role(person)
    if role is None:
        _refused(
            f"{person} has no role here: an engineer can add the address under [access] in "
            "readloop.toml."
        )
    return role


def _refused(sentence: str) -> None:
    st.button("Sign out", on_click=st.logout)
    raise ReadloopError(sentence)
