"""A model card: what a model or a LoRA is, how it is used, and, where its run lies around it, how it was trained.

The top is what the Hub reads. Nothing is written that the files do not say, and no path of this machine; what the writer must
add is named at the end.
"""

import json
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import yaml

from video_gen.errors import DataError
from video_gen.files import read_lines, read_text
from video_gen.model.lora_files import is_lora, lora_file, read_metadata
from video_gen.model.pretrained import StoredWeights, local_folder, read_config
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.sampling.config import PipelineConfig
from video_gen.sampling.loras import experts_of
from video_gen.shipped import looks_like_hub_id

CARD = "README.md"
TO_ADD = "No licence is named here: add `license:` at the top, and say what the clips were and who may use them."
FIGURES = 6
"""Held-out figures that are shown, the first ones."""


def card(path: Path) -> str:
    """The card of a model folder, or of a LoRA. Raises: DataError if it is neither, or is damaged."""
    front, body = _of_lora(lora_file(path)) if is_lora(path) else _of_model(path)
    top = yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()
    return "\n".join(["---", top, "---", "", *body, *_training(path), TO_ADD, ""])


def _of_model(path: Path) -> tuple[dict[str, Any], list[str]]:
    folder = local_folder(path)
    if not (folder / "model.json").is_file():
        raise DataError(
            f"{folder}: holds no model.json; a card is written of a model folder of this project, or of a LoRA"
        )
    config, name = read_config(PipelineConfig, folder / "model.json"), _name(folder)
    clip, sampling = config.clip, config.sampling
    sizes = {
        part.name: sum(map(prod, StoredWeights(part / "model.safetensors").shapes.values()))
        for part in sorted(folder.iterdir())
        if (part / "model.safetensors").is_file()
    }
    rows = {f"parameters of {part}/": f"{count / 1e6:,.2f} M" for part, count in sizes.items()}
    rows["clips"] = f"{clip.num_frames} frames of {clip.height}x{clip.width}, {clip.fps:g} a second"
    rows["sampled by default"] = f"{sampling.solver}, {sampling.num_steps} steps, guidance {sampling.guidance_scale:g}"
    given = _pictures_of(folder) if config.family == "wan" else ()
    front = {"library_name": "video-gen", "pipeline_tag": _tag(given), "tags": ["video-gen", config.family]}
    commands = [f'video-gen sample "a prompt" --model {name}{_files(given)}']
    commands += [] if given else [f'video-gen stream "a prompt" --model {name}']
    python = ["from video_gen import VideoPipeline", "", f'pipe = VideoPipeline.from_pretrained("{name}")']
    if given:
        python[:1] = ["import numpy as np", "from PIL import Image", python[0]]
        python += [f'{said} = np.asarray(Image.open("{said}.png").convert("RGB"))' for said in given]
    python += [f'video = pipe("a prompt", seed=1{"".join(f", {said}={said}" for said in given)})']
    about = f"A video model made with Video Gen, of the family {config.family}."
    return front, [f"# {name}", "", about, "", *_table(rows), "", *_code("sh", commands), *_code("python", python)]


def _pictures_of(folder: Path) -> tuple[str, ...]:
    """What a Wan model cannot do without, as arguments of `VideoPipeline`."""
    sizes = read_config(WanTransformerConfig, folder / "transformer" / "config.json")
    return () if not sizes.beside_channels else ("image", "last_image") if sizes.image_positions else ("image",)


def _of_lora(file: Path) -> tuple[dict[str, Any], list[str]]:
    told, name = read_metadata(file), _name(file.parent if file.name == "lora.safetensors" else file.with_suffix(""))
    base, trigger = told.get("base_model", ""), told.get("trigger_prompt", "")
    given = {"first": ("image",), "first and last": ("image", "last_image")}.get(told.get("pictures", ""), ())
    experts, ours = experts_of(file), "video_gen" in told
    front: dict[str, Any] = {"pipeline_tag": _tag(given), "tags": ["lora", *(["video-gen"] if ours else [])]}
    if looks_like_hub_id(base):
        front |= {"base_model": base, "base_model_relation": "adapter"}
    if trigger:
        front["instance_prompt"] = trigger
    base = base if looks_like_hub_id(base) else Path(base).name or "BASE"
    shown = ("rank", "alpha", "targets", "clip", "base_model_hash")
    rows = {"of": base} | {key.replace("_", " "): told[key] for key in shown if key in told}
    rows |= {"for the expert": f"{experts[0]} noise"} if len(experts) == 1 else {}
    rows |= {"begins with": f"a picture, {told['pictures']}"} if given else {}
    rows |= {"to be said": trigger} if trigger else {}
    commands = [f'video-gen sample "{trigger or "a prompt"}" --model {base}{_files(given)} --lora {file.name}:0.8']
    about = "A LoRA trained with Video Gen." if ours else "A LoRA."
    body = [f"# {name}", "", about, "", *_table(rows), "", *_code("sh", commands)]
    if told.get("modelspec.architecture", "").startswith("Wan"):
        kind = "WanImageToVideoPipeline" if given else "WanPipeline"
        low = ", load_into_transformer_2=True" if experts == ("low",) else ""
        loaded = [f'pipe = {kind}.from_pretrained("{base}")', f'pipe.load_lora_weights("{file.name}"{low})']
        body += ["In diffusers, and in ComfyUI from `models/loras/`:", "", *_code("python", loaded)]
    return front, body


def _tag(given: Sequence[str]) -> str:
    return "image-to-video" if given else "text-to-video"


def _files(given: Sequence[str]) -> str:
    return "".join(f" --{said.replace('_', '-')} {said}.png" for said in given)


def _training(path: Path) -> list[str]:
    """What the run around a model folder says of itself; nothing where there is none."""
    run = next((place for place in list(path.absolute().parents)[:2] if (place / "log.jsonl").is_file()), None)
    if run is None:
        return []
    try:
        config = yaml.safe_load(read_text(run / "config.yaml"))
        lines = [json.loads(line) for line in read_lines(run / "log.jsonl") if line.strip()]
        clips = json.loads(read_text(run / "clips.json"))["clips"]
        loop, optim, data = config["loop"], config["optim"], config["data"]
        rows = {
            "steps": f"{lines[-1]['step']:,} of {loop['batch_size']} clips, in {loop['precision']}",
            "optimiser": f"{optim['optimizer']}, learning rate {optim['learning_rate']:g}, {optim['schedule']}",
            "data": f"{Path(data['folder']).name}, {len(clips):,} clips",
            "clips": f"{data['num_frames']} frames of {data['height']}x{data['width']}",
        }
        measured = [line for line in lines if line["kind"] == "validation"]
        best = min(measured, key=lambda line: line.get("loss", 0.0)) if loop["keep"] == "best" and measured else None
        for line in [best or measured[-1]] if measured else []:
            figures = [(name, value) for name, value in line.items() if name not in ("kind", "step")][:FIGURES]
            rows |= {f"held-out {name}": f"{value:.4g} at step {line['step']:,}" for name, value in figures}
    except (KeyError, TypeError, ValueError, IndexError, yaml.YAMLError) as error:
        raise DataError(
            f"{run}: its config.yaml, clips.json or log.jsonl cannot be read ({error}); take the model out of it"
        ) from None
    return ["## Training", "", *_table(rows), ""]


def _name(folder: Path) -> str:
    """Of a run's model the run's."""
    folder = folder.absolute()
    return folder.parent.name if folder.name in ("model", "merged") else folder.name


def _table(rows: dict[str, str]) -> list[str]:
    return ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())]


def _code(language: str, lines: Sequence[str]) -> list[str]:
    return [f"```{language}", *lines, "```", ""]
