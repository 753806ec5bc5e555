"""A studio to test: a small model in a folder, and a client that waits for what happens by itself."""

import time
from contextlib import contextmanager

from playable import playable

LOCAL = {"host": "127.0.0.1:8000"}


def small_model(folder):
    """A model that makes 16x16 videos of 9 frames in a moment."""
    playable(words=None).save_pretrained(folder)
    return folder


@contextmanager
def client_of(studio):
    from fastapi.testclient import TestClient

    from video_gen.web.studio.app import make_app

    with TestClient(make_app(studio), headers=LOCAL) as client:
        yield client


def until(true, seconds=60):
    """What `true` returns, once it is something."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"waited {seconds} s for {true}"
        time.sleep(0.02)
    return found
