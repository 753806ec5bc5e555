"""Video Gen: train, sample and measure latent video diffusion models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from video_gen.model.diffusion import Diffusion as Diffusion
    from video_gen.model.transformer import VideoTransformer as VideoTransformer
    from video_gen.model.video_vae import VideoVAE as VideoVAE
    from video_gen.sampling.pipeline import VideoPipeline as VideoPipeline
    from video_gen.sampling.play import Play as Play
    from video_gen.sampling.stream import Stream as Stream

__version__ = "0.1.0"
_HOMES = {
    "Diffusion": "video_gen.model.diffusion",
    "Play": "video_gen.sampling.play",
    "Stream": "video_gen.sampling.stream",
    "VideoPipeline": "video_gen.sampling.pipeline",
    "VideoTransformer": "video_gen.model.transformer",
    "VideoVAE": "video_gen.model.video_vae",
}
__all__ = ["Diffusion", "Play", "Stream", "VideoPipeline", "VideoTransformer", "VideoVAE", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import video_gen` alone does not wait for torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'video_gen' has no attribute '{name}'")
