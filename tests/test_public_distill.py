"""Distilling from a public teacher: a small random one in a released layout, by both ways; what does not fit is refused."""

import pytest
import torch
from test_public_training import LOOP, made  # noqa: F401
from wan_models import build, save_diffusers

from video_gen.data.config import ClipConfig
from video_gen.errors import ConfigError
from video_gen.model.wan.transformer import WanTransformer
from video_gen.sampling.pipeline import VideoPipeline
from video_gen.train import train_distill
from video_gen.training.config import OptimConfig
from video_gen.training.recipes import DistillConfig, DistillRun, ModeConfig


def run_of(made, **changes):  # noqa: F811
    folder, teacher = made
    values = dict(
        teacher=teacher,
        data=ClipConfig(folder=folder / "data", num_frames=9, height=32, width=32, validation_fraction=0.25),
        latents=folder / "latents",
        distill=DistillConfig(guidance_scale=2.0, teacher_steps=4),
        num_samples=1,
        loop=LOOP,
        optim=OptimConfig(learning_rate=0.01, warmup_steps=0),
    )
    return DistillRun(**values | changes)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["consistency", "matching"])
@pytest.mark.parametrize("forced", [None, 1.0])
def test_a_public_teacher(made, tmp_path, method, forced, capsys):  # noqa: F811
    modes = ModeConfig(history_dropout=0.0, **({} if forced is None else {"teacher_forcing": forced}))
    distill = DistillConfig(method=method, guidance_scale=2.0, teacher_steps=4, critic_steps=1)
    train_distill(run_of(made, distill=distill, modes=modes), tmp_path / "run")
    assert ("is distilled so (modes.teacher_forcing 0)" in capsys.readouterr().out) == (forced is None)
    teacher, student = (VideoPipeline.from_pretrained(p) for p in (made[1], tmp_path / "run/model"))
    assert isinstance(student.transformer, WanTransformer) and student.config.family == "wan"
    assert student.text.config == teacher.text.config
    assert (student.config.sampling.solver, student.config.sampling.num_steps) == ("renoise", 4)
    moved = [not torch.equal(a, b) for a, b in zip(teacher.transformer.parameters(), student.transformer.parameters())]
    assert all(moved)
    assert student("a red circle", seed=1).shape == (9, 32, 32, 3)
    if method == "matching" and forced:  # an earlier student of the same teacher
        train_distill(run_of(made, distill=distill, modes=modes, init=tmp_path / "run/model"), tmp_path / "again")


def test_what_is_not_distilled_is_told(made, tmp_path):  # noqa: F811
    for variant, said in (
        ("a14b-t2v", "has two experts, which are not distilled"),
        ("i2v", "from a picture beside them"),
    ):
        teacher = save_diffusers(build(variant), tmp_path / variant)
        with pytest.raises(ConfigError, match=said):
            train_distill(run_of(made, teacher=teacher), tmp_path / "run")
    with pytest.raises(ConfigError, match=r"modes\.endings is 0\.2"):
        train_distill(run_of(made, modes=ModeConfig(endings=0.2)), tmp_path / "run")
