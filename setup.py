"""Builds the wheel: the package dd, with the small networks of zoo/ inside as dd/shipped/.

Everything else about the package is in pyproject.toml. A checkout reads zoo/ itself; an installed wheel has no
checkout and draws with the copy (dd.config.project_root).
"""

import shutil
from pathlib import Path

import yaml
from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
KINDS = ("tokenizer", "teacher", "student")  # not what only trains and measures


class BuildWithNetworks(build_py):
    """Copies params.yaml, the index of the zoo and the networks that draw."""

    def run(self) -> None:
        """Build dd, then add the networks, but not to a checkout (an editable install)."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "dd" / "shipped"
        index = yaml.safe_load((HERE / "zoo" / "index.yaml").read_text(encoding="utf-8"))
        kept = {name: entry for name, entry in index.items() if entry["kind"] in KINDS}
        for entry in kept.values():
            file = target / "zoo" / entry["file"]["path"]
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(HERE / "zoo" / entry["file"]["path"], file)
        (target / "zoo" / "index.yaml").write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
        shutil.copyfile(HERE / "params.yaml", target / "params.yaml")


setup(cmdclass={"build_py": BuildWithNetworks})
