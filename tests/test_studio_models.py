"""The Models page: what is in a model's folder, a grid of models and settings, and reports that cannot do any harm."""

import os

import pytest

pytest.importorskip("fastapi")
from browsing import browser, needs_chromium, opened, served  # noqa: F401
from studios import client_of, small_model, until

from video_gen.evaluation.report import Section, write_report
from video_gen.model.pretrained import StoredWeights
from video_gen.web.studio.app import make_app
from video_gen.web.studio.model_facts import facts_of, head_of, split_card
from video_gen.web.studio.roots import Roots
from video_gen.web.studio.studio import Studio


@pytest.fixture
def place(tmp_path):
    small_model(tmp_path / "runs" / "one" / "model")
    (tmp_path / "runs" / "one" / "model" / "README.md").write_text(
        "---\nlicense: mit\ntags: [small]\n---\n# One\n\n<script>alert(1)</script> made for a test.\n"
    )
    return tmp_path


@pytest.fixture
def studio(place):
    return Studio(place / "out", str(place / "runs" / "one" / "model"), Roots((place / "runs",)), Roots(()), "cpu")


def test_parts_are_counted_as_their_weights_are(place):
    folder = place / "runs" / "one" / "model"
    facts = facts_of(folder)
    for part in facts["parts"]:
        shapes = StoredWeights(folder / part["name"] / "model.safetensors").shapes
        count = 0
        for shape in shapes.values():
            size = 1
            for side in shape:
                size *= side
            count += size
        assert part["parameters"] == count > 0 and part["tensors"] == len(shapes)
    assert {part["name"] for part in facts["parts"]} >= {"vae", "transformer"}
    assert facts["licence"] == "mit" and facts["tags"] == ["small"] and facts["card"].startswith("# One")


def test_what_is_damaged_or_leads_elsewhere_is_said_and_not_read(tmp_path):
    folder, outside = tmp_path / "model", tmp_path / "outside.json"
    (folder / "vae").mkdir(parents=True)
    outside.write_text('{"latent_channels": 7}')
    (folder / "vae" / "config.json").symlink_to(outside)
    (folder / "README.md").symlink_to(outside)
    (folder / "vae" / "a.safetensors").write_bytes(b"\xff" * 40)
    (folder / "vae" / "b.safetensors").symlink_to(outside)
    os.mkfifo(folder / "LICENSE")
    facts = facts_of(folder)
    assert facts["vae"] is None and facts["card"] is None and facts["licence_text"] is None
    assert facts["parts"][0]["error"] and facts["parameters"] == 0
    for content in (b"", b"\x02\0\0\0\0\0\0\0[]", b"\x11\0\0\0\0\0\0\0" + b'{"a":{"shape":1}}'):
        (folder / "x.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            head_of(folder / "x.safetensors")
    assert split_card("---\na: &a [1]\nb: *a\n---\nrest") == ({}, "rest")
    assert split_card("---\n: [\n---\nrest")[0] == {}


def test_models_that_can_be_picked_are_told_and_no_others(studio, place):
    with client_of(studio) as client:
        told = client.get("/api/models/list").json()
        assert told["models"][0] == {"name": studio.model, "shipped": False, "run": "runs/one"}
        assert {"bounce", "maze"} <= {one["name"] for one in told["models"]}
        shipped = client.get("/api/models/one", params={"name": "bounce"}).json()
        assert shipped["facts"]["parameters"] > 1e6 and shipped["clip"]["width"] == 32 and shipped["facts"]["vae"]
        for name in (str(place), "..", "/etc", "", "bounce/vae", "some/hub-id"):
            assert client.get("/api/models/one", params={"name": name}).status_code == 404


def test_public_models_that_lie_among_runs_can_be_picked(studio, place):
    small_model(place / "runs" / "given")
    for name, content in (
        ("public", '{"_class_name": "WanPipeline"}'), ("deeper/a14b", '{"_class_name": "WanImageToVideoPipeline"}'),
        ("foreign", '{"_class_name": "FluxPipeline"}'), ("damaged", '{"_class_name"'), ("odd", "[]"),
    ):  # fmt: skip
        (place / "runs" / name).mkdir(parents=True)
        (place / "runs" / name / "model_index.json").write_text(content)
    (place / "elsewhere").mkdir()
    (place / "elsewhere" / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (place / "runs" / "link").symlink_to(place / "elsewhere")
    others = {str(place / "runs" / name) for name in ("given", "public", "deeper/a14b")}
    assert {name for name in studio.models.names() if "/" in name} == {studio.model} | others
    with client_of(studio) as client:
        told = {one["name"]: one for one in client.get("/api/models/list").json()["models"]}
        assert all(told[name]["run"] is None for name in others)
        one = client.get("/api/models/one", params={"name": str(place / "runs" / "public")}).json()
        assert one["facts"]["family"] == "WanPipeline" and one["clip"] is None


@pytest.mark.slow
def test_a_grid_finds_what_was_made_of_each_cell(studio):
    cells = [{"prompt": "a red circle", "seed": 3, "num_steps": steps} for steps in (1, 2)]
    with client_of(studio) as client:
        assert client.post("/api/models/grid", json={"cells": cells}).json() == {"results": [None, None]}
        client.post("/api/jobs", json=cells[1])
        found = until(
            lambda: [one for one in client.post("/api/models/grid", json={"cells": cells}).json()["results"] if one]
        )
        assert client.post("/api/models/grid", json={"cells": cells}).json()["results"] == [None, found[0]]
        assert found[0]["seed"] == 3 and found[0]["prompt"] == "a red circle"
        for wrong in (
            {"model": "/etc"},
            {"model": 3},
            {"image": "/etc/passwd"},
            {"output": "/tmp"},
            {"num_steps": "x"},
            {"?": 1},
        ):
            assert client.post("/api/models/grid", json={"cells": [wrong]}).status_code in (400, 404), wrong


def test_reports_are_found_and_may_do_nothing(studio, place):
    write_report(
        place / "runs" / "one" / "drift.html", "Long <videos>", "what they are", [Section("One", "<p>here</p>")]
    )
    (place / "runs" / "other.html").write_text("<html><script>alert(1)</script>")
    (place / "secret.html").write_text("<!doctype html><html lang='en'>secret")
    (place / "runs" / "linked.html").symlink_to(place / "secret.html")
    with client_of(studio) as client:
        found = client.get("/api/models/reports").json()["reports"]
        assert [(one["root"], one["name"], one["title"]) for one in found] == [
            ("runs", "one/drift.html", "Long <videos>")
        ]
        answer = client.get("/api/models/report", params={"root": "runs", "name": "one/drift.html"})
        policy = answer.headers["content-security-policy"]
        assert answer.status_code == 200 and policy.startswith("sandbox allow-scripts; default-src 'none'")
        assert "allow-same-origin" not in policy and "script-src 'sha256-" in policy and "'self'" not in policy
        for name in ("other.html", "linked.html", "../secret.html", "one/model/README.md", "", "one"):
            assert client.get("/api/models/report", params={"root": "runs", "name": name}).status_code == 404, name
        assert "script-src 'self'" in client.get("/").headers["content-security-policy"]


@needs_chromium
def test_the_page_shows_a_model_a_grid_and_a_report(browser, studio, place):  # noqa: F811
    evil = "<p id='x'>before</p><script>document.getElementById('x').textContent = 'harm'</script>"
    write_report(place / "runs" / "one" / "steps.html", "Steps", "how many", [Section("One", evil)])
    with served(make_app(studio)) as address:
        page, wrong = opened(browser, f"{address}/models", viewport={"width": 1280, "height": 900})
        page.locator(".gist", has_text="frames of 16 × 16").wait_for()
        assert "<script>alert(1)</script>" in page.locator(".readme").inner_text()
        page.get_by_role("tab", name="Side by side").click()
        page.get_by_label("Prompts").fill("a red circle\na blue square")
        page.get_by_label("A setting").select_option("num_steps")
        page.get_by_label("Its values").fill("1, 2")
        page.get_by_text("4 of 4 are not made yet").wait_for()
        page.get_by_role("button", name="Make what is missing").click()
        page.get_by_text("all 4 are here").wait_for(timeout=90_000)
        page.get_by_role("button", name="Play in step").click()
        page.wait_for_function("() => document.querySelectorAll('.together canvas[data-frame]').length === 4")
        page.keyboard.press("Escape")
        page.get_by_role("tab", name="Reports").click()
        with page.context.expect_page() as opening:
            page.get_by_role("link", name="Steps").click()
        report = opening.value
        report.wait_for_load_state()
        assert report.locator("#x").inner_text() == "before"
        assert report.evaluate("() => getComputedStyle(document.querySelector('main')).display") is not None
        assert wrong == []
        page.context.close()
