"""`video-gen`: the command line. Arguments are parsed first and torch is imported after, so that --help answers at once.

A function here takes its command's options as keywords (`command_line.handed_over`). It names those that it has a use for itself
and passes the others on.
"""

import sys
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Literal

from video_gen.arguments.data import DataCheck, DataEncode, DataImport, DataPrepare, DataRecord, Worlds
from video_gen.arguments.demo import Bench, Demo
from video_gen.arguments.evaluate import (
    EvaluateControl,
    EvaluateDrift,
    EvaluateEndings,
    EvaluateFootage,
    EvaluateMotion,
    EvaluateSteering,
    EvaluateSteps,
    EvaluateVAE,
)
from video_gen.arguments.generate import PlayWorld, Sample, StreamVideo, Studio
from video_gen.arguments.groups import Device
from video_gen.arguments.models import ModelCard, ModelExport, ModelMerge, ModelPush
from video_gen.arguments.train import (
    PlanDiffusion,
    PlanDistill,
    PlanLora,
    PlanSample,
    PlanVAE,
    TrainDiffusion,
    TrainDistill,
    TrainVAE,
)
from video_gen.command_line import PROGRAM, RUN, Command, Commands, is_config, run_command
from video_gen.config import load_yaml, validate
from video_gen.data.config import ClipConfig, RecordConfig, WorldConfig
from video_gen.data.prepare.settings import PrepareConfig
from video_gen.errors import ConfigError, exit_code
from video_gen.files import check_folder
from video_gen.options import names_of, options_of
from video_gen.plain_yaml import read_yaml
from video_gen.sampling.fit import Fit
from video_gen.shipped import OWN_DEMO, OWN_VAE, default_model
from video_gen.training.recipes import VAERun


def worlds(world: WorldConfig, output: Path) -> None:
    from video_gen.data.worlds import render_world
    from video_gen.progress import bar

    with bar(f"rendering {world.kind}", "files") as progress:
        before = render_world(world, output, progress)
    kept = f", {before} of them from before" if before else ""
    print(f"{output}: {world.num_clips} clips, {world.num_images} stills{kept}")


def data_check(data: ClipConfig, quarantine: tuple[str, ...], max_tokens: int, lines: int) -> None:
    from video_gen.data.check import check, render
    from video_gen.model.text import ByteTextEncoder
    from video_gen.model.transformer_config import TextConfig
    from video_gen.progress import bar

    encoder = ByteTextEncoder(TextConfig(max_tokens=max_tokens))
    with bar("reading", "files") as progress:
        report = check(data, quarantine, progress, read_caption=lambda text: encoder.tokenise([text]))
    render(report, lines)


def data_prepare(
    pile: Path,
    output: Path,
    config: PrepareConfig,
    caption_model: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
) -> None:
    from video_gen.data.prepare.preparing import prepare
    from video_gen.data.prepare.report import show
    from video_gen.data.prepare.workers import Workers
    from video_gen.progress import bars

    caption = None
    if caption_model is not None:
        from video_gen.data.prepare.captioner import Captioner

        caption = Captioner(caption_model)
    with bars("files") as progress:
        made = prepare(pile, output, config, Workers(workers, ray), progress, caption)
    show(made)


def data_record(record: RecordConfig, output: Path) -> None:
    from video_gen.data.recording import record as make
    from video_gen.progress import bar

    with bar("recording", "clips") as progress:
        clips, before = make(record, output, progress)
    print(f"{output}: {clips} clips{f', {before} of them from before' if before else ''}")


def data_import(kind: Literal["lerobot", "minari"], folder: Path, output: Path, **options: Any) -> None:
    from video_gen.data.importing import import_folder
    from video_gen.progress import bar

    with bar("importing", "episodes") as progress:
        made, notes = import_folder(kind, folder, output, progress=progress, **options)
    for note in notes:
        print(note, file=sys.stderr)
    print(f"{output}: {made} clips with actions")


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


def plan_sample(
    device: Device, model: Path | None = None, room: str | None = None, output: Path | None = None, **options: Any
) -> None:
    from video_gen.plan_sample import plan_of, show

    show(*plan_of(model_of(model), device, room, **options), output)


def plan_lora(model: Path | None = None, output: Path | None = None, **options: Any) -> None:
    from video_gen.plan_lora import plan_of, show

    show(*plan_of(model_of(model), **options), output)


def model_of(model: Path | None, own: Path = OWN_DEMO, part: str = "") -> Path:
    """The model named, or the default one, which is then said. See `shipped.default_model`."""
    if model is not None:
        return model
    model = default_model(own, part)
    print(f"model: {model}{'' if model == own else ', which ships with Video Gen'}", file=sys.stderr)
    return model


def model_merge(base: Path, output: Path, loras: tuple[str, ...]) -> None:
    if not loras:
        raise ConfigError("model merge: no LoRA is given; say --lora FILE, or --lora FILE:SCALE")
    check_folder(output)
    from video_gen.export import merge_model

    merge_model(base, loras, output)


def model_export(**options: Any) -> None:
    from video_gen.export import export

    export(**options)


def model_card(**options: Any) -> None:
    from video_gen.hub import write_card

    print(write_card(**options))


def model_push(**options: Any) -> None:
    from video_gen.hub import push_to_hub

    print(push_to_hub(**options))


def sample(
    device: Device,
    compile: bool,
    output: Path,
    fit: Fit,
    prompt: str,
    loras: tuple[str, ...],
    model: Path | None = None,
    room: str | None = None,
    height: int | None = None,
    width: int | None = None,
    **options: Any,
) -> None:
    if compile and fit.offload != "off":
        raise ConfigError("compile and offload do not go together: weights that come and go cannot be compiled in")
    check_folder(output)
    from video_gen.progress import bar
    from video_gen.sample import load_model, sample_to_files
    from video_gen.training.compiling import compile_to_sample, or_eagerly
    from video_gen.training.parallel import pick_device

    model, on = model_of(model), pick_device(device)
    if room is not None:
        from video_gen.plan_sample import fit_into

        fit = fit_into(room, model, on, fit, offload=not compile, height=height, width=width, **options)
    pipeline = load_model(model, on, fit, [prompt, options.get("negative_prompt", "")], loras).sized(height, width)
    if compile:
        compile_to_sample(pipeline.transformer, pipeline.device)
    with bar("sampling", "%") as progress:
        make = partial(sample_to_files, pipeline, prompt, output, progress=progress, **options)
        paths = or_eagerly(make, {"transformer": pipeline.transformer}) if compile else make()
    for path in paths:
        print(path)


def stream(
    device: Device,
    output: Path,
    format: Literal["mp4", "raw"],
    enlarge: int,
    fit: Fit,
    loras: tuple[str, ...],
    model: Path | None = None,
    prompt: str | None = None,
    script: Path | None = None,
    seconds: float | None = None,
    save: Path | None = None,
    resume: Path | None = None,
    room: str | None = None,
    height: int | None = None,
    width: int | None = None,
    **options: Any,
) -> None:
    from video_gen.sample import load_model
    from video_gen.sampling.stream_state import loras_of_state, model_of_state, size_of_state
    from video_gen.stream import check_output, open_stream, read_script, share_cores, show
    from video_gen.training.parallel import pick_device

    check_output(output, format, save)
    on = pick_device(device)
    share_cores(on)
    cues = read_script(script) if script else []
    if resume is not None and model is None:
        model = Path(model_of_state(resume))
    texts = [text for text in (prompt, *(cue.prompt for cue in cues)) if text is not None]
    if resume is not None:
        height, width = (own if own is not None else one for own, one in zip((height, width), size_of_state(resume)))
    model = model_of(model)
    if room is not None:
        from video_gen.plan_sample import fit_into

        fit = fit_into(room, model, on, fit, stream=True, height=height, width=width, **options)
    learned = loras or (loras_of_state(resume) if resume is not None else ())
    pipeline = load_model(model, on, fit, texts, learned).sized(height, width)
    with open_stream(pipeline, prompt, cues=cues, resume=resume, **options) as made:
        show(made, output, seconds=seconds, format=format, enlarge=enlarge, cues=cues, save=save)


def play(output: Path, **options: Any) -> None:
    from video_gen.play import play

    play(folder=output, **options)


def studio(model: Path | None = None, **options: Any) -> None:
    from video_gen.studio import studio

    studio(model=model_of(model), **options)


def evaluate_vae(
    num_clips: int, device: Device, vae: Path | None = None, output: Path | None = None, **said: Any
) -> None:
    from video_gen.evaluate import clips_of_vae, evaluate_vae
    from video_gen.evaluation.tables import show

    vae = model_of(vae, OWN_VAE, "vae")
    show(evaluate_vae(vae, clips_of_vae(vae, **said), num_clips, device), output)


def evaluate_motion(model: Path | None = None, output: Path | None = None, **options: Any) -> None:
    from video_gen.evaluate import evaluate_motion
    from video_gen.evaluation.tables import show

    show(evaluate_motion(model_of(model), **options), output)


def evaluate_drift(models: tuple[Path, ...], output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_drift
    from video_gen.evaluation.tables import show_drift

    show_drift(evaluate_drift(models or (model_of(None),), output, **options))
    print(output / "drift.html")


def evaluate_steps(models: tuple[Path, ...], output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_steps
    from video_gen.evaluation.tables import show_steps

    show_steps(evaluate_steps(models or (model_of(None),), output, **options))
    print(output / "steps.html")


def evaluate_steering(models: tuple[Path, ...], output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_steering
    from video_gen.evaluation.tables import show_steering

    show_steering(evaluate_steering(models or (model_of(None),), output, **options))
    print(output / "steering.html")


def evaluate_endings(models: tuple[Path, ...], output: Path, **options: Any) -> None:
    from video_gen.evaluate import evaluate_endings
    from video_gen.evaluation.tables import show_endings

    show_endings(evaluate_endings(models or (model_of(None),), output, **options))
    print(output / "endings.html")


def evaluate_control(output: Path, **options: Any) -> None:
    from video_gen.evaluate_control import evaluate_control
    from video_gen.evaluation.tables import show_control

    show_control(evaluate_control(output=output, **options))
    print(output / "control.html")


def evaluate_footage(output: Path, **options: Any) -> None:
    from video_gen.evaluate_footage import evaluate_footage
    from video_gen.evaluation.tables import show_footage

    show_footage(evaluate_footage(output=output, **options))
    print(output / "footage.html")


def demo(**options: Any) -> None:
    from video_gen.demo import run_demo

    run_demo(**options)


def bench(
    tables: tuple[str, ...],
    quick: bool,
    compile: bool,
    seconds: float,
    optimizers: tuple[str, ...],
    held_out: tuple[str, ...],
    output: Path,
    device: Device,
    footage: Path | None = None,
) -> None:
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

    if footage and "vae_quality" not in tables:
        raise ConfigError(f"bench: --footage {footage} is for the table vae_quality; add it to --tables")
    if held_out and not footage:
        raise ConfigError(f"bench: --held-out {' '.join(held_out)} says which files of --footage judge; give that, too")
    clips = footage and validate(ClipConfig, {"folder": footage, "held_out": held_out}, source="bench")
    setting = Setting(pick_device(device), quick, seconds, compile, optimizers=optimizers, footage=clips)
    for path in run(tables, setting, output, " ".join(["video-gen", *sys.argv[1:]])):
        print(path)


COMMANDS: Commands = {
    ("demo",): Command(Demo, demo),
    ("sample",): Command(Sample, sample),
    ("stream",): Command(StreamVideo, stream),
    ("play",): Command(PlayWorld, play),
    ("studio",): Command(Studio, studio),
    ("model", "merge"): Command(ModelMerge, model_merge),
    ("model", "export"): Command(ModelExport, model_export),
    ("model", "card"): Command(ModelCard, model_card),
    ("model", "push"): Command(ModelPush, model_push),
    ("data", "check"): Command(DataCheck, data_check, first="--folder"),
    ("data", "encode"): Command(DataEncode, data_encode),
    ("data", "prepare"): Command(DataPrepare, data_prepare),
    ("data", "record"): Command(DataRecord, data_record),
    ("data", "import"): Command(DataImport, data_import),
    ("plan", "vae"): Command(PlanVAE, plan),
    ("plan", "diffusion"): Command(PlanDiffusion, plan),
    ("plan", "distill"): Command(PlanDistill, plan),
    ("plan", "lora"): Command(PlanLora, plan_lora),
    ("plan", "sample"): Command(PlanSample, plan_sample),
    ("train", "vae"): Command(TrainVAE, train_vae),
    ("train", "diffusion"): Command(TrainDiffusion, train_diffusion),
    ("train", "distill"): Command(TrainDistill, train_distill),
    ("evaluate", "vae"): Command(EvaluateVAE, evaluate_vae),
    ("evaluate", "motion"): Command(EvaluateMotion, evaluate_motion),
    ("evaluate", "drift"): Command(EvaluateDrift, evaluate_drift),
    ("evaluate", "steps"): Command(EvaluateSteps, evaluate_steps),
    ("evaluate", "steering"): Command(EvaluateSteering, evaluate_steering),
    ("evaluate", "endings"): Command(EvaluateEndings, evaluate_endings),
    ("evaluate", "control"): Command(EvaluateControl, evaluate_control),
    ("evaluate", "footage"): Command(EvaluateFootage, evaluate_footage),
    ("worlds",): Command(Worlds, worlds),
    ("bench",): Command(Bench, bench),
}
PLANS = {names[1]: command for names, command in COMMANDS.items() if names[0] == "plan"}


def main(argv: list[str] | None = None) -> int:
    """Run a command. Returns: its exit code (`errors.exit_code`)."""
    words = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, TextIOWrapper):  # names of files may hold what it cannot write
        sys.stdout.reconfigure(errors="backslashreplace")
    return exit_code(PROGRAM, lambda: run_command(COMMANDS, of_what(words)))


def of_what(words: list[str]) -> list[str]:
    """`plan` is told of what, unless it says so: the run that knows most of the YAML file's keys and of the options given."""
    if words[:1] != ["plan"] or words[1:2] in ([], ["-h"], ["--help"]) or words[1] in PLANS:
        return words
    values = read_yaml(Path(words[1])) if is_config(words[1:]) else {}
    keys = [*values] if isinstance(values, dict) else []
    given = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]

    def known(command: Command) -> int:
        run = type(command.kind().run)  # type: ignore[attr-defined]
        names = {name for option in options_of(command.kind) for name in names_of(option)}
        fits = not isinstance(keys and values.get("vae"), str) or run is not VAERun
        return sum(key in run.model_fields for key in keys) + sum(name in names for name in given) + fits

    runs = [name for name, command in PLANS.items() if RUN in command.kind.model_fields]
    return ["plan", max(runs, key=lambda name: known(PLANS[name])), *words[1:]]


def entry() -> None:
    sys.exit(main())


if __name__ == "__main__":
    entry()
