"""`video-gen`: the command line. Arguments are parsed first and torch is imported after, so that --help answers at once.

A function here takes its command's options as keywords (`command_line.handed_over`). It names those that it has a use for itself
and passes the others on.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from video_gen import command_line
from video_gen.arguments import (
    Bench,
    DataCheck,
    DataEncode,
    Demo,
    Device,
    EvaluateDrift,
    EvaluateMotion,
    EvaluateSteps,
    EvaluateVAE,
    PlanDiffusion,
    PlanVAE,
    Sample,
    StreamVideo,
    TrainDiffusion,
    TrainDistill,
    TrainVAE,
    Worlds,
)
from video_gen.command_line import Commands, run_command
from video_gen.config import load_yaml
from video_gen.data.config import ClipConfig, WorldConfig
from video_gen.errors import ConfigError
from video_gen.training.recipes import VAERun


def worlds(world: WorldConfig, output: Path) -> None:
    from video_gen.data.worlds import render_world
    from video_gen.progress import bar

    with bar(f"rendering {world.kind}", "files") as progress:
        before = render_world(world, output, progress)
    kept = f", {before} of them from before" if before else ""
    print(f"{output}: {world.num_clips} clips, {world.num_images} stills{kept}")


def data_check(data: ClipConfig, quarantine: tuple[str, ...]) -> None:
    from video_gen.data.check import check, render
    from video_gen.progress import bar

    with bar("reading", "files") as progress:
        report = check(data, quarantine, progress)
    render(report)


def data_encode(**options: Any) -> None:
    from video_gen.train import encode

    encode(**options)


def train_vae(**options: Any) -> None:
    from video_gen.train import train_vae

    train_vae(**options)


def train_diffusion(**options: Any) -> None:
    from video_gen.train import train_diffusion

    train_diffusion(**options)


def train_distill(**options: Any) -> None:
    from video_gen.train import train_distill

    train_distill(**options)


def plan(vae_yaml: Path | None = None, output: Path | None = None, **options: Any) -> None:
    from video_gen.plan import make_plan, show

    vae = load_yaml(VAERun, vae_yaml).vae if vae_yaml else None
    show(make_plan(vae=vae, **options), output)


def sample(model: Path, device: Device, compile: bool, output: Path, **options: Any) -> None:
    from video_gen.sample import sample_to_files
    from video_gen.sampling.pipeline import VideoPipeline
    from video_gen.training.compiling import compile_to_sample, or_eagerly
    from video_gen.training.parallel import pick_device

    pipeline = VideoPipeline.from_pretrained(model, pick_device(device))
    if compile:
        compile_to_sample(pipeline.transformer, pipeline.device)
    make = partial(sample_to_files, pipeline, output=output, **options)
    for path in or_eagerly(make, {"transformer": pipeline.transformer}) if compile else make():
        print(path)
    print(output / "sheet.png")


def stream(
    model: Path,
    device: Device,
    output: Path,
    format: Literal["mp4", "raw"],
    enlarge: int,
    prompt: str | None = None,
    script: Path | None = None,
    seconds: float | None = None,
    save: Path | None = None,
    **options: Any,
) -> None:
    from video_gen.sampling.pipeline import VideoPipeline
    from video_gen.stream import open_stream, read_script, share_cores, show
    from video_gen.training.parallel import pick_device

    on = pick_device(device)
    share_cores(on)
    pipeline = VideoPipeline.from_pretrained(model, on)
    cues = read_script(script) if script else []
    with open_stream(pipeline, prompt, cues=cues, **options) as made:
        show(made, output, seconds=seconds, format=format, enlarge=enlarge, cues=cues, save=save)


def evaluate_vae(output: Path | None = None, **options: Any) -> None:
    from video_gen.evaluate import evaluate_vae, show

    show(evaluate_vae(**options), output)


def evaluate_motion(output: Path | None = None, **options: Any) -> None:
    from video_gen.evaluate import evaluate_motion, show

    show(evaluate_motion(**options), output)


def evaluate_drift(output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_drift, show_drift

    show_drift(evaluate_drift(output=output, **options))
    print(output / "drift.html")


def evaluate_steps(output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_steps, show_steps

    show_steps(evaluate_steps(output=output, **options))
    print(output / "steps.html")


def demo(**options: Any) -> None:
    from video_gen.demo import run_demo

    run_demo(**options)


def bench(tables: tuple[str, ...], quick: bool, compile: bool, seconds: float, output: Path, device: Device) -> None:
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))  # benchmarks/ is no part of the installed package
    try:
        from benchmarks.measure import Setting
        from benchmarks.run import run
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"bench: no module '{error.name}'; it runs from a checkout of the project, after pip install -e '.[bench]'"
        ) from None
    from video_gen.training.parallel import pick_device

    setting = Setting(pick_device(device), quick, seconds, compile)
    for path in run(tables, setting, output, " ".join(["video-gen", *sys.argv[1:]])):
        print(path)


COMMANDS: Commands = {
    ("worlds",): (Worlds, worlds),
    ("data", "check"): (DataCheck, data_check),
    ("data", "encode"): (DataEncode, data_encode),
    ("train", "vae"): (TrainVAE, train_vae),
    ("train", "diffusion"): (TrainDiffusion, train_diffusion),
    ("train", "distill"): (TrainDistill, train_distill),
    ("plan",): (PlanVAE, plan),
    ("sample",): (Sample, sample),
    ("stream",): (StreamVideo, stream),
    ("evaluate", "vae"): (EvaluateVAE, evaluate_vae),
    ("evaluate", "motion"): (EvaluateMotion, evaluate_motion),
    ("evaluate", "drift"): (EvaluateDrift, evaluate_drift),
    ("evaluate", "steps"): (EvaluateSteps, evaluate_steps),
    ("demo",): (Demo, demo),
    ("bench",): (Bench, bench),
}


def find(words: list[str]):
    """See `command_line.find`; a plan is of what its YAML trains."""
    names, kind, function = command_line.find(COMMANDS, words)
    return names, PlanDiffusion if names == ("plan",) and is_diffusion(words[1:2]) else kind, function


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns: its exit code (`errors.exit_code`)."""
    words = sys.argv[1:] if argv is None else argv
    diffusion = words[:1] == ["plan"] and is_diffusion(words[1:2])
    return run_command({**COMMANDS, ("plan",): (PlanDiffusion, plan)} if diffusion else COMMANDS, words)


def is_diffusion(words: list[str]) -> bool:
    """Whether the first word is the YAML of a diffusion run, which says where its VAE is, and not what it is."""
    if not words or not Path(words[0]).is_file():
        return False
    found = yaml.safe_load(Path(words[0]).read_text(encoding="utf-8"))
    return isinstance(found, dict) and ("transformer" in found or isinstance(found.get("vae"), str))


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
