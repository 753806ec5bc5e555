"""VideoPipeline: prompt, image or video in, video out. The command line, Python and training's samples all use it."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Unpack

import numpy as np
from torch import Tensor

from video_gen.config import validate
from video_gen.errors import ShapeError
from video_gen.sampling import beyond, pictures
from video_gen.sampling.conditioned import TextConditioned
from video_gen.sampling.config import SamplingConfig, SamplingSettings, Steering
from video_gen.sampling.model import VideoModel, check_prompts, plan_blocks
from video_gen.sampling.play import Play, Plays, actions_before, begin_with, still
from video_gen.sampling.rollout import advance
from video_gen.sampling.stream import Stream, Streams
from video_gen.sampling.stream_state import StreamState
from video_gen.sampling.watching import Step, Watch


class ClipOptions(SamplingSettings, total=False):
    """What can be said of a clip; `VideoPipeline.generate` says what it means. Besides, each field of `SamplingConfig`."""

    num_frames: int | None
    image: np.ndarray | None
    video: np.ndarray | None
    last_image: np.ndarray | None
    loop: bool
    source: np.ndarray | None
    strength: float
    block_frames: int | None
    sampling: SamplingConfig | None
    watch: Watch | None


class InterpolateOptions(SamplingSettings, total=False):
    """What can be said of a video between whose frames others are made. Besides, each field of `SamplingConfig`."""

    block_frames: int | None
    sampling: SamplingConfig | None
    watch: Watch | None


class StreamOptions(SamplingSettings, total=False):
    """What can be said of a stream; `VideoPipeline.streams` says what it means. Besides, each field of `SamplingConfig`."""

    image: np.ndarray | None
    video: np.ndarray | None
    speed: float
    block_frames: int | None
    sampling: SamplingConfig | None


class PlayOptions(SamplingSettings, total=False):
    """What can be said of a world that is played; `VideoPipeline.plays` says what it means. Besides, each field of
    `SamplingConfig`."""

    image: np.ndarray | None
    video: np.ndarray | None
    actions: np.ndarray | None
    sampling: SamplingConfig | None


class VideoPipeline(VideoModel):
    """A VAE, a transformer and a text encoder that belong together.

    `pipe("a red circle, fast", seed=1)` returns a video, uint8 `(f, h, w, 3)`.
    """

    def __call__(self, prompt: str = "", *, seed: int = 0, **options: Unpack[ClipOptions]) -> np.ndarray:
        """One video, uint8 (f, h, w, 3).

        Args: options: what `ClipOptions` says, such as `num_frames=33`, `image=picture`, `num_steps=10`; see `generate`.
        Raises: as `generate`.
        """
        return self.generate([prompt], seeds=[seed], **options)[0]

    def generate(
        self,
        prompts: Sequence[str],
        *,
        seeds: Sequence[int],
        num_frames: int | None = None,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        last_image: np.ndarray | None = None,
        loop: bool = False,
        source: np.ndarray | None = None,
        strength: float = 1.0,
        block_frames: int | None = None,
        sampling: SamplingConfig | None = None,
        watch: Watch | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> np.ndarray:
        """Several videos at once; each depends on its own prompt and seed alone.

        Args:
            prompts: one per video; "" is no prompt.
            num_frames: of the whole video, with what is given; default that of the training clips.
            image: (h, w, 3) uint8, becomes the first frame. `video`: (f, h, w, 3) uint8, is continued. Either is scaled and
                cropped to the model's size, and its frames are kept as they are in the result, but for public models that make
                the first frame, too (`pictures`). Of a video whose number of frames the VAE does not take the first few are left
                out.
            last_image: (h, w, 3) uint8, becomes the last frame, likewise kept. The last `sampling.ending_frames` latent frames lead
                to it. For models that were trained with `modes.endings`; others do not know how.
            loop: lead back to the first frame, given or made, and leave out its repetition: the result, one frame less than
                `num_frames`, closes when it is played round.
            source: (f, h, w, 3) uint8, a video to change; its first `num_frames`, default as many as the VAE takes.
                `strength`: how much, from 0, its reconstruction, to 1, nothing of it: the diffusion time from which it is
                made anew.
            block_frames: latent frames per block; default `sampling.block_frames` for a clip as long as those of training,
                and `sampling.long_block_frames` for longer ones.
            sampling, settings: how to sample, and fields of it to change, such as `guidance_scale=3.0`.
            watch: is told after each step how far the videos are and what they look like; what it raises ends the work.
        Returns: uint8 (n, f, h, w, 3).
        Raises: ShapeError if the number of frames does not fit; ConfigError for an unknown setting or an impossible seed;
            DataError for a prompt that is too long.
        """
        check_prompts(prompts, seeds)
        beyond.check(source, strength, {"image": image, "video": video, "last_image": last_image, "loop": loop})
        given = None if image is None and video is None else self.given(image, video)
        stride = self.vae.config.temporal_stride
        if source is not None:
            source = beyond.cut(self.fit(source), num_frames, stride)
            num_frames = len(source)
        last = None if last_image is None else self.fit_picture(last_image)
        num_frames = num_frames or self.config.clip.num_frames
        kept = 0 if given is None else len(given)
        if num_frames <= kept:
            raise ShapeError(f"num_frames is {num_frames}, but {kept} are given already; ask for more")
        total, trained = (self.latent_frames(n) for n in (num_frames, self.config.clip.num_frames))
        chosen = (sampling or self.config.sampling).replace(**settings)
        way = pictures.way_of(self)
        if way == "beside":
            others = {"video": video, "loop": loop, "source": source, "block_frames": block_frames}
            pictures.check(self, others, given, last)
        if block_frames is None and way != "beside":
            block_frames = chosen.block_frames if total <= trained else self.long_block_frames(chosen)
        if (
            given is not None
            and way != "history"
            and block_frames is None
            and not loop
            and (way == "beside" or last is None)
        ):
            return self._from_picture(prompts, seeds, chosen, num_frames, given, last, watch)
        done, ends = 0 if given is None else self.latent_frames(kept), loop or last is not None
        first = chosen.first_block_frames
        sizes = plan_blocks(done, total, block_frames, first)
        if loop and not done:  # its first frame, to which it leads, is made by itself
            sizes = [1, *plan_blocks(1, total, block_frames)]
        c, h, w = self.latent_frame()
        parts = [] if given is None else [np.broadcast_to(given, (len(prompts), *given.shape))]
        with self.inference():
            model = self.block_model(prompts, chosen, block_frames or total)
            state, decoder = self.begin(model, given, seeds, block_frames, first=first)
            drafts = None if source is None else self.encode(source[None])
            for number, (at, size) in enumerate(zip(np.cumsum([done, *sizes]).tolist(), sizes)):
                draft = None if drafts is None else beyond.Draft(drafts[:, :, at : at + size], strength)
                if ends and last is None and at:
                    last = parts[0][:, 0]
                led = model
                if last is not None and total - at <= (chosen.ending_frames or trained):
                    led = model.towards(self.encode(np.array(last)[:, None]), total - at - size)
                look = None if watch is None else partial(_told, watch, number, len(sizes), at)
                state = advance(led, state, (c, size, h, w), self.diffusion, chosen, self.device, draft, look=look)
                assert state.block is not None
                frames, decoder = self.decode(state.block, decoder, more=number + 1 < len(sizes))
                parts.append(frames)
        made = np.concatenate(parts, axis=1)
        if ends:
            made[:, -1] = last
        return made[:, :-1] if loop else made

    def _from_picture(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        sampling: SamplingConfig,
        num_frames: int,
        first: np.ndarray,
        last: np.ndarray | None,
        watch: Watch | None,
    ) -> np.ndarray:
        """A clip in one block, with its first frames within it or told beside it."""
        look = None if watch is None else partial(_told, watch, 0, 1, 0)
        with self.inference():
            latents = pictures.make(self, prompts, seeds, sampling, num_frames, first, last, look)
            return self.decode(latents, None, more=False)[0]

    def interpolate(
        self,
        video: np.ndarray,
        factor: int,
        *,
        prompt: str = "",
        seed: int = 0,
        strength: float = 0.6,
        **options: Unpack[InterpolateOptions],
    ) -> np.ndarray:
        """A video of `factor` times the frame rate: a linear blend of its frames, changed at a strength as a `source` is.

        The frames given, scaled and cropped to the model's size, are kept as they are, at every `factor`-th place. Where the
        number of frames does not fit the VAE, the last is repeated meanwhile.

        Args: video: (f, h, w, 3) uint8, two frames or more. Others: as for `generate`.
        Returns: uint8 (1 + (f - 1) * factor, h, w, 3).
        Raises: ShapeError, ConfigError for what does not fit.
        """
        if factor < 2 or len(video) < 2:
            raise ShapeError(
                f"factor {factor} and {len(video)} frames; give a whole factor of 2 or more, and 2 frames or more"
            )
        given = self.fit(video)
        blended = beyond.blend(given, factor)
        stride = self.vae.config.temporal_stride
        padded = np.concatenate([blended, np.repeat(blended[-1:], -(len(blended) - 1) % stride, axis=0)])
        made = self.generate([prompt], seeds=[seed], source=padded, strength=strength, **options)[0, : len(blended)]
        made[::factor] = given
        return made

    def stream(self, prompt: str = "", *, seed: int = 0, **options: Unpack[StreamOptions]) -> Stream:
        """An endless video: iterating gives its next frames, uint8 (f, h, w, 3).

        N blocks of it equal the clip of as many frames, seed and `block_frames`.

        Args: options: what `StreamOptions` says, such as `image=picture`, `speed=0.5`, `num_steps=4`; see `streams`.
        Raises: as `streams`.
        """
        return Stream(self, *self._start([prompt], [seed], **options))

    def streams(self, prompts: Sequence[str], *, seeds: Sequence[int], **options: Unpack[StreamOptions]) -> Streams:
        """Several endless videos, made together; each depends on its own prompt and seed alone.

        Args:
            image, video: to start from, as for `generate`; these frames are not repeated.
            block_frames: latent frames per block; default `sampling.long_block_frames`.
            speed: of playback; see `Streams.steer`.
            sampling, others: how to sample, and fields of it to change.
        Returns: an iterator of uint8 (n, f, h, w, 3); see `Streams`.
        Raises: ShapeError, ConfigError, DataError for what does not fit.
        """
        return Streams(self, *self._start(prompts, seeds, **options))

    def play(self, prompt: str = "", *, seed: int = 0, **options: Unpack[PlayOptions]) -> Play:
        """A world to be played: `frames = world.step({"keys": ["forward"]})`, uint8 (f, h, w, 3), those of a latent frame.

        Args: options: what `PlayOptions` says, such as `image=picture`, `num_steps=2`; see `plays`.
        Raises: as `plays`.
        """
        return Play(self, *self._begin_to_play([prompt], [seed], **options))

    def plays(self, prompts: Sequence[str], *, seeds: Sequence[int], **options: Unpack[PlayOptions]) -> Plays:
        """Several worlds that are played together; each depends on its own prompt, seed and actions alone.

        Args:
            image, video: to start from, (h, w, 3) or (f, h, w, 3) uint8, scaled and cropped to the model's size; without either
                the model makes a first frame. A video may be one for each, (n, f, h, w, 3), of the model's size.
            actions: of the video, (f, a) or (n, f, a) as `Vocabulary.row` has them: row t led from frame t to frame t + 1.
            sampling, others: how to sample, and fields of it to change.
        Returns: see `Plays`.
        Raises: ConfigError if the model was trained without actions; ShapeError, DataError for what does not fit.
        """
        return Plays(self, *self._begin_to_play(prompts, seeds, **options))

    def _begin_to_play(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        actions: np.ndarray | None = None,
        sampling: SamplingConfig | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> tuple[StreamState, np.ndarray]:
        """The state after the first frames, and these, (n, f, h, w, 3)."""
        check_prompts(prompts, seeds)
        given = begin_with(self, image, video, actions, len(seeds))
        chosen = (sampling or self.config.sampling).replace(**settings)
        steering = validate(Steering, {"prompts": tuple(prompts), "sampling": chosen}, source="play()")
        with self.inference():
            model = self.block_model(prompts, chosen, 1)
            randomness = None
            if given is None:
                given, randomness = self._first_frame(model, chosen, seeds)
            shown = given
            if (
                given.shape[1] == 1
            ):  # as a video in which nothing is done: a picture that begins one has latents of another kind
                given, actions = still(self, given)
            done = actions_before(self, given, actions, len(seeds))
            rollout, decoder = self.begin(model, given, seeds, 1, done)
        if randomness is not None:
            rollout = replace(rollout, randomness=randomness)
        shown = np.broadcast_to(shown, (len(seeds), *shown.shape[1:]))
        return StreamState(rollout, decoder, steering, 1, seconds=shown.shape[1] / self.config.clip.fps), shown

    def _first_frame(
        self, model: TextConditioned, sampling: SamplingConfig, seeds: Sequence[int]
    ) -> tuple[np.ndarray, tuple[Tensor, ...]]:
        """What worlds begin with that begin with nothing, (n, 1, h, w, 3), and the generators' states after that."""
        c, h, w = self.latent_frame()
        start, _ = self.begin(model, None, seeds, 1)
        made = advance(model, start, (c, 1, h, w), self.diffusion, sampling, self.device)
        assert made.block is not None
        return self.decode(made.block, None, more=False)[0], made.randomness

    def _start(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        image: np.ndarray | None = None,
        video: np.ndarray | None = None,
        block_frames: int | None = None,
        speed: float = 1.0,
        sampling: SamplingConfig | None = None,
        **settings: Unpack[SamplingSettings],
    ) -> tuple[StreamState, np.ndarray | None]:
        """The state before a stream's first block, and the frames given."""
        check_prompts(prompts, seeds)
        given = None if image is None and video is None else self.given(image, video)
        chosen = (sampling or self.config.sampling).replace(**settings)
        values = {"prompts": tuple(prompts), "sampling": chosen, "speed": speed}
        steering = validate(Steering, values, source="stream()")
        block_frames = block_frames or self.long_block_frames(chosen)
        if pictures.way_of(self) == "beside":
            raise ShapeError(
                "this model makes a clip as a whole, from a picture beside it, and no stream; use sample, or another model"
            )
        with self.inference():
            model = self.block_model(prompts, chosen, block_frames)
            rollout, decoder = self.begin(model, given, seeds, block_frames, first=chosen.first_block_frames)
        return StreamState(rollout, decoder, steering, block_frames, speed), given


def _told(watch: Watch, block: int, blocks: int, start: int, step: int, steps: int, estimate: Tensor) -> None:
    watch(Step(block, blocks, step, steps, start, estimate))
