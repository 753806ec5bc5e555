"""What is public says what it takes: typed keywords, with their words in the docstrings."""

import inspect
from typing import get_type_hints

import pytest

import video_gen
from video_gen import Stream, VideoPipeline
from video_gen.errors import ConfigError
from video_gen.sampling.config import SamplingConfig, SamplingSettings
from video_gen.sampling.pipeline import ClipOptions, InterpolateOptions, StreamOptions


def keywords(function) -> set[str]:
    """Names that can be given by keyword, those in `**options` included."""
    names = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            names |= set(get_type_hints(parameter.annotation.__args__[0]))
        elif parameter.kind is parameter.KEYWORD_ONLY:
            names.add(name)
    return names


def test_stream_is_public():
    assert "Stream" in video_gen.__all__ and Stream is video_gen.Stream


def test_settings_are_those_of_the_config():
    assert {*SamplingSettings.__annotations__, "block_frames"} == set(SamplingConfig.model_fields)
    hints, fields = get_type_hints(SamplingSettings), SamplingConfig.model_fields
    assert all(hints[name] == fields[name].annotation for name in hints)


def test_the_short_way_takes_what_the_long_one_does():
    assert keywords(VideoPipeline.generate) - {"seeds"} == keywords(VideoPipeline.__call__) - {"seed"}
    assert keywords(VideoPipeline._start) == set(get_type_hints(StreamOptions))
    assert keywords(VideoPipeline.streams) - {"seeds"} == keywords(VideoPipeline.stream) - {"seed"}
    assert set(get_type_hints(InterpolateOptions)) < set(get_type_hints(ClipOptions))


@pytest.mark.parametrize("name", ["__call__", "generate", "interpolate", "stream", "streams"])
def test_every_way_tells_of_its_arguments(name):
    function = getattr(VideoPipeline, name)
    text = inspect.getdoc(function) or ""
    assert "Args:" in text and "Raises:" in text
    for word, parameter in inspect.signature(function).parameters.items():
        assert parameter.annotation is not inspect.Parameter.empty or word == "self"
    assert "num_steps" in keywords(function) and "guidance_scale" in keywords(function)


def test_an_unknown_keyword_is_named():
    from test_pipeline import tiny_pipeline

    with pytest.raises(ConfigError, match="unknown key 'guidance'; perhaps you meant 'guidance_scale'"):
        tiny_pipeline()("x", guidance=3.0)
