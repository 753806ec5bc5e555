"""The house: imports point down, and importing has no side effects that a command would wait for."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "video_gen"
LAYERS = {
    "errors": -3, "__version__": -3, "shipped": -2, "look": -2, "plain_yaml": -1, "config": 0, "files": 0, "progress": 0,
    "interrupt": 0, "plain_json": 0.2, "vocabulary": 0.5, "naming": 0.5,
    "model": 1, "data": 1, "options": 1,
    "help": 2, "command_line": 3,
    "sampling": 2,
    "training": 3, "evaluation": 3,
    "arguments": 4,
    "train": 5, "sample": 5, "export": 5, "card": 5, "hub": 6, "evaluate": 5, "evaluate_control": 5, "evaluate_footage": 5.5,
    "sizes": 5, "plan_sample": 6, "stream": 6, "plan": 6, "plan_lora": 6.2, "web": 6.5, "play": 6.8, "studio": 6.8,
    "demo": 6, "demo_stages": 5,
    "cli": 7,
}  # fmt: skip
APART = {("model", "data"), ("data", "model")}
MAY = {
    ("training", "evaluation"),  # the VAE's held-out figures are the report's
}
SAMPLING_KNOWS = {"diffusion", "diffusion_config"}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("video_gen"):
            yield node.module.split(".")[1:] or [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("video_gen.") for alias in node.names), path


def test_imports_point_down():
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        for found in imports(path):
            home, other = parts[0], found[0]
            same = home == other or (home, other) in MAY
            if not same and (LAYERS[other] >= LAYERS[home] or (home, other) in APART):
                wrong.append(f"{path.name} imports {'.'.join(found)}")
    assert wrong == []


def test_no_circles():
    """Whatever is imported, in functions or for types alone, leads never back to where it came from."""
    modules = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in PACKAGE.rglob("*.py")}
    modules = {path: parts[:-1] if parts[-1] == "__init__" else parts for path, parts in modules.items()}
    known = {parts for parts in modules.values() if parts}
    edges: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for path, parts in modules.items():
        if not parts:  # the package itself only names what is public, and imports it when it is asked for
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "video_gen":
                base = tuple((node.module or "").split(".")[1:])
                found = {(*base, alias.name) for alias in node.names} & known or ({base} & known)
                edges.setdefault(parts, set()).update(found - {parts})

    def circle(at, way):
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return None
        found = next((c for other in edges.get(at, ()) if (c := circle(other, [*way, at]))), None)
        done.add(at)
        return found

    done: set[tuple[str, ...]] = set()
    circles = [" -> ".join(".".join(m) for m in c) for module in edges if (c := circle(module, []))]
    assert circles == []


def test_solvers_guidance_and_rollout_know_no_model_class():
    for name in ("solvers", "guidance", "rollout", "config"):
        for found in imports(PACKAGE / "sampling" / f"{name}.py"):
            assert found[0] != "model" or found[1] in SAMPLING_KNOWS


def test_help_and_configs_do_not_wait_for_torch():
    code = "import video_gen.cli, video_gen, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_public_names():
    import video_gen

    for name in video_gen.__all__:
        assert getattr(video_gen, name)


def test_commands_of_the_documents_parse():
    import shlex

    from video_gen.cli import COMMANDS, of_what
    from video_gen.command_line import find, parse
    from video_gen.shipped import CONFIGS

    root = PACKAGE.parent
    texts = [root / "README.md", *root.glob("docs/*.md"), *CONFIGS.glob("*.yaml")]
    lines = [line.lstrip("# ") for text in texts for line in text.read_text(encoding="utf-8").splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("video-gen ")]
    assert len(commands) > 10
    for words in commands:
        names, command = find(COMMANDS, of_what(words))
        parse(names, command, of_what(words)[len(names) :])
