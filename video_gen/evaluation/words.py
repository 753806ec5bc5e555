"""What the figures are called on a page, what they mean, and what they are to reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal


@dataclass(frozen=True)
class Words:
    """A figure for a reader who does not know the program."""

    name: str
    note: str = ""
    kind: Literal["number", "share", "pixels", "decibels", "count", "seconds", "change"] = "number"
    aim: float | None = None
    """What the demo's model is to reach."""
    better: Literal["higher", "lower", "none"] = "none"

    def say(self, value: Any) -> str:
        """A value as it is read."""
        if isinstance(value, list):
            return " ".join(f"{x:.4g}" for x in value)
        if not isinstance(value, int | float):
            return str(value)
        if not isfinite(value):
            return "not to be told" if value != value else "without bound"
        forms = {
            "share": f"{100 * value:.0f}%",
            "change": f"{100 * value:+.0f}%",
            "pixels": f"{value:.2f} px",
            "decibels": f"{value:.1f} dB",
            "seconds": f"{value:.1f} s",
            "count": f"{value:.0f}",
        }
        return forms.get(self.kind, f"{value:.3g}")

    def say_aim(self) -> str:
        """Such as "at least 90%"; "" without an aim."""
        if self.aim is None:
            return ""
        return f"{'at least' if self.better == 'higher' else 'at most'} {self.say(self.aim)}"

    def reached(self, value: float) -> bool | None:
        """Whether a value reaches the aim; None without one."""
        if self.aim is None or self.better == "none":
            return None
        return value >= self.aim if self.better == "higher" else value <= self.aim


FIGURES: Mapping[str, Words] = {
    "videos": Words("Videos measured", kind="count"),
    "persistence": Words(
        "Nothing is lost", "videos in which every object is whole in every frame", "share", 0.9, "higher"
    ),
    "caption_accuracy": Words(
        "Shows what was asked for", "videos with the right number, colours and shapes", "share", 0.7, "higher"
    ),
    "caption_count": Words("Number of objects right", "share of videos", "share", better="higher"),
    "caption_colour": Words("Colours right", "share of videos", "share", better="higher"),
    "caption_shape": Words("Shapes right", "share of videos", "share", better="higher"),
    "objects_present": Words("Objects whole", "share of frames", "share", better="higher"),
    "colour_identity": Words(
        "Colours kept", "objects that keep their colour, over the frames", "share", better="higher"
    ),
    "shape_identity": Words("Shapes kept", "objects that keep their shape, over the frames", "share", better="higher"),
    "residual_px": Words(
        "Error of the motion",
        "distance from where the laws of motion put an object one frame on, median",
        "pixels",
        2,
        "lower",
    ),
    "acceleration_px": Words(
        "Jerks", "change of velocity from frame to frame where nothing is hit, median", "pixels", better="lower"
    ),
    "motion": Words("Speed over the speed asked for", "1 is right; median"),
    "speed_drift": Words(
        "Change of speed", "from the first quarter to the last, or against the first window; median", "change"
    ),
    "spread_px": Words("Variety of places", "deviation of where objects are in the first frame", "pixels"),
    "psnr": Words("Sharpness after the VAE", "likeness to the true clip; held-out clips", "decibels", 30, "higher"),
    "psnr_linear": Words("The same by PCA alone", "the floor: a VAE below it is broken", "decibels"),
    "detail": Words("Fine detail", "1 is as much as the clips have", better="higher"),
    "psnr_halved": Words("At half size", "of halved latents: high where they are smooth", "decibels"),
    "ssim": Words("Structural similarity", "1 is equal", better="higher"),
    "flicker": Words("Flicker", "error of the change from frame to frame, grey levels of 255", better="lower"),
    "psnr_per_frame": Words("Sharpness of each frame", "dB"),
    "compression": Words("Compression", "time x height x width"),
    "clips": Words("Clips measured", "none of them trained on", "count"),
    "data": Words("Clips", "of which those held out are measured"),
    "files": Words("Files they come from", kind="count"),
    "seconds_per_clip": Words("Time to make one clip", "best of three", "seconds", 3, "lower"),
    "followed": Words("Follows the new caption", "share of the switches", "share", 0.95, "higher"),
    "there": Words("All objects there", "streams with as many as the caption says", "share", 0.95, "higher"),
    "right": Words("Those that were asked for", "with their colours and shapes", "share", better="higher"),
    "whole": Words("No object fades", "videos whose objects all keep 60% of their mass", "share", 0.9, "higher"),
    "least_mass": Words("Least mass of an object", "in any frame, over a whole one's; median", better="higher"),
    "seam_speed": Words("Speed at the seam", "over that elsewhere; 1 is right; median"),
    "seam_error": Words("Error of the speed at the seam", "median", "share", 0.25, "lower"),
    "seam_near": Words("Speed at the seam right", "videos in which it is within 25%", "share", better="higher"),
    "kept": Words("Frames given are kept", "bit for bit", "share", 1, "higher"),
    "motion_energy": Words("Change from frame to frame", "grey levels of 255"),
    "sharpness": Words("Sharpness of edges", "grey levels per pixel"),
    "frozen": Words("Videos that stand still", kind="share", better="lower"),
    "latent_mean": Words("Mean of the latents", "0 on the training clips"),
    "latent_deviation": Words("Deviation of the latents", "1 on the training clips"),
    "model": Words("Model"),
    "solver": Words("Solver"),
    "num_steps": Words("Steps", kind="count"),
    "calls": Words("Model calls a block", kind="count"),
    "first_calls": Words("Calls of the first block", kind="count"),
    "worst": Words("Worst figure"),
    "worse_by": Words("Worse than the reference by", kind="change"),
    "episodes": Words("Episodes measured", "none of them trained on", "count"),
    "shuffle_ratio": Words(
        "Loss with other actions", "over that with its own; 1 means that they are ignored", aim=1.5, better="higher"
    ),
    "read_off_true": Words("Actions read off true frames", "by a network that was trained on such", "share"),
    "read_off_vae": Words("The same after the VAE", kind="share"),
    "read_off_made": Words("Actions read off made frames", "played with true actions", "share"),
    "read_off_share": Words("Does what it is told", "made over true after the VAE", "share", 0.9, "higher"),
    "idle_psnr": Words(
        "Stays while nothing is done", "last frame against the first made; median", "decibels", 25, "higher"
    ),
    "idle_psnr_worst": Words("The same, worst video", kind="decibels"),
    "idle_sharpness": Words("Change of sharpness meanwhile", "of edges; median", "change"),
    "told_apart": Words("What was done can be told", "made frames nearest to what it truly leads to, of five", "share"),
    "same_room": Words("Same room after a full turn", "by the nearest true view", "share", 0.7, "higher"),
    "control_psnr": Words("Likeness to the true frames", kind="decibels"),
    "control_sharpness": Words("Sharpness of edges", "grey levels per pixel"),
    "control_cells": Words("Error of the place", "cells, median, by the nearest true view"),
    "control_degrees": Words("Error of the heading", "degrees, median"),
    "control_room": Words("In the right room", kind="share"),
    "footage_psnr": Words(
        "Likeness to the true frames", "PSNR of a clip; mean over clips", "decibels", better="higher"
    ),
    "footage_ssim": Words("Structural similarity", "1 is equal", better="higher"),
    "footage_lpips": Words("Unlike to the eye (LPIPS)", "0 is equal", better="lower"),
    "footage_drawn_lpips": Words(
        "Unlike by a network with drawn weights", "as LPIPS, and not LPIPS; 0 is equal", better="lower"
    ),
    "footage_flicker": Words("Flicker", "error of the change from frame to frame, grey levels of 255", better="lower"),
    "footage_sharpness": Words("Sharpness of edges", "grey levels per pixel"),
    "footage_change": Words("Change from frame to frame", "grey levels of 255"),
    "footage_motion": Words("Motion", "optical flow, percent of the diagonal a second"),
    "footage_vbench_flickering": Words("VBench: temporal flickering", "1 = nothing changes"),
    "footage_vbench_smoothness": Words("VBench's motion smoothness, by optical flow", "1 = as between the neighbours"),
    "footage_vbench_dynamic": Words("VBench's dynamic degree, by optical flow", "videos that move", "share"),
    "loss": Words("Loss"),
    "loss_causal": Words("block after block"),
    "loss_t0.00-0.25": Words("nearly clean"),
    "loss_t0.25-0.50": Words("some noise"),
    "loss_t0.50-0.75": Words("much noise"),
    "loss_t0.75-1.00": Words("nearly only noise"),
}

TRAINING: Mapping[str, Words] = {
    "psnr": Words("Sharpness after the VAE", "likeness to the true clip", "decibels", better="higher"),
    "loss": Words("Loss", "what is trained for", better="lower"),
    "loss_causal": Words(
        "Loss, block after block", "given the frames before: for streams and continuations", better="lower"
    ),
    "loss_bidirectional": Words("Loss, whole clip at once", better="lower"),
    "loss_t0.00-0.25": Words("Loss, nearly clean", "about sharpness", better="lower"),
    "loss_t0.25-0.50": Words("Loss, some noise", better="lower"),
    "loss_t0.50-0.75": Words("Loss, much noise", better="lower"),
    "loss_t0.75-1.00": Words("Loss, nearly only noise", "about what is where, and the caption", better="lower"),
    "loss_critic": Words("Loss of the critic"),
    "gap": Words("Gap to the teacher", "how far its direction is from the student's", better="lower"),
    "pixels": Words("Distance of pixels", "part of the loss", better="lower"),
    "mse": Words("Squared error", "part of the loss", better="lower"),
    "kl": Words("Latents beyond the unit Gaussian (KL)", "towards 0 they carry too little"),
    "spatial": Words("Edges", "distance of differences between neighbours; part of the loss", better="lower"),
    "temporal": Words("Flicker", "distance of differences between frames; part of the loss", better="lower"),
    "frequency": Words("Texture", "distance of frames' frequencies; part of the loss", better="lower"),
    "scale": Words("At half size", "part of the loss", better="lower"),
    "lpips": Words("Unlike to the eye (LPIPS)", "part of the loss", better="lower"),
    "grad_norm": Words("Length of the gradient", "before it is clipped"),
    "lr": Words("Learning rate"),
    "samples_per_s": Words("Clips a second", "of training alone", better="higher"),
    "tokens_per_s": Words("Tokens a second", better="higher"),
    "mfu": Words("Use of the device", "of what its matrix products can do at most", "share", better="higher"),
    "memory_mb": Words("Memory", "the most so far"),
    "time": Words("Time spent training", "over all sessions", "seconds"),
    "data_s": Words("Waiting for a batch", "a step", "seconds", better="lower"),
    "forward_s": Words("Forward pass", "a step", "seconds"),
    "backward_s": Words("Backward pass", "a step", "seconds"),
    "optimiser_s": Words("Optimiser", "a step", "seconds"),
}
"""Figures of a run's log that are called otherwise there, or are nowhere else."""

SETS: Mapping[str, str] = {"true": "true clips", "vae": "true clips after the VAE"}
"""What the floors are called."""


def words_of(name: str) -> Words:
    """The words for a figure; one that has none is called by its name."""
    return FIGURES.get(name, Words(name.replace("_", " ")))


def words_of_training(name: str) -> Words:
    """The same for a figure of a run's log."""
    if name in TRAINING:
        return TRAINING[name]
    if group := name.removeprefix("grad_norm_") if name.startswith("grad_norm_") else "":
        return Words(f"Gradient: {group.replace('_', ' ')}", "its length over these weights")
    return words_of(name)
