"""Public models are made to fit, too: planned from their files alone, and with the same video from the CPU's memory."""

import numpy as np
import pytest
import torch
from wan_models import build, save_diffusers, save_split

from video_gen.model.weights import in_eight_bits
from video_gen.plan_sample import kept_in, plan_sample
from video_gen.sampling.fit import Fit
from video_gen.sampling.memory import weight_bytes
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sizes import sizes_of

PROMPT = "a red circle, fast"
OPTIONS = dict(seed=1, num_steps=2, num_frames=9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Models of one transformer, and of two experts, as each of two tools keeps them; made when asked for."""
    made, root = {}, tmp_path_factory.mktemp("models")

    def of(variant: str, save=save_diffusers):
        key = variant, save.__name__
        if key not in made:
            made[key] = save(build(variant), root / "-".join(key))
        return made[key]

    return of


@pytest.mark.parametrize("save", [save_diffusers, save_split])
@pytest.mark.parametrize("variant", ["t2v", "i2v", "a14b-t2v"])
def test_sizes_are_known_from_the_files(variant, save, folders):
    folder = folders(variant, save)
    loaded, sizes = VideoPipeline.from_pretrained(folder), sizes_of(folder)
    model = sizes.model()
    assert model.config.clip == loaded.config.clip and model.config.sampling == loaded.config.sampling
    for part in ("vae", "transformer"):
        assert weight_bytes(getattr(model, part)) == weight_bytes(getattr(loaded, part)), part
    assert weight_bytes(model.text) == pytest.approx(weight_bytes(loaded.text), rel=0.2)  # a file has a head, too
    assert (sizes.vision > 0) == (variant == "i2v")
    for kind in ("bf16", "int8"):
        kept = VideoPipeline.from_pretrained(folder, fit=Fit(weights=kind))
        assert weight_bytes(kept_in(model, kind).transformer) == weight_bytes(kept.transformer)


@pytest.mark.parametrize("variant", ["t2v", "a14b-t2v"])
def test_the_video_is_the_same(variant, folders):
    def frames(fit: Fit) -> np.ndarray:
        return VideoPipeline.from_pretrained(folders(variant), fit=fit, texts=[PROMPT]).sized(32, 48)(PROMPT, **OPTIONS)

    made = frames(Fit())
    for fit in (Fit(weights="bf16"), Fit(weights="bf16", offload="blocks"), Fit(text_encoder="cpu")):
        assert np.array_equal(frames(fit), made), fit
    freed = frames(Fit(text_encoder="freed", branches="apart"))
    assert np.abs(freed.astype(float) - made).mean() < 2


@pytest.mark.slow
def test_experts_fit_in_eight_bits_each_block_on_its_own(folders):
    model = VideoPipeline.from_pretrained(folders("a14b-t2v"), fit=Fit(weights="int8", offload="blocks"))
    assert len(model.offloads) == 2 and in_eight_bits(model.transformer)
    sizes = sizes_of(folders("a14b-t2v")).at(32, 48)
    plan = plan_sample(sizes, sizes.job(9), torch.device("cuda"), kinds=("int8",))
    homes = {block.bytes.untyped_storage()._cdata for offload in model.offloads for block in offload.blocks}
    own = (*model.transformer.parameters(), *model.transformer.buffers())
    stays = sum(x.nbytes for x in own if x.untyped_storage()._cdata not in homes)
    assert plan.parts["int8"]["offloaded"] == stays + sum(offload.places.nbytes for offload in model.offloads)
