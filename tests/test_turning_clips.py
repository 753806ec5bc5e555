"""Training on clips whose caption changes, and on endings: what counts, what is seen, and what may change nothing."""

import pytest
import torch
from test_parallel import CHANNELS, FRAMES, SIZE, Latents, diffusion_run

from video_gen.cli import main
from video_gen.data.latents import ENDED, LatentSet
from video_gen.model.text import ByteTextEncoder
from video_gen.model.transformer import VideoTransformer
from video_gen.training.caches import encode_latents
from video_gen.training.diffusion_task import DiffusionTask, counted
from video_gen.training.recipes import DiffusionRun, ModeConfig
from video_gen.training.task import sample_generators


class Turning(Latents):
    """Clips of five latent frames, whose caption changes at the second and the fourth, and stills of their last frames."""

    def captions(self, index):
        return [(0, "a"), (1, "b"), (3, "c")]

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


def test_blocks_with_an_ending_lead_to_it_and_others_do_not_see_it():
    task, ended = task_of(endings=1.0, teacher_forcing=1.0), 0
    for step in range(10):
        batch, blocks = task.batch(step), task.blocks(step, FRAMES)
        assert sum(blocks) == FRAMES and blocks[0] == 1 and batch["ending"].shape == (4, CHANNELS, 1, *SIZE)
        ended += len(blocks) > 2

        def loss(at: slice, ending: torch.Tensor, step: int = step, batch=batch, blocks=blocks) -> float:
            shown = torch.zeros(4, FRAMES, dtype=torch.bool)
            shown[:, at] = True
            given = batch | {"ending": ending, "shown": shown}
            t, generators = torch.full((4, FRAMES), 0.5), sample_generators(0, step, range(4), "cpu")
            return float(task._losses_at(given, t, blocks, generators, history=True).sum().detach())

        last, before = slice(FRAMES - blocks[-1], FRAMES), slice(0, FRAMES - blocks[-1])
        other = batch["ending"] + 1.0
        assert loss(before, other) == loss(before, batch["ending"])
        assert abs(loss(last, other) - loss(last, batch["ending"])) > 1e-6
    assert ended
    assert "ending" not in task_of().batch(0)


def test_images_and_bidirectional_steps_have_no_ending():
    assert task_of(endings=1.0, teacher_forcing=0.0)._practice(0, 5) == ((5,), False)
    assert task_of(endings=1.0)._practice(0, 1) == ((1,), False)


def test_a_run_with_changes_and_endings_from_the_command_line(tmp_path, capsys):
    size = ["--height", "16", "--width", "16"]
    world = ["worlds", "--changes", "2", "--num-clips", "8", "--num-images", "2", "--num-frames", "17", *size]
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
