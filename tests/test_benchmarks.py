"""The tables of benchmarks/ in their quick form: every model runs, ours and the peers', and every figure is there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers", reason="the peers of benchmarks/: pip install -e '.[bench]'")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.measure import Setting, count_flops, interleaved, peak_memory
from benchmarks.models import ENTRIES, OURS_4, OURS_6, Size, parameters
from benchmarks.run import TABLES
from benchmarks.tables import Table
from benchmarks.vae import PEERS, ours

QUICK = Setting(torch.device("cpu"), quick=True, compiled=False)


@pytest.mark.slow
def test_all_tables_have_all_figures(tmp_path, capsys):
    from video_gen.cli import main

    assert main(["bench", "--quick", "--no-compile", "--device", "cpu", "--output", str(tmp_path)]) == 0
    assert "matrix peak" in capsys.readouterr().out
    tables = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert set(tables) == set(TABLES)
    for name, table in tables.items():
        assert table["rows"] and table["machine"]["torch"] == torch.__version__
        for row in table["rows"]:
            assert "not measured" not in str(row), row
        text = (tmp_path / f"{name}.md").read_text()
        assert all(str(row.get("model", "")) in text for row in table["rows"])
    models = {row["model"] for row in tables["transformer"]["rows"]}
    assert models == {entry.name for entry in ENTRIES}
    assert {row["model"] for row in tables["vae"]["rows"]} == {"Video Gen", "Video Gen, chunked", *PEERS}


def test_models_of_a_comparison_have_equal_parameters():
    size = Size.of(512, Setting(QUICK.device))
    millions = {}
    for entry in ENTRIES:
        with torch.device("meta"):
            millions[entry.name] = parameters(entry.build(size))
    for entry in ENTRIES:
        if entry.ours:
            assert millions[entry.ours] == pytest.approx(millions[entry.name], rel=0.1), entry.name
    assert millions[OURS_4] < millions[OURS_6]
    full = Setting(QUICK.device)
    with torch.device("meta"):
        own = parameters(ours(full))
        for name, make in PEERS.items():
            assert parameters(make(full)) == pytest.approx(own, rel=0.1), name


def test_a_job_that_fails_says_why_and_the_others_go_on():
    def fail():
        raise ValueError("no such kernel")

    bad, good = ("bad", "eager"), ("good", "eager")
    results = interleaved({bad: fail, good: lambda: torch.ones(3, 3) @ torch.ones(3, 3)}, QUICK)
    assert results[bad].milliseconds is None and results[bad].reason == "ValueError: no such kernel"
    assert results[good].milliseconds is not None and results[good].flops == 2 * 27


def test_a_compiled_job_runs_compiled():
    """As many calls of what the compiler made as of the job: nothing falls back, then or later."""
    calls: list[str] = []

    class Layer(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) + 1

    def backend(graph, inputs):
        return lambda *args: [calls.append("compiled"), graph(*args)][1]

    layer, x = Layer(3, 3), torch.ones(2, 3)
    layer.compile(backend=backend)
    jobs = {("layer", "compiled"): lambda: [calls.append("called"), layer(x)]}
    assert interleaved(jobs, QUICK)["layer", "compiled"].milliseconds is not None
    assert calls.count("compiled") == calls.count("called") > 1


def test_attention_on_a_cpu_is_counted():
    q = torch.randn(1, 2, 64, 32)
    flops = count_flops(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert flops == 2 * 2 * 2 * 64 * 64 * 32


def test_peak_memory_sees_what_was_held_and_let_go():
    with peak_memory(QUICK.device) as peak:
        torch.ones(64 * 2**20 // 4).sum()
    if peak.mebibytes is None:
        pytest.skip("the system does not tell the peak")
    assert 60 < peak.mebibytes < 80


def test_a_table_shows_a_missing_value_as_an_empty_cell():
    table = Table("x", "X", ("a", "b"), "nothing", [{"a": 1234.5}])
    assert "| 1,234 |  |" in table.markdown()


@pytest.mark.slow
def test_without_diffusers_there_is_one_clear_line():
    code = "import sys; sys.modules['diffusers'] = None; from video_gen.cli import main; sys.exit(main(['bench']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install" in done.stderr and len(done.stderr.splitlines()) == 1
