"""One look for the studio's pages and for the reports of the command line: colours, sizes and type as CSS variables. No code."""

from importlib import resources


def text(name: str) -> str:
    """A style sheet of this folder: served by the studio, put into the head of a report."""
    return resources.files("video_gen.look").joinpath(name).read_text(encoding="utf-8")
