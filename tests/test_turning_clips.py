"""Training on clips whose caption changes, and on endings: what counts, what is seen, and what may change nothing."""

import pytest
import torch
from test_parallel import CHANNELS, FRAMES, SIZE, Latents, diffusion_run

from video_gen.cli import main
from video_gen.config import validate
from video_gen.data.latents import ENDED, LatentSet
from video_gen.errors import ConfigError, DataError
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.training.caches import check_captions, encode_latents
from video_gen.training.diffusion_task import DiffusionTask, counted
from video_gen.training.recipes import DiffusionRun, DistillRun, ModeConfig
from video_gen.training.task import sample_generators


class Turning(Latents):
    """Clips of five latent frames, whose caption changes at the second and the fourth, and stills of their last frames."""

    def captions(self, index):
        return [(0, "a"), (1, "b"), (3, "c")]

    def led(self, index):
        return False

    def ending(self, index):
        return self[index][:, -1:] + 0.5


def task_of(**modes) -> DiffusionTask:
    torch.manual_seed(0)
    run = diffusion_run(modes=ModeConfig(**{"text_dropout": 0.0, "history_dropout": 0.0, "noisy_history": 0.0} | modes))
    transformer = VideoTransformer(run.transformer)
    with torch.no_grad():
        for p in transformer.parameters():
            p.add_(0.05 * torch.randn_like(p))
    clips = Turning()
    return DiffusionTask(run, transformer, ByteTextEncoder(run.text), torch.nn.Identity(), clips, clips)  # type: ignore[arg-type]


def test_a_caption_goes_with_the_frames_that_show_it():
    task, said = task_of(), {}
    for step in range(20):
        batch = task.batch(step)
        for text, shown in zip(batch["text"], batch["shown"]):
            said.setdefault(tuple(text.flatten().tolist()), set()).add(tuple(shown.tolist()))
    spans = {(True, False, False, False, False), (False, True, True, False, False), (False, False, False, True, True)}
    assert sorted(map(len, said.values())) == [1, 1, 1] and {s for shown in said.values() for s in shown} == spans


def test_without_a_caption_no_change_is_learned():
    batch = task_of(text_dropout=1.0).batch(0)
    assert batch["shown"].tolist() == [[True, False, True, False, True]] * 4


def test_clips_that_never_change_count_whole():
    task = task_of()
    task.train = task.validation = Latents()  # type: ignore[assignment]
    assert "shown" not in task.batch(0) and counted(task.batch(0), (1, 2, 2)) is None


@pytest.mark.parametrize(
    ("blocks", "frames"),
    [((1, 1, 1, 1, 1), [1, 2]), ((1, 2, 2), [1, 2]), ((1, 1, 2, 1), [1, 2]), ((5,), []), ((3, 2), [])],
)
def test_a_block_counts_if_it_begins_with_its_caption(blocks, frames):
    shown = torch.tensor([[False, True, True, False, False]])
    assert counted({"shown": shown}, blocks)[0].nonzero().flatten().tolist() == frames


def test_what_comes_after_the_caption_has_no_part_in_the_loss():
    """And what comes before is history: it is seen."""
    task, blocks = task_of(), (1, 2, 2)
    batch = task.batch(0) | {"shown": torch.tensor([[False, True, True, False, False]] * 4)}

    def loss(change: slice) -> float:
        latents = batch["latents"].clone()
        latents[:, :, change] += 1.0
        generators = sample_generators(0, 0, range(4), "cpu")
        t = torch.full((4, FRAMES), 0.5)
        return float(task._losses_at(batch | {"latents": latents}, t, blocks, generators, history=True).sum().detach())

    same = loss(slice(0, 0))
    assert loss(slice(3, 5)) == same and abs(loss(slice(0, 1)) - same) > 1e-6 and abs(loss(slice(1, 2)) - same) > 1e-3


def test_samples_that_are_shown_their_ending_lead_to_it_and_others_do_not_see_it():
    task = task_of(endings=0.5)
    shares = [task.batch(step)["ending_visible"].float().mean() for step in range(40)]
    assert 0.35 < float(sum(shares)) / 40 < 0.65
    batch, t, blocks = task.batch(0), torch.full((4, FRAMES), 0.5), (1, 2, 2)
    assert batch["ending"].shape == (4, CHANNELS, 1, *SIZE)

    def losses(ending: torch.Tensor) -> torch.Tensor:
        given = {k: v for k, v in batch.items() if k != "shown"} | {"ending": ending}
        given["ending_visible"] = torch.tensor([True, False, True, False])
        return task._losses_at(given, t, blocks, sample_generators(0, 0, range(4), "cpu"), history=True).detach()

    difference = (losses(batch["ending"] + 1.0) - losses(batch["ending"])).abs()
    assert (difference[[0, 2]] > 1e-6).all() and (difference[[1, 3]] == 0).all()
    assert "ending" not in task_of().batch(0)


def test_clips_that_are_led_are_always_shown_their_ending():
    task = task_of(endings=1e-9)
    task.train.led = lambda index: index % 2 == 0  # type: ignore[method-assign]
    for step in range(5):
        assert task.batch(step)["ending_visible"].tolist() == [i % 2 == 0 for i in task.sampler.indices(step)]
    task.validation.led = task.train.led  # type: ignore[method-assign]
    assert task._held_out([0, 1])["ending_visible"].tolist() == [True, False]


def test_led_clips_need_endings_and_endings_need_whole_frames(tmp_path, capsys):
    size = ["--height", "16", "--width", "16"]
    assert (
        main(["worlds", "--led", "0.5", "--num-clips", "6", "--num-frames", "9", *size, "--output", str(tmp_path)]) == 0
    )
    run = DiffusionRun(data={"folder": tmp_path})
    with pytest.raises(
        DataError, match=r"clips are led by their last frame, such as clip_00000\d\.mp4, and modes\.endings is 0"
    ):
        check_captions(run)
    check_captions(run.replace(modes=ModeConfig(endings=0.1)))
    for other in ({"routing": {"skip": 0.5}}, {"parallel": {"context": 2}}):
        with pytest.raises(ConfigError, match=r"modes\.endings shows frames whole"):
            validate(DiffusionRun, {"modes": {"endings": 0.1}, "transformer": {"depth": 4}} | other, source="here")
    with pytest.raises(ConfigError, match="by matching a student makes its own clips"):
        validate(DistillRun, {"modes": {"endings": 0.1}, "distill": {"method": "matching"}}, source="here")


@pytest.mark.slow
def test_a_run_with_changes_and_endings_from_the_command_line(tmp_path, capsys):
    size = ["--height", "16", "--width", "16"]
    world = [
        "worlds",
        "--changes",
        "2",
        "--led",
        "0.4",
        "--num-clips",
        "8",
        "--num-images",
        "2",
        "--num-frames",
        "17",
        *size,
    ]
    assert main([*world, "--output", str(tmp_path / "d")]) == 0
    data = [
        "--data.folder",
        str(tmp_path / "d"),
        "--data.num-frames",
        "17",
        "--data.height",
        "16",
        "--data.width",
        "16",
    ]
    vae = ["--vae.widths", "8", "8", "--vae.latent-channels", "4", "--loop.train-steps", "1", "--loop.batch-size", "2"]
    few = ["--loop.no-tensorboard", "--loop.device", "cpu"]
    assert main(["train", "vae", *data, *vae, *few, "--run", str(tmp_path / "v")]) == 0
    sizes = ["--transformer.width", "32", "--transformer.depth", "2", "--transformer.head-dim", "8"]
    place = ["--vae", str(tmp_path / "v/model/vae"), "--latents", str(tmp_path / "z"), "--modes.endings", "0.5"]
    short = ["--loop.train-steps", "4", "--loop.batch-size", "2", "--num-samples", "1", "--sampling.num-steps", "1"]
    assert main(["train", "diffusion", *data, *place, *sizes, *short, *few, "--run", str(tmp_path / "t")]) == 0
    model = str(tmp_path / "t" / "model")
    assert main(["sample", "a red circle, fast", "--model", model, "--loop", "--output", str(tmp_path / "out")]) == 0
    run = DiffusionRun(
        data={"folder": tmp_path / "d", "num_frames": 17, "height": 16, "width": 16},
        vae=tmp_path / "v/model/vae",
        latents=tmp_path / "z",
        modes={"endings": 0.5},
    )
    ended = encode_latents(run)[0]
    plain = encode_latents(run.replace(modes=ModeConfig()))[0]
    assert isinstance(ended, LatentSet) and ended.folder.name == plain.folder.name + ENDED
    for index in range(len(ended)):
        torch.testing.assert_close(ended[index], plain[index], atol=0.02, rtol=0.02)
        assert ended.buckets[index] == plain.buckets[index] and ended.ending(index).shape[1] == 1
    still = next(i for i, bucket in enumerate(ended.buckets) if bucket[0] == 1)
    torch.testing.assert_close(ended.ending(still), ended[still])  # an image is its own last frame
