"""The page docs/http.md: it names every address, its requests give answers like those it shows, and its client runs."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from tests.web.conftest import TOKEN, Finder, picture, serving
from tests.web.test_app import png

import attractor.web
from attractor.images import write_image
from attractor.session import Session
from attractor.session.operations import KINDS
from attractor.web.app import create_app

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "http.md").read_text()
SOURCES = [path.read_text() for path in Path(attractor.web.__file__).parent.glob("*.py")]
EXAMPLES = re.findall(r"^```text\n(\w+) (\S+)\n(.*?)^```\n\n```json\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "cells.png", picture(0))
    Session.create(tmp_path / "project", [tmp_path / "pictures"], Finder(), model="nuclei").close()
    return tmp_path / "project"


def test_every_address_is_on_the_page():
    routes = [route for text in SOURCES for route in re.findall(r'@routes\.(\w+)\("(/api/[^"]*)"', text)]
    assert len(routes) > 20
    assert [route for route in routes if f"`{route[0].upper()} {route[1]}`" not in PAGE] == []


def test_every_operation_is_on_the_page():
    (table,) = re.findall(r"^\| operation \|.*?(?=\n\n)", PAGE, re.M | re.S)
    named = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert named == KINDS.keys()
    for kind, operation in KINDS.items():
        (row,) = (row for row in table.splitlines() if f"`{kind}`" in row.split("|")[1])
        fields = {field.name for field in dataclasses.fields(operation)} - {"image"}
        assert {name for name in fields if f"`{name}`" not in row} == set(), kind


def shape(value):
    """The names in an answer, without its values; a list is like its first entry."""
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items() if key not in ("rounds", "jobs", "arguments")}
    return [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else ...


def test_requests_give_answers_like_those_of_the_page(project):
    assert len(EXAMPLES) > 12
    with Session(project) as session:
        app = create_app(session, token=TOKEN, port=8765, device="cpu")
        headers = {"authorization": f"Bearer {TOKEN}"}
        with TestClient(app, base_url="http://127.0.0.1:8765", headers=headers) as client:
            for method, path, body, expected in EXAMPLES:
                if body.startswith("file=@"):
                    how = {"files": {"file": (body.strip().removeprefix("file=@"), png(picture(1)[..., 0]))}}
                else:
                    how = {"json": json.loads(body.replace("TOKEN", TOKEN))} if body else {}
                answer = client.request(method, path, **how)
                assert answer.status_code == 200, f"{method} {path}: {answer.text}"
                assert shape(answer.json()) == shape(json.loads(expected)), f"{method} {path}"


def test_the_client_of_the_examples_runs_without_a_session(tmp_path):
    (tmp_path / "cells.png").write_bytes(png(picture(2)[..., 0]))
    client = PROJECT / "examples" / "segment_by_http.py"
    with serving(tmp_path / "project") as address:
        command = [sys.executable, str(client), address, str(tmp_path / "cells.png")]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert len(json.loads(printed)["features"]) > 0
    with Session(tmp_path / "project") as session:
        assert session.images == ()
