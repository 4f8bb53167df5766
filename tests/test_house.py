"""The house rules of the design: directions of imports, a quick command line, nothing of one machine in the files."""

import ast
import os
import re
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
# Floors of the design, lowest first: a module of one floor imports nothing from a higher one.
FLOORS = (
    {"errors", "machine", "files", "progress", "noise", "codebook"},
    {"flow", "models"},
    {"trajectory", "losses"},
    {"sampling", "training", "metrics"},
    {"report", "api"},
    {"commands", "cli"},
)


def imports(path: Path, top: bool = False) -> set[str]:
    """Full names of what a file imports (top: outside functions only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top else list(ast.walk(tree))
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@cache
def tracked() -> tuple[Path, ...]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file())


def floor_of(part: str) -> int | None:
    """Number of a part's floor (`dd.models.var` is of the part `models`); None for those in between."""
    return next((number for number, floor in enumerate(FLOORS) if part in floor), None)


def parts() -> dict[str, list[Path]]:
    """The modules and packages directly below dd/, with their files."""
    found = {path.stem: [path] for path in (ROOT / "dd").glob("*.py") if path.stem != "__init__"}
    return found | {path.parent.name: sorted(path.parent.rglob("*.py")) for path in (ROOT / "dd").glob("*/__init__.py")}


def needs(part: str, top: bool) -> set[str]:
    """Other parts of dd that a part imports."""
    names = {name for path in parts()[part] for name in imports(path, top)}
    return {name.split(".")[1] for name in names if name.startswith("dd.")} & set(parts()) - {part}


def modules(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_library_imports_run_downward():
    wrong = []
    for part in parts():
        own = floor_of(part)
        for other in needs(part, top=False) if own is not None else ():
            floor = floor_of(other)
            if floor is not None and floor > own:
                wrong.append(f"dd.{part} -> dd.{other}")
    assert not wrong


def test_library_has_no_import_cycle():
    graph = {part: needs(part, top=True) for part in parts()}
    while leaves := {part for part, others in graph.items() if not others & set(graph)}:
        graph = {part: others for part, others in graph.items() if part not in leaves}
    assert not graph


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("dd", ("dvc", "prefect", "stages", "pipeline", "zoo")),
        ("stages", ("prefect", "pipeline", "zoo", "dvc")),
        ("zoo", ("prefect", "pipeline", "stages", "dvc")),
        ("pipeline", ("torch", "stages", "zoo")),
    ],
)
def test_folders_know_nothing_above_them(folder, forbidden):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(folder)
        for name in imports(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def test_commands_import_nothing_heavy():
    heavy = {"torch", "pandas", "matplotlib", "prefect", "dvc", "scipy", "pyarrow", "accelerate", "transformers"}
    wrong = [
        f"{path.name}: {name}"
        for path in (*modules("dd/cli"), ROOT / "dd" / "cli.py")
        for name in imports(path, top=True)
        if name.split(".")[0] in heavy
    ]
    assert not wrong


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; sys.argv = ['dd-cli', '--help']\n"
        "from dd.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print('HEAVY', sorted({'torch', 'pandas', 'prefect', 'dvc', 'matplotlib'} & set(sys.modules)))\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "HEAVY []"
    # Processor time, not the clock: other processes may share the cores.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.5


def test_no_path_of_a_machine_and_no_registry_address_in_tracked_files():
    home = re.escape(os.path.expanduser("~") + "/")
    pattern = re.compile(rf"{home}|{re.escape(str(ROOT))}/|/home/\w+/|https?://[\w.-]*(pypi|pythonhosted|npmjs)")
    wrong = []
    for path in tracked():
        if path.suffix in {".png", ".safetensors", ".npz", ".parquet", ".xz", ".svg"} or path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if pattern.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert not wrong


def test_no_file_that_git_should_not_hold():
    assert not [str(p.relative_to(ROOT)) for p in tracked() if p.stat().st_size > 20_000_000]
    shipped = [p for p in tracked() if p.is_relative_to(ROOT / "zoo")]
    assert not [str(p) for p in shipped if p.stat().st_size > 10_000_000]


def test_code_habits():
    banned = re.compile(r"set_trace\(|breakpoint\(\)|weights_only=False|\bTODO\b|\bFIXME\b")
    wrong = []
    for path in tracked():
        if path.suffix != ".py" or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        wrong += [f"{path.relative_to(ROOT)}: {found}" for found in banned.findall(text)]
        wrong += [f"{path.relative_to(ROOT)}:{line}: not strict" for line in lax_loads(ast.parse(text))]
    assert not wrong


def lax_loads(tree: ast.AST) -> list[int]:
    """Lines of load_state_dict(..., strict=False)."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load_state_dict"
        for keyword in node.keywords
        if keyword.arg == "strict" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False
    ]


@pytest.mark.parametrize("file", ["dvc.yaml", "zoo/dvc.yaml"])
def test_every_stage_lists_its_script_and_code_that_exists(file):
    stages = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        body = stage.get("do") or stage
        script = "/".join(body["cmd"].split()[2].split(".")) + ".py"
        assert script in body["deps"], name
        for dep in body["deps"]:
            if dep.startswith(("dd/", "stages/", "zoo/")) and "${" not in dep and dep.endswith(".py"):
                assert (ROOT / dep).exists(), f"{name}: {dep}"


def test_constraints_hold_names_and_versions_only():
    lines = [x for x in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    assert lines
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!-]+", line)]


def test_readme_counts_the_idea_files_about_right():
    found = re.findall(r"\| \[(dd/\w+\.py)\]\(\1\) \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert [path for path, _ in found] == [
        "dd/flow/map.py",
        "dd/trajectories/trajectory.py",
        "dd/distillation/losses.py",
        "dd/sampling/samplers.py",
    ]
    for path, said in found:
        assert abs(len((ROOT / path).read_text(encoding="utf-8").splitlines()) - int(said)) <= 10, path


def test_a_parameter_reruns_only_the_stages_that_read_it():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    readers: dict[str, set[str]] = {}
    for name, stage in stages.items():
        for parameter in (stage.get("do") or stage).get("params", []):
            readers.setdefault(parameter.removeprefix("experiments.${key}."), set()).add(name)
    assert readers == {
        "family": {"teacher"},
        "teacher": {"teacher", "trajectories", "evaluate"},
        "trajectories": {"trajectories"},
        "distill": {"distill"},
        "student": {"distill"},
        "evaluate": {"evaluate"},
    }


# Of dd, what only names, parses, logs, copies or opens: a stage's outcome does not follow from it.
PLUMBING = {"api", "config", "data", "errors", "files", "machine", "progress", "zoo", "weights", "students", "safeload"}


@pytest.mark.parametrize("name", ["trajectories", "distill", "evaluate", "report"])
def test_stages_list_the_modules_that_their_scripts_import(name):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    deps = [ROOT / dep for dep in (stage.get("do") or stage)["deps"] if "${" not in dep]
    wanted = {
        file
        for found in imports(ROOT / "stages" / f"{name}.py")
        if found.startswith("dd.") and found.split(".")[1] not in PLUMBING
        if (file := (ROOT / found.replace(".", "/")).with_suffix(".py")).is_file()
    } - {ROOT / "dd" / "models" / "registry.py"}
    missing = [str(file.relative_to(ROOT)) for file in wanted if not any(file.is_relative_to(dep) for dep in deps)]
    assert not missing


@pytest.mark.parametrize("name", ["trajectories", "distill", "evaluate"])
def test_stages_list_what_the_networks_are_made_of(name):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    networks = {
        found for family in ("llamagen", "var") for path in modules(f"dd/models/{family}") for found in imports(path)
    }
    files = {found.replace(".", "/") + ".py" for found in networks if re.fullmatch(r"dd\.models\.\w+", found)}
    needed = {"dd/models/cache.py", "dd/models/filtering.py"}  # of decoding, which training the student does without
    assert {f for f in files if (ROOT / f).is_file()} - (needed if name == "distill" else set()) <= set(
        stage["do"]["deps"]
    )


def test_experiments_do_not_wait_for_the_zoo():
    """No stage of dvc.yaml reads what a stage of zoo/dvc.yaml declares: `dvc repro` would train the zoo first."""
    made = [next(iter(out)) if isinstance(out, dict) else out for out in _declared("zoo/dvc.yaml", "outs")]
    read = _declared("dvc.yaml", "deps")
    assert made
    assert read
    for one in made:
        pattern = re.compile(re.escape(one).replace(re.escape("${key}"), "[^/]+"))
        for dep in read:
            assert not pattern.fullmatch(dep), f"{dep} is made by zoo/dvc.yaml"
            assert not one.startswith(f"{dep}/"), f"{one} of zoo/dvc.yaml lies in {dep}"


def _declared(file: str, kind: str) -> list:
    stages = yaml.safe_load((ROOT / file).read_text())["stages"].values()
    return [entry for stage in stages for entry in (stage.get("do", stage)).get(kind, [])]
