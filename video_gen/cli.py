"""`video-gen`: the command line. Arguments are parsed first and torch is imported after, so that --help answers at once."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml
from pydantic import ValidationError

from video_gen.arguments import (
    Bench,
    DataCheck,
    DataEncode,
    Demo,
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
from video_gen.config import Config, explain, load_yaml
from video_gen.errors import ConfigError, exit_code
from video_gen.training.recipes import VAERun

C = TypeVar("C", bound=Config)


def worlds(args: Worlds) -> None:
    from video_gen.data.worlds import render_world
    from video_gen.progress import bar

    with bar(f"rendering {args.world.kind}", "files") as progress:
        before = render_world(args.world, args.output, progress)
    kept = f", {before} of them from before" if before else ""
    print(f"{args.output}: {args.world.num_clips} clips, {args.world.num_images} stills{kept}")


def data_check(args: DataCheck) -> None:
    from video_gen.data.check import check, render
    from video_gen.progress import bar

    with bar("reading", "files") as progress:
        report = check(args.data, args.quarantine, progress)
    render(report)


def data_encode(args: DataEncode) -> None:
    from video_gen.train import encode

    encode(args.recipe)


def train_vae(args: TrainVAE) -> None:
    from video_gen.train import train_vae

    train_vae(args.recipe, args.run, args.resume, args.profile)


def train_diffusion(args: TrainDiffusion) -> None:
    from video_gen.train import train_diffusion

    train_diffusion(args.recipe, args.run, args.resume, args.profile)


def plan(args: PlanVAE | PlanDiffusion) -> None:
    from video_gen.plan import make_plan, show

    file = args.vae_yaml if isinstance(args, PlanDiffusion) else None
    vae = load_yaml(VAERun, file).vae if file else None
    show(make_plan(args.recipe, vae, devices=args.plan.devices, steps=args.plan.steps), args.plan.output)


def train_distill(args: TrainDistill) -> None:
    from video_gen.train import train_distill

    train_distill(args.recipe, args.run, args.resume)


def sample(args: Sample) -> None:
    from video_gen.sample import sample_to_files
    from video_gen.sampling.pipeline import VideoPipeline
    from video_gen.training.compiling import compile_to_sample, or_eagerly
    from video_gen.training.parallel import pick_device

    pipeline = VideoPipeline.from_pretrained(args.model, pick_device(args.device))
    if args.compile:
        compile_to_sample(pipeline.transformer, pipeline.device)
    names = ("num_steps", "first_steps", "solver", "guidance_scale")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    make = partial(
        sample_to_files,
        pipeline,
        args.prompt,
        args.output,
        count=args.n,
        seed=args.seed,
        num_frames=args.num_frames,
        image=args.image,
        video=args.video,
        last_image=args.last_image,
        loop=args.loop,
        source=args.source,
        strength=args.strength,
        interpolate=args.interpolate,
        format=args.format,
        block_frames=args.block_frames,
        enlarge=args.enlarge,
        **settings,
    )
    for path in or_eagerly(make, {"transformer": pipeline.transformer}) if args.compile else make():
        print(path)
    print(args.output / "sheet.png")


def stream(args: StreamVideo) -> None:
    from video_gen.sampling.pipeline import VideoPipeline
    from video_gen.stream import open_stream, read_script, share_cores, show
    from video_gen.training.parallel import pick_device

    device = pick_device(args.device)
    share_cores(device)
    pipeline = VideoPipeline.from_pretrained(args.model, device)
    cues = read_script(args.script) if args.script else []
    names = ("resume", "image", "video", "seed", "block_frames", "num_steps", "first_steps", "solver")
    options = {name: getattr(args, name) for name in (*names, "guidance_scale", "history_noise", "speed")}
    shown = {name: getattr(args, name) for name in ("seconds", "format", "enlarge", "save")}
    with open_stream(pipeline, args.prompt, cues=cues, **options) as made:
        show(made, args.output, cues=cues, **shown)


def evaluate_vae(args: EvaluateVAE) -> None:
    from video_gen.evaluate import evaluate_vae, show

    show(evaluate_vae(args.vae, args.data, args.num_clips, args.device), args.output)


def evaluate_motion(args: EvaluateMotion) -> None:
    from video_gen.evaluate import evaluate_motion, show

    names = ("num_frames", "block_frames", "num_steps", "first_steps", "solver", "guidance_scale")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    show(evaluate_motion(args.model, args.num_videos, args.split, args.seed, args.device, **settings), args.output)


def evaluate_drift(args: EvaluateDrift) -> None:
    from video_gen.evaluate import evaluate_drift, show_drift

    names = ("block_frames", "num_steps", "first_steps", "solver", "guidance_scale", "history_noise")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    common = (args.world, args.frames, args.num_videos, args.seed, args.device)
    show_drift(evaluate_drift(args.model, args.output, *common, **settings))
    print(args.output / "drift.html")


def evaluate_steps(args: EvaluateSteps) -> None:
    from video_gen.evaluate import evaluate_steps, show_steps

    names = ("num_frames", "prompt", "guidance_scale", "first_steps", "noise_scale")
    settings = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    common = (args.world, args.solver, args.num_steps, args.num_videos, args.seed, args.device)
    show_steps(evaluate_steps(args.model, args.output, *common, **settings))
    print(args.output / "steps.html")


def demo(args: Demo) -> None:
    from video_gen.demo import run_demo

    run_demo(args.output, args.steps, args.short)


def bench(args: Bench) -> None:
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

    setting = Setting(pick_device(args.device), args.quick, args.seconds, args.compile)
    for path in run(args.tables, setting, args.output, " ".join(["video-gen", *sys.argv[1:]])):
        print(path)


COMMANDS: dict[tuple[str, ...], tuple[type[Config], Callable[[Any], None]]] = {
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
WITH_YAML = {name: "recipe" for name in ("plan", "encode", "vae", "diffusion", "distill")}
"""Commands whose first argument may be a YAML file with the defaults of that part."""


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns: its exit code (`errors.exit_code`)."""
    words = sys.argv[1:] if argv is None else argv

    def run() -> None:
        names, kind, command = find(words)
        command(parse(names, kind, words[len(names) :]))

    return exit_code("video-gen", run)


def find(words: list[str]) -> tuple[tuple[str, ...], type[Config], Callable[[Any], None]]:
    """The command that `words` begin with. Raises: ConfigError; SystemExit after a general --help."""
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        raise SystemExit(0)
    for names, (kind, run) in COMMANDS.items():
        if tuple(words[: len(names)]) == names:
            diffusion = names == ("plan",) and is_diffusion(words[1:2])
            return names, PlanDiffusion if diffusion else kind, run
    known = ", ".join(" ".join(names) for names in COMMANDS)
    raise ConfigError(f"no command '{' '.join(words[:2])}'; there are {known}")


def is_diffusion(words: list[str]) -> bool:
    """Whether the first word is the YAML of a diffusion run, which says where its VAE is, and not what it is."""
    if not words or not Path(words[0]).is_file():
        return False
    found = yaml.safe_load(Path(words[0]).read_text())
    return isinstance(found, dict) and ("transformer" in found or isinstance(found.get("vae"), str))


def parse(names: tuple[str, ...], kind: type[C], words: list[str]) -> C:
    """The arguments of a command, over the defaults of its YAML file if one is given first."""
    default = kind()
    part = WITH_YAML.get(names[-1]) if names != ("evaluate", "vae") else None
    if part and words and words[0].endswith((".yaml", ".yml")):
        recipe = load_yaml(type(getattr(default, part)), words[0])
        default, words = default.model_copy(update={part: recipe}), words[1:]
    if names == ("data", "check") and words and not words[0].startswith("-"):
        words = ["--folder", *words]
    try:
        return tyro.cli(
            kind, prog=f"video-gen {' '.join(names)}", args=words, default=default, description=kind.__doc__
        )
    except ValidationError as error:
        raise ConfigError(explain(kind, error)) from None


def overview() -> str:
    lines = [
        "Train, sample and measure latent video diffusion models.",
        "",
        "usage: video-gen COMMAND [--help] ...",
        "",
    ]
    lines += [f"  {' '.join(names):17} {(kind.__doc__ or '').splitlines()[0]}" for names, (kind, _) in COMMANDS.items()]
    lines += [
        "",
        "The `train` commands, `plan` and `data encode` take a YAML file first: video-gen train vae configs/demo-vae.yaml",
    ]
    return "\n".join(lines)


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
