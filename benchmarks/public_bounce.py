"""A small public model: diffusers' classes, trained by a loop of its own on the world `bounce`, and saved as diffusers saves it.

What comes in through `from_pretrained` is a stranger's: a `WanTransformer3DModel` that makes clips as a whole, which nothing of
this project has trained; an `AutoencoderKLWan` of Wan 2.2's shape, with one resolution less (trained as our WanVAE, which is
faster, and handed over); and a UMT5 of random weights, which tells words apart and no more.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from video_gen.data.clips import Clips, to_video
from video_gen.model.wan.vae import WanVAE
from video_gen.model.wan.vae_config import WanVAEConfig
from video_gen.model.wan.vae_names import config_to_diffusers, to_diffusers
from video_gen.progress import bar
from video_gen.training.config import OptimConfig
from video_gen.training.optim import build_optimizer, clip_gradients, learning_rate

VAE_SIZES: dict[str, Any] = dict(
    width=32, decoder_width=32, multipliers=(1, 2, 2), temporal=(True, True), latent_mean=None, latent_std=None
)
"""4 x 8 x 8, with 48 channels. Wan 2.2's folding of pixels, and its averages and copies past each change of resolution, are what
lets it learn in so few steps; on pictures this small its 16 x 16 would leave little to place."""
VAE_FRAMES = 5
"""Of a clip at a time: the first frame, and one group of those that follow."""
LATENT_NOISE = 0.01
TEXT_WIDTH, TEXT_LEN = 32, 32
"""Texts are filled up to so many tokens, where the releases have 512: a small model would do little else."""
SIZES: dict[str, Any] = dict(
    patch_size=(1, 1, 1), num_attention_heads=4, attention_head_dim=24, in_channels=48, out_channels=48, text_dim=TEXT_WIDTH,
    freq_dim=64, ffn_dim=256, num_layers=4,
)  # fmt: skip
DROPPED = 0.1
"""Share of samples without their caption."""


def make(clips: Clips, folder: Path, vae_steps: int, train_steps: int, batch_size: int) -> float:
    """Train and save all of it; a VAE that is there is taken. Returns: the transformer's mean loss over its last tenth of steps."""
    torch.manual_seed(0)
    videos = to_video(torch.stack([torch.from_numpy(clips[i].video) for i in range(len(clips))]))
    if not (folder / "vae" / "config.json").is_file():
        train_vae(videos, vae_steps).save_pretrained(folder / "vae")
    vae = AutoencoderKLWan.from_pretrained(folder / "vae").eval().requires_grad_(False)
    text, tokeniser = random_text(clips.captions)
    pipe = WanPipeline(
        tokenizer=tokeniser,
        text_encoder=text,
        vae=vae,
        transformer=WanTransformer3DModel(**SIZES),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0),
    )
    loss = train_transformer(pipe, videos, clips.captions, train_steps, batch_size)
    pipe.save_pretrained(folder)
    return loss


def train_vae(videos: Tensor, steps: int, batch_size: int = 8) -> AutoencoderKLWan:
    """On few frames at a time, then on whole clips, without which later frames lose their colours. The latents' statistics are
    measured at the end."""
    vae = WanVAE(WanVAEConfig.preset("tiny-2.2", **VAE_SIZES))
    fit_vae(vae, videos, VAE_FRAMES, steps, batch_size, 7e-3)
    fit_vae(vae, videos, videos.shape[2], steps // 5, batch_size // 2, 3e-3)
    return handed_over(vae, videos)


def fit_vae(vae: WanVAE, videos: Tensor, frames: int, steps: int, batch_size: int, rate: float) -> None:
    """By the squared difference of pixels: of mostly empty pictures the absolute one is smallest, at first, where all is empty."""
    config = OptimConfig(
        optimizer="muon", learning_rate=rate, adam_learning_rate=rate / 2, betas=(0.9, 0.95), schedule="cosine",
        warmup_steps=max(1, steps // 20), weight_decay=0.0,
    )  # fmt: skip
    optimiser = build_optimizer({"vae": vae}, config)
    with bar(f"VAE, {frames} frames", "steps") as progress:
        for step in range(steps):
            chosen = torch.randint(len(videos), (batch_size,))
            starts = torch.randint(videos.shape[2] + 1 - frames, (batch_size,))
            video = torch.stack([videos[i, :, at : at + frames] for i, at in zip(chosen, starts)])
            with torch.autocast("cpu", torch.bfloat16):
                latents = vae.encode(video).mean
                made = vae.decode(latents + LATENT_NOISE * torch.randn_like(latents))
            loss = (made - video).square().mean() + 1e-4 * latents.square().mean()
            optimiser.zero_grad()
            loss.backward()
            clip_gradients(list(vae.parameters()), 1.0)
            optimiser.step(learning_rate(step, config, steps))
            progress(step + 1, steps)


def handed_over(vae: WanVAE, videos: Tensor) -> AutoencoderKLWan:
    """As diffusers' class, which normalises by what the latents of some clips measure."""
    with torch.no_grad():
        latents = torch.cat([vae.encode(some).mean for some in videos[:256].split(16)])
    vae.set_latent_statistics(latents.mean(dim=(0, 2, 3, 4)), latents.std(dim=(0, 2, 3, 4)))
    theirs = AutoencoderKLWan.from_config(config_to_diffusers(vae.config))
    theirs.load_state_dict(to_diffusers(vae.state_dict(), vae.config.blocks, vae.config.shortcuts))
    return theirs


def train_transformer(pipe: Any, videos: Tensor, captions: list[str], steps: int, batch_size: int) -> float:
    """As such models are: clips as a whole, straight paths, diffusion time drawn evenly."""
    network, vae = pipe.transformer.train(), pipe.vae
    network.register_to_config(text_len=TEXT_LEN)  # where the original release says it, too
    mean, std = (torch.tensor(vae.config[name])[:, None, None, None] for name in ("latents_mean", "latents_std"))
    with torch.no_grad():
        latents = torch.cat([(vae.encode(v).latent_dist.mean - mean) / std for v in videos.split(16)])
        told = sorted({"", *captions})
        encoded, _ = pipe.encode_prompt(told, do_classifier_free_guidance=False, max_sequence_length=TEXT_LEN)
    words = {caption: encoded[i] for i, caption in enumerate(told)}
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, steps)
    losses = []
    with bar("WanTransformer3DModel", "steps") as progress:
        for step in range(steps):
            chosen = torch.randint(len(latents), (batch_size,))
            kept = torch.rand(batch_size) >= DROPPED
            text = torch.stack([words[captions[i] if keep else ""] for i, keep in zip(chosen, kept)])
            clean, t = latents[chosen], torch.rand(batch_size)
            noise = torch.randn_like(clean)
            noisy = clean + t[:, None, None, None, None] * (noise - clean)
            output = network(noisy, 1000 * t, text, return_dict=False)[0]
            loss = (output - (noise - clean)).square().mean()
            step_of(optimiser, schedule, loss, network)
            losses.append(loss.item())
            progress(step + 1, steps)
    network.eval()
    last = losses[-max(1, steps // 10) :]
    return sum(last) / len(last)


def step_of(optimiser: torch.optim.Optimizer, schedule: Any, loss: Tensor, network: torch.nn.Module) -> None:
    optimiser.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    schedule.step()


def random_text(captions: list[str]) -> tuple[UMT5EncoderModel, PreTrainedTokenizerFast]:
    """A tokeniser of the captions' words, and an encoder of random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *sorted({word for text in captions for word in text.replace(",", " ,").split()})]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokeniser = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=TEXT_LEN
    )
    config = UMT5Config(
        vocab_size=len(words), d_model=TEXT_WIDTH, d_kv=8, d_ff=64, num_layers=2, num_heads=4, pad_token_id=0
    )
    return UMT5EncoderModel(config).eval().requires_grad_(False), tokeniser
