"""The house rules of the design: directions of imports, a quick command line, nothing of one machine in the files."""

import ast
import os
import re
import resource
import subprocess
import sys
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from dd.system import code
from tests.helpers.paths import ROOT

# Floors of dd/, lowest first: a file imports nothing from a higher floor. The longest beginning of its path decides.
FLOORS = (
    ("dd/errors.py",),
    ("dd/system/",),
    ("dd/config.py", "dd/sections.py"),
    ("dd/checkpoints/",),  # reading: the index, the hub, files of tensors
    ("dd/models/", "dd/flow/"),
    (
        "dd/checkpoints/teachers.py",
        "dd/checkpoints/imports.py",
        "dd/checkpoints/students.py",
        "dd/checkpoints/exported.py",
    ),
    ("dd/datasets/", "dd/text/"),
    ("dd/trajectories/",),
    ("dd/metrics/", "dd/sampling/"),
    ("dd/evaluation/",),
    ("dd/distillation/",),
    ("dd/presets/", "dd/report/", "dd/api.py"),
    ("dd/bench/", "dd/publish/"),
    ("dd/cli/",),
)
# Modules without a test of their own name, and the test that runs them: entries of a few lines (stages), trainings that
# only mean something together, programs that a whole run starts, code that needs a GPU, and parts of one thing that is
# tested as a whole (the map by its two schedules, the page, the files of samples and their commands).
TESTED_BY = {
    "dd/cli/measure/check_npz.py": "tests/metrics/test_sample_files.py",
    "dd/cli/measure/compare.py": "tests/evaluation/test_paired.py",
    "dd/cli/measure/evaluate.py": "tests/evaluation/test_side_by_side.py",
    "dd/flow/fixed.py": "tests/flow/test_map.py",
    "dd/flow/kernel_triton.py": "tests/flow/test_kernel.py",
    "dd/metrics/jpeg.py": "tests/metrics/test_sample_files.py",
    "dd/models/compiled.py": "tests/models/test_cache.py",
    "dd/publish/drawing.py": "tests/publish/test_app.py",
    "dd/publish/space.py": "tests/publish/test_app.py",
    "stages/code.py": "tests/system/test_code.py",
    "stages/distill.py": "tests/distillation/test_stage.py",
    "stages/evaluate.py": "tests/evaluation/test_resume.py",
    "stages/trajectories.py": "tests/trajectories/test_stage.py",
    "pipeline/bench/overhead.py": "tests/pipeline/bench/test_project.py",
    "pipeline/servers/serve.py": "tests/pipeline/servers/test_ui.py",
    "zoo/extractor.py": "tests/zoo/test_training.py",
    "zoo/folder.py": "tests/zoo/test_dvc.py",
    "zoo/reference.py": "tests/zoo/test_training.py",
    "zoo/teacher.py": "tests/zoo/test_training.py",
    "zoo/tokenizer.py": "tests/zoo/test_training.py",
    "zoo/own/speed.py": "tests/zoo/own/test_plan.py",
}
UNCOUNTED = {"__init__.py", "conftest.py"}
LARGEST_FILE, LARGEST_FUNCTION, LARGEST_STAGE, LARGEST_PACKAGE, LARGEST_ROOT = 400, 60, 60, 14, 6


@cache
def tracked() -> tuple[Path, ...]:
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(ROOT / name for name in out.split("\0") if name and (ROOT / name).is_file())


def sources(*folders: str) -> list[Path]:
    """All tracked Python files, or those below some folders."""
    found = [path for path in tracked() if path.suffix == ".py"]
    return [p for p in found if not folders or name_of(p).startswith(tuple(f"{folder}/" for folder in folders))]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported_names(path: Path, top: bool = False) -> set[str]:
    """Full names of what a file imports (top: outside functions only)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in (tree.body if top else ast.walk(tree)) for name in code.modules(node)}


def floor_of(path: Path) -> int:
    """Number of a file's floor."""
    beginnings = {
        part: number for number, parts in enumerate(FLOORS) for part in parts if name_of(path).startswith(part)
    }
    assert beginnings, f"{name_of(path)} is on no floor: name its package in FLOORS"
    return beginnings[max(beginnings, key=len)]


def test_library_imports_run_downward():
    wrong = [
        f"{name_of(path)} -> {name_of(other)}"
        for path in sources("dd")
        if path != ROOT / "dd" / "__init__.py"  # it offers the whole library
        for other in code.imports(path, ROOT)
        if name_of(other).startswith("dd/") and other.name != "__init__.py" and floor_of(other) > floor_of(path)
    ]
    assert not wrong


def test_no_two_files_import_each_other():
    """No circle between any files, imports inside functions and for type checkers included."""
    files = {path: code.imports(path, ROOT) - {ROOT / "dd" / "__init__.py"} for path in sources()}
    graph = {path: {other for other in others if other in files} - {path} for path, others in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(name_of(path) for path in error.args[1]))


def test_files_functions_and_packages_are_small():
    wrong = []
    for path in sources():
        text = path.read_text(encoding="utf-8")
        if (lines := text.count("\n")) > LARGEST_FILE:
            wrong.append(f"{name_of(path)}: {lines} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > LARGEST_FUNCTION:
                    wrong.append(f"{name_of(path)}:{node.lineno}: {node.name} has {lines} lines")
    for path in sources("stages"):
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LARGEST_STAGE:
            wrong.append(f"{name_of(path)}: a stage of {lines} lines")
    for folder, count in Counter(path.parent for path in sources() if path.name not in UNCOUNTED).items():
        most = LARGEST_ROOT if folder == ROOT / "dd" else LARGEST_PACKAGE
        if count > most:
            wrong.append(f"{name_of(folder)}: {count} modules")
    assert not wrong


def test_families_are_named_in_models_only():
    """Elsewhere a family is a string that somebody else chose."""
    families = {folder.parent.name for folder in (ROOT / "dd" / "models").glob("*/family.py")}
    assert len(families) >= 2
    wrong = [
        f"{name_of(path)}:{node.lineno}: {node.value}"
        for path in sources("dd", "stages", "pipeline", "zoo")
        if not name_of(path).startswith(("dd/models/", "dd/presets/"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in families
    ]
    assert not wrong


def test_every_module_has_a_test_of_its_name():
    """tests/<package>/test_<module>.py; for a family's module also the test of that name that runs all families."""
    tests = {name_of(path) for path in sources("tests")}
    assert set(TESTED_BY) <= {name_of(path) for path in sources()}, "TESTED_BY names a module that is not there"
    missing = []
    for path in sources("dd", "pipeline", "stages", "zoo"):
        name = name_of(path)
        if path.name == "__init__.py":
            continue
        *folders, stem = name.removeprefix("dd/").removesuffix(".py").split("/")
        wanted = ["/".join(["tests", *folders, f"test_{stem.strip('_')}.py"])]
        if name.startswith("dd/models/") and len(folders) == 2:
            wanted.append(f"tests/models/test_{stem}.py")
        if name in TESTED_BY:
            assert not tests.intersection(wanted), f"{name} has a test of its name: take it off TESTED_BY"
            test = ROOT / TESTED_BY[name]
            assert test.is_file(), f"TESTED_BY: {test} is not there"
            mentioned = test.read_text(encoding="utf-8")
            parts = name.removesuffix(".py").removesuffix("/__main__").split("/")
            assert parts[-1].removesuffix("_triton") in mentioned.replace("-", "_"), name
        elif not tests.intersection(wanted):
            missing.append(f"{name}: expected {wanted[0]}")
    assert not missing


def test_tests_import_no_other_test():
    wrong = [
        f"{name_of(path)} imports {name}"
        for path in sources("tests")
        for name in imported_names(path)
        if name.startswith("tests.") and any(part.startswith("test_") for part in name.split("."))
    ]
    assert not wrong


def modules(folder: str) -> list[Path]:
    return sources(folder)


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
        for name in imported_names(path)
        if name.split(".")[0] in forbidden
    ]
    assert not wrong


def test_commands_import_nothing_heavy():
    heavy = {"torch", "pandas", "matplotlib", "prefect", "dvc", "scipy", "pyarrow", "accelerate", "transformers"}
    wrong = [
        f"{path.name}: {name}"
        for path in modules("dd/cli")
        for name in imported_names(path, top=True)
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


@pytest.mark.parametrize("file", ["dvc.yaml", "zoo/dvc.yaml", "zoo/shipped/dvc.yaml"])
def test_every_stage_runs_a_script_that_exists_and_lists_code_that_exists(file):
    stages = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))["stages"]
    for name, stage in stages.items():
        body = stage.get("do") or stage
        assert (ROOT / ("/".join(body["cmd"].split()[2].split(".")) + ".py")).is_file(), name
        for dep in body.get("deps", ()):
            if dep.startswith(("dd/", "stages/", "zoo/")) and "${" not in dep and dep.endswith(".py"):
                assert (ROOT / dep).exists(), f"{name}: {dep}"


def test_constraints_hold_names_and_versions_only():
    lines = [x for x in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not x.startswith("#")]
    assert lines
    assert not [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._!-]+", line)]


def test_readme_counts_the_idea_files_about_right():
    found = re.findall(r"\| \[(dd/[\w/]+\.py)\]\(\1\) \| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"))
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


@pytest.mark.parametrize("name", ["teacher", "trajectories", "distill", "evaluate"])
def test_stages_depend_on_the_digest_of_their_code(name):
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    digest = f"data/${{key}}/code/{name}.json"
    assert digest in stages[name]["do"]["deps"]
    assert digest in [next(iter(out)) for out in stages["code"]["do"]["outs"]]
    assert stages["code"]["do"]["always_changed"] is True


def test_experiments_do_not_wait_for_the_zoo():
    """No stage of dvc.yaml reads what a stage of the zoo's dvc.yaml declares: `dvc repro` would train the zoo first."""
    outs = _declared("zoo/dvc.yaml", "outs") + _declared("zoo/shipped/dvc.yaml", "outs")
    made = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
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
