"""One way to speak to Label Studio: plain JSON in and out, every fault as one sentence."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx

from ssl_core.errors import ReadingRoomError

TIMEOUT = 60.0  # seconds
PAGE = 1000  # tasks a request: ten times fewer requests than the server's own pages, 3x faster


class Gone(ReadingRoomError):
    """A project, view or task that was there is not any more (HTTP 404)."""


class Refused(ReadingRoomError):
    """The server does not accept what was asked (HTTP 4xx), and will not when asked again."""


class Unanswered(ReadingRoomError):
    """The server may or may not have done what was asked: look before asking again."""


class Slow(Unanswered):
    """The server is likely still at it: asking again would have it done twice."""


class Client:
    """A Label Studio server at `url`; `token` is a personal access token or a legacy one.

    `timeout`, in seconds, is for one answer. The token goes into request headers (a personal
    access token also to the server's sign-in) and nowhere else. Requests that make something are
    never repeated here: a lost answer does not mean that nothing was done.

    Raises, from every method, `ReadingRoomError`: `Gone` for what is not there, `Unanswered` when
    the answer was lost on the way or the server failed.
    """

    def __init__(self, url: str, token: str, timeout: float = TIMEOUT) -> None:
        from label_studio_sdk.client import LabelStudio  # 2 s to import
        from label_studio_sdk.core.api_error import ApiError

        self.url = url.strip().rstrip("/")
        if not self.url.startswith(("http://", "https://")):
            raise ReadingRoomError(
                f"LABEL_STUDIO_URL is {url!r}, which is no web address: it must start with http:// "
                "or https://."
            )
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise ReadingRoomError(
                "LABEL_STUDIO_URL holds a name or password before an @, which would be shown with "
                "every address: leave it out, the token in LABEL_STUDIO_API_KEY signs in."
            )
        token = token.strip()  # of a line end, when it came out of a file
        if not token or not token.isascii() or not token.isprintable():
            raise self._refused_token()
        self.now: datetime | None = None
        """The server's clock as of its last answer."""
        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request's address
        self._fault = ApiError
        try:
            # Without the slash, its sign-in would drop the last part of a longer address.
            address = self.url + "/"
            sdk: Any = cast(Any, LabelStudio)(base_url=address, api_key=token, timeout=timeout)
        except ApiError:
            raise self._refused_token() from None
        # The SDK's own methods parse into models, which takes minutes for 10,000 tasks. What is
        # wanted of it here is its way to sign in (it swaps a personal access token for short ones).
        self._http = sdk._client_wrapper.httpx_client

    def get(self, path: str, **params: Any) -> Any:
        """Read; tried again when the answer is lost."""
        return self._call("GET", path, params, None, retries=2)

    def post(self, path: str, body: Any, **params: Any) -> Any:
        """Make something."""
        return self._call("POST", path, params, body, retries=0)

    def act(self, action: str, project: int, tasks: Sequence[int], **body: Any) -> None:
        """Do to many tasks of a project what the server does in bulk and may well do twice."""
        chosen = {"selectedItems": {"all": False, "included": list(tasks)}, **body}
        params = {"id": action, "project": project}
        self._call("POST", "api/dm/actions/", params, chosen, retries=2)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change some fields; doing it twice is doing it once."""
        return self._call("PATCH", path, {}, body, retries=2)

    def delete(self, path: str) -> None:
        """Remove something; what is gone already is no fault."""
        try:
            self._call("DELETE", path, {}, None, retries=2)
        except Gone:
            return

    def pages(self, path: str, **params: Any) -> Iterator[dict[str, Any]]:
        """All entries of a paged list (projects)."""
        number, seen = 1, 0
        while True:
            found = self.get(path, page=number, page_size=1000, **params)
            if not isinstance(found, dict) or "results" not in found:
                raise self._not_the_api(path)
            yield from found["results"]
            seen += len(found["results"])
            if not found["results"] or seen >= found["count"]:
                return
            number += 1

    def _call(
        self, method: str, path: str, params: Mapping[str, Any], body: Any, retries: int
    ) -> Any:
        try:
            response = self._http.request(
                path,
                method=method,
                params=dict(params),
                json=body,
                request_options={"max_retries": retries},
            )
        except self._fault as error:  # signing in with a personal access token
            raise self._refusal(path, error.status_code or 0, str(error.body)) from None
        except httpx.HTTPError as error:
            raise self._transport_fault(error) from None
        except ValueError:  # signing in answered by something else than Label Studio
            raise self._not_the_api(path) from None
        if response.status_code >= 400:
            raise self._refusal(path, response.status_code, response.text)
        self._set_clock(response.headers.get("date"))
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            raise self._not_the_api(path) from None

    def _not_the_api(self, path: str) -> ReadingRoomError:
        return Unanswered(
            f"{self.url}/{path} answered with something that is not Label Studio's API: check "
            "LABEL_STUDIO_URL, and whether a proxy or a sign-in page stands in between."
        )

    def _transport_fault(self, error: httpx.HTTPError) -> ReadingRoomError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ReadingRoomError(
                f"Label Studio at {self.url} does not answer: start it (`readloop label-studio up "
                "WORKSPACE`) or check LABEL_STUDIO_URL."
            )
        if isinstance(error, httpx.TimeoutException):
            return Slow(
                f"Label Studio at {self.url} took too long to answer: wait until it is less busy "
                "and run the command again, nothing is lost."
            )
        return Unanswered(
            f"Label Studio at {self.url} broke off while answering: run the command again, nothing "
            "is lost."
        )

    def _refusal(self, path: str, status: int, text: str) -> ReadingRoomError:
        if status == 401:
            return self._refused_token()
        if status == 404:
            return Gone(
                f"Label Studio has no {self.url}/{path} (any more): if it was deleted by hand, run "
                "the command again; if not, check LABEL_STUDIO_URL."
            )
        if status == 429:
            return Unanswered(
                f"Label Studio at {self.url} is asked too often (429): wait a minute and run the "
                "command again, nothing is lost."
            )
        if status >= 500:
            return Unanswered(
                f"Label Studio at {self.url} failed ({status}) at {path}: look at its log and run "
                "the command again, nothing is lost."
            )
        return Refused(f"Label Studio at {self.url} refused {path} ({status}): {_reason(text)}")

    def _refused_token(self) -> ReadingRoomError:
        return ReadingRoomError(
            f"Label Studio at {self.url} refuses the token, which is wrong, expired or of a kind "
            "that it does not allow: set LABEL_STUDIO_API_KEY to a valid one."
        )

    def _set_clock(self, date: str | None) -> None:
        if date is None:
            return
        try:
            self.now = parsedate_to_datetime(date).astimezone(UTC)
        except ValueError:
            self.now = None


def _reason(text: str) -> str:
    """What the server says is wrong, on one line and as a sentence."""
    try:
        told = json.loads(text)
    except ValueError:
        told = None
    if isinstance(told, dict):
        wrong = told.get("validation_errors") or told.get("detail") or told
        values = wrong.values() if isinstance(wrong, dict) else [wrong]
        text = "; ".join(" ".join(v) if _is_texts(v) else str(v) for v in values)
    line = " ".join(text.split()).rstrip(".")
    return (line if len(line) <= 300 else f"{line[:299]}…") + "." if line else "it gives no reason."


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
