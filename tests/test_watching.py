"""What is told of a video while it is made: it changes nothing, ends where the video does, and can stop it."""

import numpy as np
import pytest
import torch
from playable import playable

from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.sampling.draft_decoder import DraftDecoder, clouds
from video_gen.sampling.solvers import SOLVERS


@pytest.fixture(scope="module")
def pipe():
    return playable()


@pytest.mark.parametrize("solver", SOLVERS)
def test_watching_changes_nothing_and_its_last_estimate_is_the_video(pipe, solver):
    options = dict(solver=solver, num_steps=3, seed=1, block_frames=2)
    seen = []
    made = pipe("a red circle", watch=seen.append, **options)
    np.testing.assert_array_equal(made, pipe("a red circle", **options))
    done = [step.done for step in seen]
    assert done == sorted(done) and done[-1] == 1 and 0 < done[0] < 1
    last = {step.block: step for step in seen}
    assert [step.start for step in last.values()] == np.cumsum([0, *(s.estimate.shape[2] for s in last.values())])[
        :-1
    ].tolist()
    with pipe.inference():
        frames = pipe.decode(torch.cat([step.estimate for step in last.values()], dim=2), None)[0][0]
    assert np.abs(frames.astype(int) - made).max() <= 1  # chunk by chunk


def test_a_source_at_a_strength_has_fewer_steps(pipe):
    seen = []
    source = np.zeros((pipe.config.clip.num_frames, 16, 16, 3), np.uint8)
    pipe("", source=source, strength=0.5, num_steps=4, solver="euler", watch=seen.append)
    assert {step.steps for step in seen} == {2} and seen[-1].done == 1


def test_who_watches_can_stop_it(pipe):
    seen = []

    def enough(step):
        seen.append(step)
        if len(seen) == 2:
            raise KeyboardInterrupt("enough")

    with pytest.raises(KeyboardInterrupt, match="enough"):
        pipe("a red circle", num_steps=4, watch=enough)
    assert len(seen) == 2


@pytest.mark.parametrize(("temporal", "spatial"), [(1, 4), (4, 8)])
def test_the_draft_of_a_linear_decoder_is_its_video(temporal, spatial):
    torch.manual_seed(0)
    vae = VideoVAE(
        VAEConfig(spatial_stride=spatial, temporal_stride=temporal, latent_channels=6, widths=(16,), stem=4)
    ).eval()
    vae.fit_linear_path(clouds(4, 1 + 4 * temporal, 8 * spatial))
    decoder = DraftDecoder.fit(vae)
    with torch.no_grad():
        latents = vae.encode(clouds(1, 1 + 2 * temporal, 4 * spatial)).mean
        true = ((vae.decode(latents)[0].clamp(-1, 1) + 1) * 127.5).movedim(0, -1).numpy()
    draft = decoder(latents[0])
    assert draft.shape == true.shape and np.abs(draft - true).mean() < 2
    np.testing.assert_array_equal(decoder(latents[0, :, 1:], start=1), draft[1:])


def test_a_draft_is_as_small_and_as_short_as_asked_for():
    vae = VideoVAE(VAEConfig(spatial_stride=8, temporal_stride=4, latent_channels=4, widths=(16,), stem=4)).eval()
    vae.fit_linear_path(clouds(4, 9, 64))
    decoder, latents = DraftDecoder.fit(vae), torch.randn(4, 11, 6, 10)
    assert decoder(latents).shape == (24, 48, 80, 3)
    assert decoder(latents, side=40, most=5).shape == (5, 24, 40, 3)
    assert decoder(latents, side=4).shape == (24, 6, 10, 3)  # no less than a pixel each
    large, small = decoder(latents, most=41), decoder(latents, side=40, most=41)
    pooled = large.reshape(41, 24, 2, 40, 2, 3).mean((2, 4))
    assert np.abs(pooled - small).mean() < 8  # but for what is clipped
