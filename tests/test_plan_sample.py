"""What sampling is planned to take is what it takes: of both families, by each way to make a model fit."""

import json
import subprocess
import sys
from functools import cache

import pytest
import torch
from torch import nn

from video_gen.cli import main, of_what
from video_gen.errors import ConfigError, DataError, ShapeError
from video_gen.model.allocations import AllocationTracker
from video_gen.model.diffusion_config import DiffusionConfig
from video_gen.model.offload import Offload, resident_bytes
from video_gen.model.text import ByteTextEncoder, CachedTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig, TransformerConfig
from video_gen.model.vae_config import VAEConfig
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.transformer import WanTransformer
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.weights import keep_in
from video_gen.plan_sample import SamplePlan, kept_in, plan_sample, room_of
from video_gen.sampling.config import ClipSettings, SamplingConfig
from video_gen.sampling.fit import Fit
from video_gen.sampling.memory import alike, weight_bytes
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.sizes import Sizes, Weight, sizes_of

GPU = torch.device("cuda")
"""Planned for one the memory is that of tensors alone, which can be counted on a CPU, too."""


def pipeline(family: str, fit: Fit) -> VideoPipeline:
    torch.manual_seed(0)
    if family == "wan":
        vae = WanVAE(WanVAEConfig.preset("tiny-2.1"))
        transformer = WanTransformer(WanTransformerConfig.preset("tiny"))
        text = CachedTextEncoder(TextConfig(), lambda text: torch.zeros(24, 32))
    else:
        vae = VideoVAE(VAEConfig(widths=(16, 32), blocks=1, latent_channels=4))
        attention = "joint" if family == "joint" else "factorised"
        transformer = VideoTransformer(
            TransformerConfig(width=96, depth=4, head_dim=32, latent_channels=4, attention=attention, joint_every=2)
        )
        text = ByteTextEncoder(TextConfig())
    clip = ClipSettings(num_frames=17, fps=8, height=64, width=64)
    sampling = SamplingConfig(num_steps=2, guidance_scale=3.0)
    return VideoPipeline(vae, transformer, text, DiffusionConfig(), clip, sampling).settle(fit, "cpu")


def sizes_like(model: VideoPipeline, family: str) -> Sizes:
    def text() -> nn.Module:
        return Weight(0) if family == "wan" else ByteTextEncoder(model.text.config)

    kinds = (type(model.vae), type(model.transformer))
    return Sizes(
        family,
        model.config,
        lambda: kinds[0](model.vae.config),
        lambda: kinds[1](model.transformer.config),
        text,
    )


@cache
def planned(family: str) -> SamplePlan:
    sizes = sizes_like(pipeline(family, Fit()), family) if family != "tiny" else sizes_of("tiny")
    return plan_sample(sizes, sizes.job(), GPU)


def tensors_of(model: VideoPipeline, work) -> int:
    """Most bytes that are held at a time beside the weights."""
    parts = (model.vae, model.transformer, model.text)
    with AllocationTracker(x for part in parts for x in (*part.parameters(), *part.buffers())) as tracker:
        work()
        return tracker.peak


@pytest.mark.slow
@pytest.mark.parametrize("family", ["joint", "factorised", "wan"])
@pytest.mark.parametrize(
    "fit",
    [
        Fit(),
        Fit(weights="bf16"),
        Fit(weights="int8", branches="apart"),
        Fit(weights="bf16", branches="apart", vae_chunk=1),
    ],
    ids=["as it is", "bf16", "int8 apart", "small"],
)
def test_planned_memory_is_within_15_per_cent_of_what_tensors_take(family, fit):
    model = pipeline(family, fit)
    taken = tensors_of(model, lambda: model("a red circle and a blue square, fast", num_frames=17))
    weights = sum(map(weight_bytes, (model.vae, model.transformer, model.text)))
    same = [c for c in planned(family).choices if c.fit == fit]
    assert len(same) == 1
    assert same[0].bytes == pytest.approx(weights + taken, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("frames", [17, 41])
def test_so_are_videos_in_blocks(frames):
    model = pipeline("joint", Fit(weights="bf16"))
    sizes = sizes_like(model, "joint")
    taken = tensors_of(model, lambda: model("a red circle", num_frames=frames, block_frames=2))
    plan = plan_sample(sizes, sizes.job(frames, block_frames=2), GPU, kinds=("bf16",))
    weights = sum(map(weight_bytes, (model.vae, model.transformer, model.text)))
    assert plan.choices[0].bytes == pytest.approx(weights + taken, rel=0.15)


@pytest.mark.parametrize("kind", ["fp32", "bf16", "int8"])
def test_what_stays_on_the_device_is_known(kind):
    model = pipeline("joint", Fit()).transformer.requires_grad_(False)
    keep_in(model, kind)
    planned = resident_bytes(model)
    with Offload(model, "cpu") as offload:
        homes = {block.bytes.untyped_storage()._cdata for block in offload.blocks}
        stays = sum(
            x.nbytes for x in (*model.parameters(), *model.buffers()) if x.untyped_storage()._cdata not in homes
        )
        assert planned == stays + offload.places.nbytes


@pytest.mark.slow
def test_the_cheapest_that_fits():
    plan = planned("tiny")
    costs = [choice.cost for choice in plan.choices]
    assert costs == sorted(costs) and plan.cheapest(2**40) == plan.choices[0] and plan.choices[0].fit.weights != "int8"
    sizes_of_worth = [choice.bytes for choice in plan.worth()]
    assert sizes_of_worth == sorted(sizes_of_worth, reverse=True) and len(sizes_of_worth) > 3
    for choice in plan.worth():
        assert plan.cheapest(choice.bytes).bytes == choice.bytes
    rounded = plan.cheapest(2**40, Fit(weights="int8"))
    assert rounded.fit.weights == "int8"
    with pytest.raises(ConfigError, match=r"fit: 1 MiB are not enough for tiny at 17x64x64: the least is .*, with --"):
        plan.cheapest(2**20)
    assert json.loads(plan.to_json())["choices"][0]["bytes"] == plan.choices[0].bytes


def test_offloading_and_eight_bits_take_what_they_say():
    plan = planned("tiny")
    blocks = {(c.fit.weights, c.fit.offload): c.phases["blocks"] for c in plan.choices if c.fit.text_encoder == "cpu"}
    parts = plan.parts["bf16"]
    assert blocks["bf16", "off"] - blocks["bf16", "blocks"] == parts["transformer"] - parts["offloaded"]
    assert plan.parts["int8"]["transformer"] < parts["transformer"] < plan.parts["fp32"]["transformer"]


@pytest.mark.parametrize("height", [33, 40])
def test_sizes_are_those_that_sampling_takes(height):
    told = f"height is {height}; it must be a multiple of 16, such as 32 or 48"
    with pytest.raises(ShapeError, match=told):
        sizes_of("tiny").at(height, 32)
    with pytest.raises(ShapeError, match=told):
        pipeline("wan", Fit()).sized(height, 32)


@pytest.mark.parametrize("name", ["2.1-t2v-1.3b", "2.1-i2v-14b", "2.2-ti2v-5b", "2.2-a14b-t2v"])
def test_public_sizes_are_planned_without_weights(name):
    small = sizes_of(name).at(256, 256)
    model = kept_in(small.model(), "bf16")
    experts = 2 if "a14b" in name else 1
    layers = sum(x.numel() for x in model.transformer.parameters() if x.dtype == torch.bfloat16)
    billions = {"1.3b": 1.3, "14b": 14, "5b": 5, "t2v": 28}[name.rsplit("-", 1)[-1]]
    assert layers == pytest.approx(1e9 * billions, rel=0.2) and layers % experts == 0
    assert weight_bytes(model.text) > 1e10


@pytest.mark.slow
def test_a_public_size_is_planned_whole():
    small = sizes_of("2.1-t2v-1.3b").at(256, 256)
    plan = plan_sample(small, small.job(5), GPU, kinds=("bf16",))
    assert min(c.bytes for c in plan.choices) < 2**31 < max(c.bytes for c in plan.choices)


def test_blocks_that_are_alike_are_counted_together():
    assert list(alike([1, 2, 2, 2, 2, 1], 4)) == [
        (True, 1, 1),
        (False, 2, 1),
        (False, 2, 1),
        (False, 2, 2),
        (False, 1, 1),
    ]


def test_room_is_a_size_or_what_is_free():
    assert (
        room_of("12GiB", GPU) == 12 * 2**30 and room_of("1.5 GB", GPU) == 1_500_000_000 and room_of("800MB", GPU) == 8e8
    )
    assert 2**28 < room_of("auto", torch.device("cpu")) < 2**50
    with pytest.raises(ConfigError, match="fit '12': give auto, or a size such as 12GiB"):
        room_of("12", GPU)


@pytest.mark.slow
def test_the_command_says_it(capsys, tmp_path):
    words = [
        "plan",
        "sample",
        "--model",
        "tiny",
        "--device",
        "cuda",
        "--fit",
        "1GiB",
        "--output",
        str(tmp_path / "p.json"),
    ]
    assert of_what(words) == words and main(words) == 0
    said = capsys.readouterr().out
    assert "times guessed, since the device is not here" in said or torch.cuda.is_available()
    assert "into 1.00 GiB fits: " in said and json.loads((tmp_path / "p.json").read_text())["name"] == "tiny"
    assert main(["plan", "sample", "--model", "nowhere"]) == 2
    assert "public sizes are tiny, 2.1-t2v-1.3b" in capsys.readouterr().err
    with pytest.raises(DataError):
        sizes_of("nowhere")
    with pytest.raises(ShapeError):
        sizes_of("tiny").at(60, 64)


@pytest.mark.slow
def test_a_video_is_made_as_it_fits(tmp_path, capsys):
    words = ["sample", "a red circle", "--model", "bounce", "--fit", "2GiB", "--weights", "int8", "--num-steps", "1"]
    words += ["--num-frames", "5", "--output", str(tmp_path)]
    assert main(words) == 0
    assert "fit: --weights int8; " in capsys.readouterr().err and list(tmp_path.glob("*.mp4"))


@pytest.mark.slow
@pytest.mark.parametrize("fit", [Fit(weights="bf16"), Fit(weights="int8", text_encoder="freed")], ids=["bf16", "int8"])
def test_the_process_takes_what_is_planned(fit, tmp_path):
    code = (
        "import sys, torch; from video_gen.cli import main; from video_gen.training.monitor import memory_mb;"
        "assert main(sys.argv[1:]) == 0; print(memory_mb(torch.device('cpu')))"
    )
    words = ["--weights", fit.weights, "--text-encoder", fit.text_encoder]
    made = ["sample", "a red circle", "--model", "bounce", "--num-steps", "2", *words, "--output", str(tmp_path)]
    taken = float(
        subprocess.run([sys.executable, "-c", code, *made], check=True, capture_output=True, text=True).stdout.split()[
            -1
        ]
    )
    planned = ["plan", "sample", "--model", "bounce", "--device", "cpu", "--output", str(tmp_path / "p.json")]
    subprocess.run([sys.executable, "-m", "video_gen.cli", *planned], check=True)
    found = json.loads((tmp_path / "p.json").read_text())["choices"]
    (same,) = [c for c in found if Fit.model_validate(c["fit"]) == fit]
    assert same["bytes"] / 2**20 == pytest.approx(taken, rel=0.15)
