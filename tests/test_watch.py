"""What a run says of itself: parts of the step, utilisation, gradients per group, a starving loader, a profile."""

import gzip
import json
import time

import pytest
import torch
from test_training import Denoise, run
from torch import nn

from video_gen.errors import ConfigError
from video_gen.training import watch as watch_module
from video_gen.training.optim import clip_gradients
from video_gen.training.watch import StepClock, Watch, group_norms, group_of, matrix_peak

CPU = torch.device("cpu")


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines() if '"train"' in line]


def test_the_log_tells_parts_utilisation_and_gradients_per_group(tmp_path, capsys):
    run(tmp_path, log_every=4)
    found = lines(tmp_path)
    for line in found:
        assert {"data_s", "forward_s", "backward_s", "optimiser_s", "mfu", "tokens_per_s", "memory_mb"} <= line.keys()
        assert 0 < line["mfu"] < 1 and line["grad_norm_net"] > 0
    assert capsys.readouterr().out.count("matrix peak of this device in bfloat16, measured: ") == 1


def test_a_loader_that_starves_the_trainer_is_named_once(tmp_path, capsys):
    run(tmp_path, Denoise(pause=0.05))
    assert capsys.readouterr().out.count("the loader starves the trainer") == 1


def test_laps_add_up_and_what_lies_before_a_start_counts_for_nothing(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = StepClock(CPU)

    def after(seconds, call, *part):
        now[0] += seconds
        call(*part)

    after(5, clock.lap, "data")  # the first batch: nothing came before
    for _ in range(2):
        after(1, clock.lap, "forward")
        after(2, clock.lap, "backward")
        after(0.5, clock.lap, "optimiser")
        after(100, clock.start)
    after(0.25, clock.lap, "data")
    assert clock.read() == ({"forward": 2, "backward": 4, "optimiser": 1, "data": 0.25}, 2)
    assert clock.read() == ({}, 0)


def test_utilisation_is_work_by_time_by_peak(monkeypatch):
    said = []
    monkeypatch.setattr(watch_module, "matrix_peak", lambda *_: 1000.0)
    watch = Watch(CPU, torch.bfloat16, said.append)
    watch.clock.read = lambda: ({"data": 1.0, "forward": 3.0}, 2)  # type: ignore[method-assign]
    watch.count(800)
    watch.count(800)
    assert watch.line() == {"data_s": 0.5, "forward_s": 1.5, "mfu": 0.4}
    assert len(said) == 2 and "25% of a step's 2 s" in said[1]
    assert "mfu" not in watch.line()


def test_the_peak_is_a_plausible_rate():
    assert 1e8 < matrix_peak(CPU, torch.float32) < 1e15


def test_group_norms_are_parts_of_the_whole():
    nets = {name: nn.Linear(3, 3) for name in ("transformer.blocks.0.attention.qkv", "transformer.embed_text", "other")}
    parameters = {f"{name}.{n}": p for name, net in nets.items() for n, p in net.named_parameters()}
    for seed, p in enumerate(parameters.values()):
        p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed))
    groups = group_norms(parameters)
    assert groups.keys() == {"grad_norm_attention", "grad_norm_text", "grad_norm_other"}
    whole = clip_gradients(list(parameters.values()), 1e9)
    torch.testing.assert_close(torch.stack(list(groups.values())).norm(), whole)


def test_every_parameter_of_the_models_has_a_group_by_its_part():
    from video_gen.model.text import build_text_encoder
    from video_gen.model.transformer import VideoTransformer
    from video_gen.model.transformer_config import TextConfig
    from video_gen.model.video_vae import VideoVAE

    with torch.device("meta"):
        models = {
            "transformer": VideoTransformer.from_preset("tiny"),
            "text": build_text_encoder(TextConfig()),
            "vae": VideoVAE.from_preset("tiny"),
        }
    found = {f"{m}.{n}": group_of(f"{m}.{n}") for m, model in models.items() for n, _ in model.named_parameters()}
    assert set(found.values()) == {
        "text", "attention", "feed_forward", "modulation", "embeddings", "encoder", "decoder",
    }  # fmt: skip
    assert found["text.table.weight"] == "text" and found["transformer.blocks.0.table"] == "modulation"


def test_a_profile_is_a_trace_of_so_many_steps(tmp_path, capsys):
    from test_training import CONFIG, OptimConfig, loop_config, train

    train(Denoise(), loop_config(), OptimConfig(), tmp_path, CONFIG, profile=2)
    trace = json.loads(gzip.decompress((tmp_path / "profile/trace.json.gz").read_bytes()))
    assert sum(str(event.get("name", "")).startswith("ProfilerStep#") for event in trace["traceEvents"]) == 2
    assert "profile of 2 steps: " in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"profile 10: needs 13 steps with its warm-up, the run has 12 left"):
        train(Denoise(), loop_config(), OptimConfig(), tmp_path / "b", CONFIG, profile=10)
