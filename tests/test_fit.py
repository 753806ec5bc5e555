"""A model that is made to fit gives what it gives: exactly, or closely where weights are rounded."""

import numpy as np
import pytest
import torch

from video_gen.errors import ConfigError
from video_gen.model.lent_text import REMEMBERED, lent_text
from video_gen.model.text import load_text_config, load_text_encoder
from video_gen.sampling.fit import Fit
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.shipped import find_model

PROMPT, SETTINGS = "a red circle, fast", {"seed": 3, "num_steps": 2}


@pytest.fixture(scope="module")
def video():
    return VideoPipeline.from_pretrained("bounce")(PROMPT, **SETTINGS)


@pytest.mark.parametrize(
    "fit",
    [
        Fit(weights="bf16"),
        Fit(offload="blocks"),
        Fit(text_encoder="cpu"),
        Fit(weights="bf16", offload="blocks", text_encoder="cpu"),
    ],
    ids=str,
)
def test_the_video_is_the_same(fit, video):
    assert np.array_equal(VideoPipeline.from_pretrained("bounce", fit=fit)(PROMPT, **SETTINGS), video)


@pytest.mark.parametrize(
    ("fit", "most"), [(Fit(text_encoder="freed"), 0.5), (Fit(vae_tile=32, vae_chunk=1), 1.0)], ids=str
)
def test_the_video_is_close(fit, most, video):
    made = VideoPipeline.from_pretrained("bounce", fit=fit, texts=[PROMPT])(PROMPT, **SETTINGS)
    assert np.abs(made.astype(float) - video).mean() < most


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.03), ("fp8", 0.1)])
def test_what_a_trained_model_estimates_is_close_in_eight_bits(kind, most):
    def velocity(fit):
        pipeline = VideoPipeline.from_pretrained("bounce", fit=fit)
        noisy = torch.randn(2, *pipeline.latent_frame(), generator=torch.Generator().manual_seed(0))[:, :, None]
        with pipeline.inference():
            model = pipeline.block_model([PROMPT] * 2, pipeline.config.sampling, 1)
            return (noisy - model.denoiser(None, ("full",))(noisy, torch.full((2,), 0.8))[0]) / 0.8

    exact = velocity(Fit())
    assert 0 < float((velocity(Fit(weights=kind)) - exact).norm() / exact.norm()) < most


def test_a_stream_can_be_steered_while_blocks_come_and_go():
    def frames(fit):
        pipeline = VideoPipeline.from_pretrained("bounce", fit=fit)
        with pipeline.stream(PROMPT, **SETTINGS) as stream:
            made = [next(stream), next(stream)]
            stream.steer("two blue squares, slow")
            return np.concatenate([*made, next(stream), next(stream)])

    assert np.array_equal(frames(Fit(offload="blocks")), frames(Fit()))


def test_a_lent_encoder_says_what_it_would_and_is_loaded_for_new_texts_alone():
    folder = find_model("bounce") / "text"
    loads, encoder = [], load_text_encoder(folder)

    def load():
        loads.append(1)
        return load_text_encoder(folder)

    lent = lent_text(load, load_text_config(folder), ["a red circle", "a blue square, fast"])
    texts = ["a blue square, fast", "", "a red circle"]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected, seen = encoder(encoder.tokenise(texts))
        tokens, visible = lent(lent.tokenise(texts))
    assert torch.equal(seen, visible) and len(loads) == 1 and lent.width == encoder.width
    assert torch.allclose(tokens[visible], expected[seen].float(), atol=0.05)
    lent.tokenise(["a green triangle"])
    assert len(loads) == 2
    assert len(lent.read.__self__.kept) == 4
    lent.read.__self__.encode([f"{n} circles" for n in range(REMEMBERED)])
    assert len(lent.read.__self__.kept) == REMEMBERED


def test_a_fit_can_change_and_mistakes_are_told(video):
    pipeline = VideoPipeline.from_pretrained("bounce", fit=Fit(offload="blocks"))
    assert np.array_equal(pipeline.settle(Fit(weights="bf16"), "cpu")(PROMPT, **SETTINGS), video)
    assert not pipeline.offloads
    with pytest.raises(ConfigError, match=r"vae_tile 35 must be a multiple of 4, as 32 and 36 are"):
        pipeline.settle(Fit(vae_tile=35), "cpu")
    with pytest.raises(ConfigError, match="in eight bits already"):
        pipeline.settle(Fit(weights="int8"), "cpu").settle(Fit(), "cpu")
