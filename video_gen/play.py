"""`video-gen play`: a model's world in the browser, or what is refused before the page is there."""

import secrets
import sys
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from video_gen.errors import ConfigError, VideoGenError
from video_gen.files import check_folder
from video_gen.model.pretrained import local_folder
from video_gen.sample import read_given
from video_gen.sampling.fit import Fit
from video_gen.shipped import OWN_MODELS, model_names
from video_gen.training.parallel import pick_device
from video_gen.web.access import LOOPBACK, address_of, listen


def play(
    model: Path,
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    browser: bool = True,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    fit: Fit = Fit(),
    room: str | None = None,
    image: Path | None = None,
    video: Path | None = None,
    resume: Path | None = None,
    prompt: str = "",
    seed: int | None = None,
    **sampling: Any,
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        folder: for recordings and saved states.
        resume: a saved state to go on from, in place of an image, a video or nothing.
        host: an address of this machine; any other than loopback asks for a token, which is printed.
        fit, room: how each model that is picked is made to fit, and into what; see `plan_sample.fit_into`.
        sampling: fields of SamplingConfig; None = as the model has it.
    Raises: ConfigError if the model knows no actions, the port is taken or the web part is not installed; DataError.
    """
    try:
        import uvicorn

        from video_gen.web.player import Player, beginning, leave_a_core, opener
        from video_gen.web.playing import MESSAGE_BYTES, Outlet
        from video_gen.web.server import make_app
    except ImportError as error:
        raise ConfigError(f"play: {error.name} is not installed; pip install 'video-gen[web]'") from None
    check_folder(folder)
    listener = listen(host, port)
    with listener:
        settings = {name: value for name, value in sampling.items() if value is not None}
        on = pick_device(device)
        leave_a_core(on)
        load = opener(on, fit, room, **settings)
        first = load(str(model))
        given = {"image": image, "video": video, "seed": seed}
        if resume is not None and (wrong := [name for name, value in given.items() if value is not None]):
            raise ConfigError(f"play: {resume} has begun already; leave --{wrong[0]} out")
        given_none = resume is None and image is None and video is None and not prompt
        start = beginning(first, str(model)) if given_none else read_given(first, image, video)
        start |= settings | {"prompt": prompt, "seed": seed or 0}
        outlet = Outlet()
        print(f"warming up {model}", file=sys.stderr)
        loaded = {str(model): first}
        player = Player(
            lambda name: loaded.pop(name, None) or load(name),
            str(model),
            folder,
            start,
            outlet.show,
            outlet.tell,
            resume,
        )
        token = None if host in LOOPBACK else secrets.token_urlsafe(16)
        app = make_app(player, outlet, playable, token, player.close)
        address = address_of(host, listener, token)
        print(f"play at {address}   (Ctrl-C ends)", flush=True)
        if browser and token is None:
            with suppress(webbrowser.Error):
                webbrowser.open_new_tab(address)
        config = uvicorn.Config(app, log_level="warning", ws_max_size=MESSAGE_BYTES, ws_ping_interval=20)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            player.close()


def playable(own: tuple[str, ...] = OWN_MODELS) -> list[str]:
    """Names of models that can be played: those that ship and those of one's own runs."""
    from video_gen.model.pretrained import read_config
    from video_gen.model.transformer_config import TransformerConfig

    names = [*model_names(), *sorted(str(path) for pattern in own for path in Path().glob(pattern))]

    def can(name: str) -> bool:
        try:
            return (
                read_config(TransformerConfig, local_folder(name) / "transformer" / "config.json").actions is not None
            )
        except VideoGenError:
            return False

    return [name for name in names if can(name)]
