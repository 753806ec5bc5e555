"""Whole pipelines of the Wan family: the same noise and times give the latents of diffusers' pipelines, in each variant."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from wan_models import VARIANTS, build, save_diffusers

from video_gen.data.video_file import probe
from video_gen.errors import ShapeError
from video_gen.sampling import pictures
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sampling.rollout import advance, begin
from video_gen.sampling.solvers import generators_for

SIZE = dict(height=32, width=48)
LARGE = dict(height=64, width=96)
FRAMES, STEPS, SEED = 9, 8, 5
PROMPT, UNWANTED = "a red circle, fast", "a blue square"


def size_of(variant: str) -> dict[str, int]:
    return LARGE if variant == "ti2v" else SIZE


def picture(variant: str, seed: int = 0) -> np.ndarray:
    size = size_of(variant)
    return (np.random.default_rng(seed).random((size["height"], size["width"], 3)) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """diffusers' pipeline and ours of the same weights, of each variant; made when asked for."""
    made, root = {}, tmp_path_factory.mktemp("models")

    def of(variant: str, scheduler=None):
        key = variant, type(scheduler).__name__
        if key not in made:
            theirs = build(variant, scheduler)
            folder = save_diffusers(theirs, root / "-".join(key))
            made[key] = theirs, VideoPipeline.from_pretrained(folder).sized(**size_of(variant))
        return made[key]

    return of


def ours(model: VideoPipeline, first=None, last=None, num_frames: int = FRAMES, **settings) -> torch.Tensor:
    """Latents in float32, which `generate` makes in bfloat16."""
    sampling = model.config.sampling.replace(num_steps=STEPS, negative_prompt=UNWANTED, **settings)
    with torch.no_grad():
        if first is not None:
            return pictures.make(
                model, [PROMPT], [SEED], sampling, num_frames, first[None], None if last is None else last[None]
            )
        total = model.latent_frames(num_frames)
        conditioned = model.block_model([PROMPT], sampling, total)
        c, h, w = model.latent_frame()
        state = begin(conditioned, None, (), generators_for([SEED], "cpu"))
        return advance(conditioned, state, (c, total, h, w), model.diffusion, sampling).block


def theirs(pipe, variant: str, num_frames: int = FRAMES, **options) -> torch.Tensor:
    return pipe(
        prompt=PROMPT, negative_prompt=UNWANTED, num_frames=num_frames, num_inference_steps=STEPS, output_type="latent",
        generator=torch.Generator().manual_seed(SEED), **size_of(variant), **options,
    ).frames  # fmt: skip


def apart(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("scale", [1.0, 5.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_latents_are_those_of_diffusers(variant, scale, models):
    pipe, model = models(variant)
    images, first = {}, None
    if "i2v" in variant:
        first = picture(variant)
        images = {"image": Image.fromarray(first)}
    wanted = theirs(pipe, variant, guidance_scale=scale, **images)
    assert apart(ours(model, first, guidance_scale=scale, late_scale=None), wanted) < 1e-5


def test_two_experts_have_guidance_of_their_own(models):
    pipe, model = models("a14b-t2v")
    wanted = theirs(pipe, "a14b-t2v", guidance_scale=4.0, guidance_scale_2=2.0)
    found = ours(model, guidance_scale=4.0, late_scale=(0.875, 2.0))
    assert apart(found, wanted) < 1e-5
    assert apart(ours(model, guidance_scale=4.0, late_scale=None), wanted) > 1e-3  # and it matters


def test_first_and_last_picture(models):
    pipe, model = models("a14b-i2v")
    first, last = picture("a14b-i2v"), picture("a14b-i2v", 1)
    images = {"image": Image.fromarray(first), "last_image": Image.fromarray(last)}
    wanted = theirs(pipe, "a14b-i2v", guidance_scale=3.5, **images)
    assert apart(ours(model, first, last, guidance_scale=3.5), wanted) < 1e-5
    assert apart(ours(model, first, guidance_scale=3.5), wanted) > 1e-3


def test_a_picture_of_the_five_billion_model_is_its_first_frame(models):
    """Its text to video pipeline is one class in diffusers, image to video another of the same parts."""
    import diffusers

    pipe, model = models("ti2v")
    parts = {name: part for name, part in pipe.components.items() if part is not None}
    by_picture = diffusers.WanImageToVideoPipeline(**parts, expand_timesteps=True)
    by_picture.set_progress_bar_config(disable=True)
    first = picture("ti2v")
    wanted = theirs(by_picture, "ti2v", guidance_scale=5.0, image=Image.fromarray(first))
    found = ours(model, first, guidance_scale=5.0)
    assert apart(found, wanted) < 1e-5
    with torch.no_grad():
        torch.testing.assert_close(found[:, :, :1], model.encode(first[None, None]))


def test_eulers_scheduler(models):
    diffusers = pytest.importorskip("diffusers")
    pipe, model = models("t2v", diffusers.FlowMatchEulerDiscreteScheduler(shift=5.0))
    sampling = model.config.sampling
    assert (sampling.solver, sampling.spacing, sampling.shift, sampling.whole_times) == (
        "euler",
        "flow_match",
        5.0,
        None,
    )
    wanted = theirs(pipe, "t2v", guidance_scale=5.0)
    assert apart(ours(model, guidance_scale=5.0), wanted) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_videos(variant, models):
    _, model = models(variant)
    options = dict(seed=SEED, num_steps=2, num_frames=FRAMES)
    if "i2v" in variant or variant == "ti2v":
        options["image"] = picture(variant)
    made = model(PROMPT, **options)
    size = size_of(variant)
    assert made.shape == (FRAMES, size["height"], size["width"], 3) and made.dtype == np.uint8
    both = model.generate([PROMPT, ""], seeds=[SEED, 1], **{name: x for name, x in options.items() if name != "seed"})
    assert abs(both[0].astype(int) - made).mean() < 2  # bfloat16, in another batch
    assert abs(both[1].astype(int) - made).mean() > 4


def test_a_video_is_changed_at_a_strength(models):
    _, model = models("t2v")
    source = model(PROMPT, seed=1, num_steps=2, num_frames=FRAMES)
    with model.inference():
        kept = model.decode(model.encode(source[None]), None)[0][0].astype(int)
    made = [model(PROMPT, seed=SEED, num_steps=4, source=source, strength=by).astype(int) for by in (0.0, 0.3, 0.9)]
    far = [abs(one - kept).mean() for one in made]
    assert far[0] < 2 and far[0] < far[1] < far[2]


def test_what_a_model_of_pictures_takes(models):
    _, model = models("i2v")
    first = picture("i2v")
    for options, message in (
        ({}, "this model begins with a picture; give one"),
        (dict(video=first[None].repeat(5, 0)), "takes no video"),
        (dict(image=first, loop=True), "takes no loop"),
        (dict(image=first, block_frames=1), "takes no block_frames"),
        (dict(image=first, last_image=first), "knows of a first picture alone"),
    ):
        with pytest.raises(ShapeError, match=message):
            model(PROMPT, num_frames=FRAMES, **options)
    with pytest.raises(ShapeError, match="and no stream"):
        model.stream(PROMPT)
    with pytest.raises(ShapeError, match="height is 40; it must be a multiple of 16, such as 32 or 48"):
        model.sized(height=40)


@pytest.mark.parametrize("variant", ["t2v", "a14b-t2v", "ti2v"])
def test_streams(variant, models, tmp_path):
    """Block after block; saved and gone on with, it is the stream that was never stopped."""
    _, model = models(variant)
    options = dict(seed=SEED, block_frames=2, num_steps=2)
    if variant == "ti2v":
        options["image"] = picture(variant)
    with model.stream(PROMPT, **options) as stream:
        shown = [next(stream) for _ in range(2)]
        stream.save(tmp_path / "state.safetensors")
        after = [next(stream) for _ in range(3)]
    assert shown[0].shape[0] == (8 if variant == "ti2v" else 1) and after[0].shape[0] == 8
    with type(stream).load(tmp_path / "state.safetensors", model) as again:
        for frames in after:
            assert np.array_equal(next(again), frames)


def test_from_the_command_line(tmp_path, capsys):
    from video_gen.cli import main

    folder = save_diffusers(build("t2v"), tmp_path / "model")
    size = ["--height", "32", "--width", "48", "--num-steps", "2", "--device", "cpu"]
    said = ["sample", PROMPT, "--model", str(folder), "--num-frames", "5", "--output", str(tmp_path / "out")]
    assert main([*said, *size]) == 0
    facts = json.loads(next((tmp_path / "out").glob("*.json")).read_text(encoding="utf-8"))
    assert facts["solver"] == "unipc" and facts["shift"] == 3.0 and facts["negative_prompt"].endswith("倒着走")
    film, state = tmp_path / "stream.mp4", tmp_path / "state.safetensors"
    said = ["stream", PROMPT, "--model", str(folder), "--block-frames", "1", "--seconds", "0.3", "--output", str(film)]
    assert main([*said, "--save", str(state), *size]) == 0
    assert main(["stream", "--resume", str(state), "--seconds", "0.3", "--device", "cpu", "--output", str(film)]) == 0
    found = [probe(path) for path in sorted(tmp_path.glob("stream*.mp4"))]
    assert [(one.height, one.width) for one in found] == [(32, 48)] * 2
    capsys.readouterr()
    assert main(["sample", "x", "--model", str(folder), "--height", "40"]) == 2
    assert capsys.readouterr().err.strip().endswith("height is 40; it must be a multiple of 16, such as 32 or 48")
    assert main(["sample", "x", "--model", str(folder / "vae" / "diffusion_pytorch_model.safetensors")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
