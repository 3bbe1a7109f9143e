"""How we speak to Label Studio: every fault is one sentence, and the token is nobody's to see."""

from __future__ import annotations

import base64
import json
import logging
import time
import urllib.error
import urllib.request
from contextlib import suppress

import pytest

from connectors.label_studio.client import Client, Gone, Refused, Slow, Unanswered
from ssl_core.errors import ReadingRoomError
from tests.fault_proxy import Fault, html_page, proxied
from tests.label_studio import free_port

SECRET = "0badc0de" * 5


@pytest.fixture(scope="module")
def proxy(label_studio):
    with proxied(label_studio.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy, label_studio):
    proxy.script()
    return Client(proxy.url, label_studio.token)


def said(error: type[ReadingRoomError], ask) -> str:
    """The sentence of a fault: one line that ends like one."""
    with pytest.raises(ReadingRoomError) as caught:
        ask()
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ".." not in text.replace("...", "")
    assert caught.value.__cause__ is None  # nothing of the request, and its headers, hangs on it
    return text


def jwt(**claims) -> str:
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    coded = [base64.urlsafe_b64encode(json.dumps(p).encode()).rstrip(b"=") for p in parts]
    return b".".join([*coded, b"c2lnbmF0dXJl"]).decode()


def test_it_reads_and_writes(client):
    assert client.get("api/version")["release"]
    made = client.post("api/projects/", {"title": "client test"})
    client.patch(f"api/projects/{made['id']}/", {"title": "another"})
    assert client.get(f"api/projects/{made['id']}/")["title"] == "another"
    client.delete(f"api/projects/{made['id']}/")
    client.delete(f"api/projects/{made['id']}/")
    assert "deleted by hand" in said(Gone, lambda: client.get(f"api/projects/{made['id']}/"))


def test_it_knows_the_servers_time(client):
    client.get("api/version")
    assert client.now is not None
    assert abs(client.now.timestamp() - time.time()) < 120


@pytest.mark.parametrize("token", [SECRET, "  ", "", "ä" * 40, "a\nb", jwt(exp=4e9), "x" * 5000])
def test_a_wrong_token(label_studio, token):
    text = said(ReadingRoomError, lambda: Client(label_studio.url, token).get("api/projects/"))
    assert "LABEL_STUDIO_API_KEY" in text
    assert not token.strip() or token not in text


@pytest.mark.parametrize("claims", [{"exp": 1}, {}])
def test_an_expired_token_is_told_at_once(label_studio, claims):
    text = said(ReadingRoomError, lambda: Client(label_studio.url, jwt(**claims)))
    assert "expired" in text


def test_a_line_end_after_the_token_does_no_harm(label_studio):
    assert Client(label_studio.url, f" {label_studio.token}\n").get("api/version")


@pytest.mark.parametrize("url", ["http://ann:word@localhost:8080/x", "https://word@x"])
def test_an_address_with_a_password_is_refused_unseen(url):
    text = said(ReadingRoomError, lambda: Client(url, SECRET))
    assert "LABEL_STUDIO_URL" in text
    assert "word@" not in text


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://x", "", "//x"])
def test_an_address_that_is_none(url):
    assert "LABEL_STUDIO_URL" in said(ReadingRoomError, lambda: Client(url, SECRET))


@pytest.mark.parametrize("url", ["http://[", "http://a b/", "http://127.0.0.1:99999"])
def test_an_address_that_cannot_be_reached(url):
    with pytest.raises(ReadingRoomError, match="LABEL_STUDIO_URL"):
        Client(url, SECRET).post("api/projects/", {})


def test_a_slash_after_the_address_does_no_harm(label_studio):
    client = Client(f"{label_studio.url}//", label_studio.token)
    assert client.url == label_studio.url
    assert client.get("api/version")


def test_nobody_is_there():
    client = Client(f"http://127.0.0.1:{free_port()}", SECRET)
    assert "does not answer: start it" in said(ReadingRoomError, lambda: client.post("api/x", {}))


def new_access_token(label_studio) -> str:
    """A personal access token of the tests' user, who may have one at a time."""
    client = Client(label_studio.url, label_studio.token)
    client.post("api/jwt/settings", {"api_tokens_enabled": True, "legacy_api_tokens_enabled": True})
    for held in client.get("api/token/"):
        with suppress(Gone):
            client.post("api/token/blacklist/", {"refresh": held["token"]})
    return client.post("api/token/", {})["token"]


@pytest.fixture
def access_token(label_studio):
    token = new_access_token(label_studio)
    yield token
    with suppress(Gone):  # the server repeats a request by itself when its SQLite is locked
        straight = Client(label_studio.url, label_studio.token)
        straight.post("api/token/blacklist/", {"refresh": token})


@pytest.mark.parametrize("prefix", ["", "/label/studio"])
def test_a_personal_access_token_and_an_address_with_a_path(label_studio, access_token, prefix):
    with proxied(label_studio.url, prefix) as proxy:
        client = Client(proxy.url, access_token)
        assert client.get("api/projects/")["results"] is not None
        client.get("api/projects/")
        assert proxy.count("POST", "/api/token/refresh/") == 1  # signed in once
        assert all(path.startswith(prefix) for _, path in proxy.requests)


def test_a_personal_access_token_that_was_withdrawn(label_studio):
    token = new_access_token(label_studio)
    Client(label_studio.url, label_studio.token).post("api/token/blacklist/", {"refresh": token})
    text = said(ReadingRoomError, lambda: Client(label_studio.url, token).get("api/projects/"))
    assert "refuses the token" in text


def test_faults_while_signing_in(label_studio, access_token, proxy):
    where = {"path": "token/refresh", "times": 9}
    for fault, error in [
        (html_page(**where), Unanswered),
        (Fault("answer", status=200, body='{"hello": 1}', **where), Unanswered),
        (Fault("answer", status=500, body="<h1>Error</h1>", **where), Unanswered),
        (Fault("drop_before", **where), Unanswered),
    ]:
        proxy.script(fault)
        said(error, lambda: Client(proxy.url, access_token).post("api/projects/", {}))


ANSWERS = {
    "bad gateway": (Fault("answer", status=502, body="<h1>Bad Gateway</h1>"), "failed (502)"),
    "server error": (Fault("answer", status=500), "look at its log"),
    "too often": (Fault("answer", status=429), "wait a minute"),
    "a sign-in page": (html_page(), "not Label Studio's API"),
    "dropped before": (Fault("drop_before"), "broke off"),
    "dropped after": (Fault("drop_after"), "broke off"),
    "half an answer": (Fault("half"), "broke off"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_what_was_not_answered_is_not_asked_twice(client, proxy, name):
    fault, words = ANSWERS[name]
    proxy.script(Fault(**{**vars(fault), "times": 99, "seen": 0}))
    text = said(Unanswered, lambda: client.post("api/projects/1000000/import", []))
    assert words in text
    assert proxy.url in text
    assert proxy.count("POST") == 1


def test_what_is_only_read_is_asked_again(client, proxy):
    proxy.script(Fault("answer", status=502), Fault("drop_after"))
    assert client.get("api/version")["release"]
    assert proxy.count("GET") == 3


def test_the_server_is_slow(proxy, label_studio):
    proxy.script(Fault("delay", seconds=1.0))
    client = Client(proxy.url, label_studio.token, timeout=0.3)
    assert "took too long" in said(Slow, lambda: client.post("api/token/rotate/", {}))
    proxy.settle()


def test_the_server_refuses(client):
    text = said(Refused, lambda: client.post("api/projects/", {"title": "x", "label_config": "<"}))
    assert "refused api/projects/ (400)" in text
    assert "label_config" not in text.partition("(400)")[0]


def test_another_servers_json(client, proxy):
    proxy.script(Fault("answer", status=200, body='["no", "projects"]'))
    text = said(Unanswered, lambda: list(client.pages("api/projects/")))
    assert "LABEL_STUDIO_URL" in text


def test_a_long_list_comes_whole(client, label_studio):
    made = [client.post("api/projects/", {"title": f"page {n:03d}"})["id"] for n in range(3)]
    listed = [entry["id"] for entry in client.pages("api/projects/", include="id")]
    assert set(made) <= set(listed)
    assert len(listed) == len(set(listed))
    for number in made:
        client.delete(f"api/projects/{number}/")


def test_the_token_shows_nowhere(proxy, label_studio, access_token, caplog):
    caplog.set_level(logging.DEBUG)
    told = []
    for token in (label_studio.token, access_token, SECRET):
        for fault in (None, *(fault for fault, _ in ANSWERS.values())):
            proxy.script(*([Fault(**{**vars(fault), "seen": 0})] if fault else []))
            client = Client(proxy.url, token)
            try:
                client.post("api/projects/1000000/import", [])
            except ReadingRoomError as error:
                told += [str(error), repr(error), str(error.__cause__)]
            told += [repr(client), str(client)]
    told += [f"{r.getMessage()} {r.__dict__}" for r in caplog.records]
    assert told
    for token in (label_studio.token, access_token, SECRET):
        assert not [text for text in told if token in text]
    assert not [text for text in told if "Authorization" in text]


def test_the_tests_proxy_is_true_to_the_server(proxy, label_studio):
    proxy.script()
    straight, through = (
        urllib.request.urlopen(f"{url}/api/version").read() for url in (label_studio.url, proxy.url)
    )
    assert straight == through
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"{proxy.url}/api/projects/")
    assert proxy.requests == [("GET", "/api/version"), ("GET", "/api/projects/")]
