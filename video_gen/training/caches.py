"""What is computed once and then read: latents of clips, and embeddings of captions by a frozen text encoder."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from video_gen.data.action_files import FILE
from video_gen.data.clips import Clips
from video_gen.data.config import ClipConfig
from video_gen.data.folder import is_there, quarantined, scan
from video_gen.data.latents import (
    ENDED,
    PICTURED,
    Latent,
    LatentSet,
    encode_clips,
    fingerprint,
    known_latents,
    known_vocabulary,
    stamp_of,
)
from video_gen.data.store import fill, unit_name
from video_gen.errors import ConfigError, DataError
from video_gen.model.frozen_text import encoder_fingerprint, load_text_config, whole_name
from video_gen.model.pretrained import local_folder
from video_gen.model.text import ByteTextEncoder, TextEncoder, build_text_encoder
from video_gen.model.transformer import VideoTransformer
from video_gen.model.transformer_config import TextConfig
from video_gen.model.vae_contract import check_sides
from video_gen.model.video_vae import VideoVAE
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.progress import bar
from video_gen.sampling.parts import VAE, parts_of
from video_gen.sampling.pictures import showing_only
from video_gen.sampling.stream_state import fingerprint as weights_fingerprint
from video_gen.shipped import find_model
from video_gen.training.loop import keep_freed_memory
from video_gen.training.monitor import say
from video_gen.training.parallel import pick_device
from video_gen.training.pictures import Pictures
from video_gen.training.recipes import DiffusionRun, VAERun

SHARD_TEXTS = 1024
TEXT_BATCH = 32


def encode_latents(run: DiffusionRun) -> tuple[LatentSet, LatentSet]:
    """Encode what of the data is not encoded yet, sharing the work with whoever else does. See `data.latents`.

    Returns: latents for training, and held-out ones, of which there may be none.
    Raises: ShapeError if VAE or transformer do not take clips of a bucket; DataError if there are no clips to train on.
    """
    vae = load_vae(run)
    check_sizes(run, vae)
    folder = run.latents / vae_fingerprint(run, vae)
    if run.modes.endings:
        folder = folder.with_name(folder.name + ENDED)
    if takes_pictures(run):
        folder = folder.with_name(folder.name + PICTURED)
    entries = known_latents(folder, run.data)
    if entries is None:
        stamp = stamp_of(run.data)
        clips = open_clips(run.data)
        with bar("latents", "clips") as progress:
            progress(0, len(clips))
            entries = encode_clips(clips, _encoder(run, vae), folder, stamp, progress)
    elif not is_there(run.data.folder):
        say(f"{run.data.folder}: no videos there; goes on with the {len(entries)} clips encoded in {folder}")
    return _part(run, folder, entries, "train"), _part(run, folder, entries, "validation")


def check_sizes(run: DiffusionRun, vae: VAE) -> None:
    """Raises: ShapeError if VAE or transformer do not take clips of a bucket."""
    for frames, height, width in run.data.sizes:
        place = "data.buckets: " if run.data.buckets else "data."
        step = vae.config.spatial_stride * run.transformer.patch_size
        check_sides({f"{place}height": height, f"{place}width": width}, step)
        vae.latent_shape(frames, height, width)


def check_captions(run: DiffusionRun) -> None:
    """Look at the captions before anything is encoded: say how many are empty where text is to guide.

    Raises: DataError with the names of files whose captions are longer than the built-in encoder takes.
    """
    if not is_there(run.data.folder):
        return
    bad = quarantined(run.data.folder)
    sources = [source for source in scan(run.data.folder) if source.name not in bad]
    led = [source.name for source in sources if source.led]
    if led and not run.modes.endings:
        raise DataError(
            f"{run.data.folder}: {len(led)} clips are led by their last frame, such as {led[0]}, and modes.endings is 0, so it "
            "would not be shown: set it, to 0.2 for instance, or take `led` out of the metadata"
        )
    empty = sum(not source.caption for source in sources)
    if empty and run.sampling.guidance_scale not in (0, 1):
        say(
            f"{empty} of {len(sources)} files have no caption: text will guide nothing there "
            f"(sampling.guidance_scale is {run.sampling.guidance_scale:g})"
        )
    if run.text.name is not None:
        return
    encoder, faults = ByteTextEncoder(run.text), []
    for source in sources:
        try:
            encoder.tokenise([source.caption or "", *(text for _, text in source.changes)])
        except DataError as error:
            faults.append(f"{source.path}: {error}")
    if faults:
        more = f" ({len(faults) - 1} more such files; `video-gen data check` lists them)" if len(faults) > 1 else ""
        raise DataError(f"{faults[0]}{more}")


def encode_texts(run: DiffusionRun, captions: Iterable[str]) -> Callable[[str], Tensor]:
    """Encode what of the captions is not encoded yet, and the empty one, with the run's frozen encoder, sharing the work.

    It is loaded only if something is missing.
    Returns: a function from a caption to its tokens (m, width) float32; KeyError for another text.
    """
    assert run.text.name is not None  # `bytes` is trained
    texts = {unit_name([text]): text for text in sorted({"", *captions})}
    keys = list(texts)

    def make(missing: list[str]) -> Iterator[tuple[str, Tensor]]:
        device = pick_device(run.loop.device)
        encoder = build_text_encoder(run.text).to(device)
        for start in range(0, len(missing), TEXT_BATCH):
            chosen = missing[start : start + TEXT_BATCH]
            tokens, visible = encoder(encoder.tokenise([texts[key] for key in chosen]).to(device))
            yield from ((key, x[seen].bfloat16()) for key, x, seen in zip(chosen, tokens, visible))

    units = [keys[start : start + SHARD_TEXTS] for start in range(0, len(keys), SHARD_TEXTS)]
    with bar("captions", "texts") as progress:
        store = fill(run.latents / f"text-{encoder_fingerprint(run.text)}", units, make, progress)
    return lambda text: store.read(unit_name([text])).float()


def takes_pictures(run: DiffusionRun) -> bool:
    """Whether the model is told a picture by latents beside its own."""
    return isinstance(run.transformer, WanTransformerConfig) and run.transformer.beside_channels > 0


def pictures_of(run: DiffusionRun, clips: Iterable[str], vae: VAE) -> Pictures | None:
    """What clips tell a public model of their pictures; CLIP's tokens of what is not encoded yet are made, sharing the work."""
    config = run.transformer
    if not isinstance(config, WanTransformerConfig) or not (config.beside_channels or config.first_frame):
        return None
    tokens = encode_pictures(run, clips) if config.image_width is not None else None
    return Pictures(config, vae.config.temporal_stride, run.modes.pictures, tokens)


def encode_pictures(run: DiffusionRun, clips: Iterable[str]) -> Callable[[str], Tensor]:
    """CLIP's tokens of the first frames of clips, and where the model wants them of the last.

    Returns: a function from a clip to (m, width) float32.
    """
    assert run.init is not None and isinstance(run.transformer, WanTransformerConfig)
    parts, both = parts_of(run.init), run.transformer.image_positions is not None
    assert parts.vision is not None and parts.vision_config is not None  # what such a transformer comes with
    told = TextConfig(kind="transformers", name=parts.vision_config.name, subfolder=parts.vision_config.subfolder)

    def make(missing: list[str]) -> Iterator[tuple[str, Tensor]]:
        opened, encoder = open_clips(run.data), parts.vision().to(pick_device(run.loop.device))  # type: ignore[misc]
        place = {clip_id: index for index, clip_id in enumerate(opened.ids)}
        for key in missing:
            frames = opened[place[key]].video
            yield key, encoder(frames[[0, -1]] if both else frames[:1]).flatten(0, 1).bfloat16().cpu()

    keys = sorted(clips)
    units = [keys[start : start + SHARD_TEXTS] for start in range(0, len(keys), SHARD_TEXTS)]
    folder = run.latents / f"pictures-{encoder_fingerprint(told)}{'-both' if both else ''}"
    with bar("pictures", "clips") as progress:
        store = fill(folder, units, make, progress)
    return lambda clip_id: store.read(clip_id).float()


def same_weights(one: Path, other: Path) -> bool:
    """Whether two .safetensors hold the same numbers, in whatever precision: a shipped VAE is in half of what a run writes."""
    if fingerprint(one) == fingerprint(other):
        return True
    mine, theirs = load_file(one), load_file(other)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name].float(), theirs[name].float()) for name in mine)


def load_weights(run: DiffusionRun, folder: Path, transformer: VideoTransformer, text: TextEncoder) -> None:
    """Fill the models with the weights of a model folder. Raises: ConfigError if it has another VAE, text encoder or sizes."""
    vaes = [path / "model.safetensors" for path in (local_folder(run.vae), folder / "vae")]
    if not vaes[1].is_file():
        raise ConfigError(f"init: {folder} holds no vae/; give a model folder such as runs/diffusion/model")
    if not same_weights(*vaes):
        raise ConfigError(f"vae: {run.vae} is not the VAE that init was trained with; give {folder / 'vae'}")
    _load(folder / "transformer", transformer, VideoTransformer.from_pretrained(folder / "transformer"), "transformer")
    known = load_text_config(folder / "text")
    if (known.kind, whole_name(known.name)) != (run.text.kind, whole_name(run.text.name)):
        raise ConfigError(
            f"text: init was trained with {known.name or known.kind}; set text.kind and text.name to that"
        )
    if isinstance(text, ByteTextEncoder):
        _load(folder / "text", text, ByteTextEncoder.from_pretrained(folder / "text"), "text")


def action_sizes(run: DiffusionRun, latents: LatentSet, vae: VAE) -> dict[str, Any]:
    """What a transformer's config says of actions, from the data. Raises: ConfigError if the run was told of others."""
    told, found = run.transformer.actions, latents.vocabulary
    if told is not None and (found is None or not told.same_actions(found)):
        raise ConfigError(
            f"transformer.actions names {', '.join(told.names)}, and {run.data.folder} has "
            f"{', '.join(found.names) if found else f'no {FILE}'}; leave transformer.actions out: it is taken from the data"
        )
    return {"actions": found, "action_frames": found and vae.config.temporal_stride}


def load_vae_weights(run: VAERun, folder: Path, vae: VideoVAE) -> None:
    """Fill a VAE with the weights of another, its linear path included. Its latents' statistics are measured anew at the end.

    Args: folder: the VAE's folder, or a model folder that holds it as vae/.
    Raises: ConfigError if its sizes are not the run's.
    """
    folder = folder / "vae" if (folder / "vae").is_dir() else folder
    start = VideoVAE.from_pretrained(folder)
    statistics = {"latent_mean": vae.config.latent_mean, "latent_std": vae.config.latent_std}
    known = start.config.replace(**statistics).model_dump()
    for name, value in vae.config.model_dump().items():
        if known[name] != value:
            raise ConfigError(
                f"vae.{name} is {value}, and {known[name]} in init; set vae to what {folder / 'config.json'} says"
            )
    vae.load_state_dict(start.state_dict())


def vae_fingerprint(run: DiffusionRun, vae: VAE) -> str:
    """Of the VAE's content, by which its latents are known."""
    if isinstance(vae, VideoVAE):
        place = local_folder(run.vae)
        return fingerprint(place / "config.json", place / "model.safetensors")
    return weights_fingerprint(vae)


def load_vae(run: DiffusionRun) -> VAE:
    """The VAE of a diffusion run. Raises: ConfigError if there is none yet."""
    if run.init is not None and run.vae == run.init:  # of a public model
        return parts_of(run.vae).vae().requires_grad_(False)
    if find_model(run.vae) is None:
        raise ConfigError(f"vae: '{run.vae}' is no folder; train one with `video-gen train vae`, or give another")
    return VideoVAE.from_pretrained(run.vae).requires_grad_(False)


def open_clips(config: ClipConfig) -> Clips:
    """All clips of a folder, saying what is left out and why."""
    with bar("reading", "files") as progress:
        clips = Clips(config, progress=progress)
    for note in clips.notes:
        say(note)
    for message in clips.messages[:5]:
        say(f"skipped {message}")
    if len(clips.messages) > 5:
        check = f"video-gen data check {config.folder} --num-frames {config.num_frames} --fps {config.fps:g}"
        say(f"skipped {len(clips.messages) - 5} more files for such reasons; `{check}` lists all")
    if len(clips.messages) > (used := len(set(clips.sources))):
        total = used + len(clips.messages)
        say(
            f"only {used} of {total} files are used; a smaller num_frames, or a higher fps, makes use of shorter videos"
        )
    return clips


def _encoder(run: DiffusionRun, vae: VAE) -> Callable[[Tensor], Tensor]:
    keep_freed_memory()
    device = pick_device(run.loop.device)
    vae = vae.to(device)

    @torch.no_grad()
    def encode(video: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            latents = [part.mean.float() for part in vae.encode_parts(video.to(device))]
            if takes_pictures(run):
                given = video[:, :, [0, -1]] if run.transformer.image_positions else video[:, :, :1]  # type: ignore[union-attr]
                known = showing_only(given.to(device), video.shape[2])
                latents += [part.mean.float() for part in vae.encode_parts(known)]
            if run.modes.endings:
                latents.append(vae.encode(video[:, :, -1:].to(device)).mean.float())
            return torch.cat(latents, dim=2)

    return encode


def _part(run: DiffusionRun, folder: Path, entries: list[Latent], part: str) -> LatentSet:
    chosen, vocabulary = [entry for entry in entries if entry.part == part], known_vocabulary(folder, run.data)
    if not chosen and part == "train":
        raise DataError(f"{run.data.folder}: no clip to train on; add files, or lower data.validation_fraction")
    return LatentSet(folder, chosen, vocabulary)


def _load(
    folder: Path, model: VideoTransformer | ByteTextEncoder, start: VideoTransformer | ByteTextEncoder, name: str
):
    found, fresh = start.state_dict(), model.state_dict()
    if isinstance(model, VideoTransformer) and isinstance(start, VideoTransformer):
        ours, theirs = model.config.actions, start.config.actions
        if theirs is not None and (ours is None or not ours.same_actions(theirs)):
            raise ConfigError(
                f"{folder}: was trained for other actions ({', '.join(theirs.names)}) than the data has "
                f"({', '.join(ours.names) if ours else 'none'}); take data with the same {FILE}"
            )
        if theirs is None and ours is not None:  # it learns of actions now; nothing that it makes changes yet
            found |= {key: x for key, x in fresh.items() if key.startswith("embed_actions.")}
        if start.config.frame_noise and not model.config.frame_noise:
            raise ConfigError(f"diffusion.draws is 1, and {folder} was trained with more; set it to 2")
        if model.config.frame_noise and not start.config.frame_noise:  # what it makes may differ from now on
            found |= {key: x for key, x in fresh.items() if key.startswith("embed_noise.")}
    if {key: x.shape for key, x in fresh.items()} != {key: x.shape for key, x in found.items()}:
        pairs = ((key, value, getattr(model.config, key)) for key, value in start.config.model_dump().items())
        key, theirs, ours = next((pair for pair in pairs if pair[1] != pair[2]), ("sizes", "others", "these"))
        raise ConfigError(
            f"{name}.{key} is {ours}, and {theirs} in init; set {name} to what {folder / 'config.json'} says"
        )
    model.load_state_dict(found)
