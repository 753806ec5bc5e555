"""Table: the Wan transformer at the width of the 1.3B release, ours and diffusers' class with the same weights."""

from collections.abc import Callable

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from benchmarks.measure import Job, Setting, Timing, interleaved, reason
from benchmarks.tables import Table
from video_gen.model.wan.config import WanTransformerConfig
from video_gen.model.wan.names import to_diffusers
from video_gen.model.wan.transformer import WanTransformer

GRIDS = {64: (4, 4, 4), 512: (8, 8, 8), 1024: (4, 16, 16), 4096: (16, 16, 16)}
"""Tokens as (frames, height, width) of patches."""
TOKENS, QUICK_TOKENS = (512, 1024, 4096), (64,)
DEPTH, WORDS, RANK = 4, 40, 16
OURS, THEIRS = "Video Gen", "diffusers"
ADAPTED = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0", "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}
"""Linear layers of a block with an adapter, by what their names end with here and there."""
COLUMNS = ("tokens", "pass", "model", "form", "ms", "GFLOP", "ours is faster by")
EQUAL = (
    f"{DEPTH} layers of the 1.3B release's width (1536, 12 heads) with random weights, the same in both, in bfloat16 with the "
    f"parts in float32 that each keeps so; one sample, a text of {WORDS} words. *forward* is one step of sampling: ours has encoded the text "
    "once for all steps, diffusers encodes it in each. *LoRA step* is a forward and backward pass with the text, base weights "
    f"frozen, with an adapter of rank {RANK} at each linear layer of video tokens and text, the same code in both."
)


def wan_table(setting: Setting, peak: float) -> Table:
    table = Table("wan", "The Wan transformer beside diffusers' class", COLUMNS, EQUAL)
    for tokens in QUICK_TOKENS if setting.quick else TOKENS:
        for name, make in (("forward", forward_jobs), ("LoRA step", training_jobs)):
            torch.compiler.reset()  # a fresh limit of recompilations for each size
            rows = measure(make, GRIDS[tokens], setting)
            table.rows += [{"tokens": tokens, "pass": name, **row} for row in rows]
            for row in rows:
                if ratio := row.get("ours is faster by"):
                    table.findings.append(f"{name}, {tokens} tokens, both {row['form']}: {ratio:.2f} times as fast")
    return table


def measure(make: Callable[..., dict[str, Job]], grid: tuple[int, int, int], setting: Setting) -> list[dict]:
    jobs, timings = {}, {}
    for form in setting.forms:
        try:
            jobs |= {(model, form): job for model, job in make(grid, form, setting).items()}
        except Exception as error:  # a peer may raise anything; its row says what
            timings |= {(model, form): Timing(reason=reason(error)) for model in (OURS, THEIRS)}
    timings |= interleaved(jobs, setting)
    rows = []
    for model in (OURS, THEIRS):
        for form in setting.forms:
            timing, ours = timings[model, form], timings[OURS, form].milliseconds
            row = {"model": model, "form": form, "ms": timing.milliseconds or f"not measured: {timing.reason}"}
            row["GFLOP"] = timing.flops / 1e9 if timing.flops else None
            if model == THEIRS and timing.milliseconds and ours:
                row["ours is faster by"] = timing.milliseconds / ours
            rows.append(row)
    return rows


def forward_jobs(grid: tuple[int, int, int], form: str, setting: Setting) -> dict[str, Job]:
    ours, theirs = models(form, setting)
    latents, t, text, visible = inputs(ours.config, grid, setting)
    with torch.no_grad():
        memory = ours.encode_text(text, visible)

    @torch.no_grad()
    def our_step() -> Tensor:
        return ours.denoise(latents, t, memory)

    @torch.no_grad()
    def their_step() -> Tensor:
        return theirs(latents, 1000 * t, text, return_dict=False)[0]

    return {OURS: our_step, THEIRS: their_step}


def training_jobs(grid: tuple[int, int, int], form: str, setting: Setting) -> dict[str, Job]:
    ours, theirs = models(form, setting, adapted=True)
    latents, t, text, visible = inputs(ours.config, grid, setting)

    def our_step() -> None:
        ours(latents, t, text, visible).float().square().mean().backward()

    def their_step() -> None:
        theirs(latents, 1000 * t, text, return_dict=False)[0].float().square().mean().backward()

    return {OURS: our_step, THEIRS: their_step}


def models(form: str, setting: Setting, adapted: bool = False) -> tuple[WanTransformer, nn.Module]:
    """The same weights in both classes."""
    sizes = dict(dim=128, num_heads=1, ffn_dim=256, depth=2) if setting.quick else dict(depth=DEPTH)
    config = WanTransformerConfig.preset("2.1-t2v-1.3b", **sizes)
    torch.manual_seed(0)
    ours = WanTransformer(config)
    for p in ours.parameters():
        nn.init.normal_(p, std=0.02)
    theirs = WanTransformer3DModel(
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.depth,
        text_dim=config.text_width,
    )
    theirs.load_state_dict({to_diffusers(name): x for name, x in ours.state_dict().items()})
    kept = WanTransformer3DModel._keep_in_fp32_modules
    in_half(ours, lambda name: ours.keeps_float32(name))
    in_half(theirs, lambda name: any(part in name.split(".") for part in kept))
    for model, names in ((ours, ADAPTED.keys()), (theirs, ADAPTED.values())):
        model.to(setting.device).requires_grad_(False)
        for block in model.blocks:
            if adapted:
                adapt(block, tuple(names))
            if form == "compiled":
                block.compile(dynamic=False)
    return ours, theirs


def in_half(model: nn.Module, keeps: Callable[[str], bool]) -> None:
    for name, p in model.named_parameters():
        if not keeps(name):
            p.data = p.data.bfloat16()


def inputs(config: WanTransformerConfig, grid: tuple[int, int, int], setting: Setting) -> tuple[Tensor, ...]:
    """Latents, time, and a text with zeros for padding."""
    (f, h, w), p, generator, device = grid, config.patch_size, setting.generator(), setting.device
    latents = torch.randn(1, config.latent_channels, f, p * h, p * w, generator=generator, device=device)
    text = torch.randn(1, config.text_len, config.text_width, generator=generator, device=device)
    visible = torch.arange(config.text_len, device=device)[None] < WORDS
    return latents.bfloat16(), torch.tensor([0.5], device=device), (text * visible[..., None]).bfloat16(), visible


class Adapter(nn.Module):
    """A frozen linear layer plus a product of low rank that learns."""

    def __init__(self, base: nn.Linear):
        super().__init__()
        like = dict(bias=False, device=base.weight.device, dtype=torch.bfloat16)
        self.base = base
        self.down, self.up = nn.Linear(base.in_features, RANK, **like), nn.Linear(RANK, base.out_features, **like)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.down(x))


def adapt(block: nn.Module, names: tuple[str, ...]) -> None:
    for name, layer in list(block.named_modules()):
        if isinstance(layer, nn.Linear) and any(name == end or name.endswith(f".{end}") for end in names):
            parent, _, own = name.rpartition(".")
            setattr(block.get_submodule(parent), own, Adapter(layer))
