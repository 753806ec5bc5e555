"""The studio's endless stream: what it shows is what `video-gen stream` makes, and going back is as if nothing had been."""

import io
import json
import time

import numpy as np
import pytest
import torch
from browsing import browser, needs_chromium, served  # noqa: F401
from browsing import opened as opened_page
from PIL import Image

from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.stream import Cue, open_stream, steer_on_cue
from video_gen.web.studio.live_worker import HEADER, Runner


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model with weights that nobody trained."""
    torch.manual_seed(0)
    vae = VideoVAE(VAEConfig(temporal_stride=2, spatial_stride=8, latent_channels=4, stem=4, widths=(16,)))
    vae.fit_linear_path(torch.rand(4, 3, 9, 32, 32) * 2 - 1)
    text = ByteTextEncoder(TextConfig(width=16, hash_buckets=64))
    sizes = TransformerConfig(latent_channels=4, width=32, depth=2, head_dim=16, text_width=16, patch_size=1)
    transformer = VideoTransformer(sizes)
    torch.nn.init.normal_(transformer.unembed.weight, std=0.3)
    clip = ClipSettings(num_frames=9, fps=8, height=32, width=32)
    pipeline = VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, SamplingConfig(num_steps=2))
    folder = tmp_path_factory.mktemp("models") / "small"
    pipeline.save_pretrained(folder)
    return folder


class Line:
    """The studio's end of the pipe, without a process."""

    def __init__(self):
        self.sent = []

    def send(self, message):
        self.sent.append(message)

    def told(self, kind):
        return [message[1:] for message in self.sent if message[0] == kind]


@pytest.fixture
def runner(model):
    found = Runner(Line(), torch.device("cpu"))
    found.obey(("open", str(model)))
    yield found
    found.obey(("stop",))


def shown(runner, blocks):
    """Frames of so many steps, as a page gets them."""
    before = len(runner.line.told("block"))
    for _ in range(blocks):
        runner.step()
    return [opened(block) for (block,) in runner.line.told("block")[before:]]


def opened(block):
    _, fps, seconds, f, h, w, _ = HEADER.unpack_from(block)
    sheet = np.asarray(Image.open(io.BytesIO(block[HEADER.size :])))
    return seconds, fps, sheet.reshape(h, f, w, 3).transpose(1, 0, 2, 3)


def test_it_shows_what_the_command_makes_of_its_script(runner, model):
    runner.obey(("start", "a red circle", {"seed": 3, "guidance_scale": 2.0}))
    found = shown(runner, 2)
    runner.obey(("steer", "a blue square", {"speed": 2.0}))
    found += shown(runner, 2)
    runner.obey(("steer", None, {"guidance_scale": 1.5}))
    found += shown(runner, 2)
    cues = [Cue(**cue) for cue in runner.line.told("state")[-1][0]["cues"]]
    assert [sorted(cue.model_dump(exclude_none=True)) for cue in cues] == [
        ["prompt", "speed", "time"],
        ["guidance_scale", "time"],
    ]
    pipeline, followed = VideoPipeline.from_pretrained(model), 0.0
    with open_stream(pipeline, "a red circle", cues=cues, seed=3, guidance_scale=2.0) as again:
        for seconds, fps, frames in found:
            assert seconds == again.seconds
            followed = steer_on_cue(again, cues, followed)
            assert np.array_equal(next(again), frames) and again.fps == pytest.approx(fps)


def test_going_back_is_as_if_nothing_had_been_made_or_said_since(runner):
    runner.obey(("start", "a red circle", {"seed": 1}))
    first = shown(runner, 5)
    runner.obey(("steer", "a blue square", {}))
    changed = shown(runner, 2)
    runner.obey(("back", first[2][0] + 1e-3))
    assert runner.cues == []
    again = shown(runner, 3)
    for (a, _, x), (b, _, y) in zip(first[2:], again):
        assert a == b and np.array_equal(x, y)
    # and another way from there is another video
    runner.obey(("back", first[2][0]))
    runner.obey(("steer", "a blue square", {}))
    other = shown(runner, 3)
    assert np.array_equal(other[0][2], first[2][2]) and not np.array_equal(other[2][2], first[4][2])
    assert len(changed) == 2


def test_points_take_no_more_memory_than_they_may(runner, monkeypatch):
    runner.obey(("start", "", {"seed": 1}))
    shown(runner, 4)
    one = runner.points[-1].bytes
    monkeypatch.setattr("video_gen.web.studio.live_worker.KEPT_BYTES", 6 * one)
    shown(runner, 40)
    assert len(runner.points) <= 7 and runner.points[0].seconds == 0.0 and runner.apart > 4


def test_a_saved_stream_goes_on_and_a_recording_holds_what_was_shown(runner, tmp_path):
    from video_gen.data.video_file import probe

    runner.obey(("start", "a red circle", {"seed": 1}))
    shown(runner, 2)
    runner.obey(("save", tmp_path / "here.safetensors"))
    runner.obey(("record", tmp_path / "a.mp4"))
    after = shown(runner, 3)
    runner.obey(("record", None))
    ((video, facts),) = runner.line.told("recorded")
    assert probe(video).num_frames == sum(len(frames) for _, _, frames in after) == facts["studio"]["frames"]
    runner.obey(("resume", tmp_path / "here.safetensors"))
    for (a, _, x), (b, _, y) in zip(after, shown(runner, 3)):
        assert a == b and np.array_equal(x, y)


def test_what_goes_wrong_is_told_and_the_stream_goes_on(runner, tmp_path):
    for message, why in (
        (("back", 1.0), "nothing is streaming"),
        (("start", "word " * 500, {}), "has 500 words"),
        (("resume", tmp_path / "none.safetensors"), "none.safetensors"),
    ):
        runner.obey(message)
        assert why in runner.line.told("trouble")[-1][0]
    runner.obey(("start", "", {"seed": 1}))
    runner.obey(("steer", "word " * 500, {}))
    assert "has 500 words" in runner.line.told("trouble")[-1][0] and len(shown(runner, 2)) == 2
    runner.obey(("open", str(tmp_path)))
    assert "model.json" in runner.line.told("trouble")[-1][0]


# -------------------- the server


@pytest.fixture
def client(model, tmp_path):
    pytest.importorskip("fastapi")
    from fastapi.testclient import TestClient

    from video_gen.web.studio.app import make_app
    from video_gen.web.studio.roots import Roots
    from video_gen.web.studio.studio import Studio

    studio = Studio(tmp_path / "out", str(model), Roots((tmp_path / "runs",)), Roots((tmp_path / "data",)), "cpu")
    with TestClient(make_app(studio), headers={"host": "127.0.0.1:8000"}) as found:
        found.studio = studio
        yield found


def until(true, seconds=60):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_page_opens_starts_watches_and_records(client, model):
    live = client.studio.live
    assert client.post("/api/live/start", json={}).status_code == 400  # before any model
    assert client.post("/api/live/open", json={"model": "/etc"}).status_code == 404
    assert client.post("/api/live/open", json={"model": str(model)}).json() == {"model": str(model)}
    until(lambda: live.known["status"] == "ready")
    with client.websocket_connect("/api/live/frames") as page, client.websocket_connect("/api/live/frames"):
        # the second page never reads, and holds nobody up
        assert client.post("/api/live/start", json={"prompt": "a red circle", "seed": 2}).status_code == 200
        blocks = [opened(page.receive_bytes()) for _ in range(3)]
        assert blocks[0][0] == 0.0 and blocks[0][2].shape[1:] == (32, 32, 3)
        assert client.post("/api/live/record", json={"on": True}).status_code == 200
        until(lambda: live.known.get("recording"))
        page.receive_bytes()
        assert client.post("/api/live/save", json={"name": "here"}).status_code == 200
        assert client.post("/api/live/record", json={"on": False}).status_code == 200
        until(lambda: client.get("/api/results").json()["total"] == 1)
        until(lambda: live.states() == ["here"])
    assert client.get("/api/live/script").text.startswith("video-gen stream 'a red circle' --model ")
    facts = client.get("/api/results/item", params={"name": client.get("/api/results").json()["items"][0]["name"]})
    assert facts.json()["facts"]["prompt"] == "a red circle"


@pytest.mark.slow
def test_a_process_that_dies_is_told_and_begun_anew(client, model):
    live = client.studio.live
    client.post("/api/live/open", json={"model": str(model)})
    until(lambda: live.known["status"] == "ready")
    live._process.kill()
    until(lambda: live.trouble is not None)
    assert "killed" in live.trouble and client.post("/api/live/start", json={}).status_code == 400
    client.post("/api/live/open", json={"model": str(model)})
    until(lambda: live.known["status"] == "ready")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 41, "a.b", "a\0"])
def test_names_of_states_are_no_paths(client, name):
    client.studio.live._process = None
    for what in ("save", "resume"):
        answer = client.post(f"/api/live/{what}", json={"name": name})
        assert answer.status_code == 400 and "no name for a state" in json.loads(answer.text)["error"]


def test_what_a_killed_studio_recorded_is_among_the_results(client, tmp_path):
    from video_gen.data.live_video import LiveMP4

    live = client.studio.live
    (live.folder / "recordings").mkdir(parents=True)
    with LiveMP4(live.folder / "recordings" / "live-1.mp4", 32, 32, 8) as writer:
        writer.write(np.zeros((16, 32, 32, 3), np.uint8), 8)
    client.portal.call(live.start)
    assert client.get("/api/results").json()["items"][0]["name"] == "live-1"


@needs_chromium
def test_the_page_starts_steers_and_goes_back(browser, model, tmp_path):  # noqa: F811
    from video_gen.web.studio.app import make_app
    from video_gen.web.studio.roots import Roots
    from video_gen.web.studio.studio import Studio

    studio = Studio(tmp_path / "out", str(model), Roots((tmp_path / "runs",)), Roots((tmp_path / "data",)), "cpu")
    with served(make_app(studio)) as address:
        page, wrong = opened_page(browser, f"{address}/live")
        start = page.get_by_role("button", name="Start", exact=True)
        start.wait_for()
        page.wait_for_function("() => !document.querySelector('button.primary').disabled", timeout=90_000)
        page.get_by_label("Prompt").fill("a red circle")
        start.click()
        page.wait_for_function("() => document.querySelector('.live canvas').width === 32", timeout=60_000)
        page.get_by_label("Prompt").fill("a blue square")
        page.keyboard.press("Enter")
        page.locator(".said li", has_text="a blue square").wait_for()
        page.wait_for_function("() => Number(document.querySelector('.timeline input').max) > 3", timeout=60_000)
        page.get_by_role("button", name="Pause").click()
        page.get_by_role("button", name="Go on").wait_for()
        until(lambda: len(studio.live.known["points"]) > 4)
        page.get_by_label("a point to go back to").fill("1")
        page.get_by_role("button", name="Go back to here").click()
        page.locator(".said li", has_text="a blue square").wait_for(state="detached")
        assert wrong == []
        page.close()
