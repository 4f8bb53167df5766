"""The page of `dd-cli app` in an exported folder, which makes it a Space of the hub too: app.py, requirements.txt."""

from __future__ import annotations

from pathlib import Path

from dd import __version__
from dd.system.files import write_text

GRADIO = "6.31.0"  # as in constraints.txt
APP, REQUIREMENTS = "app.py", "requirements.txt"
WHEEL = f"dd-{__version__}-py3-none-any.whl"
PAGE = '''"""The page of this folder's model: python app.py here, or the app of a Space."""

from pathlib import Path

import dd
from dd.publish.app import launch

if __name__ == "__main__":
    launch(dd.load(str(Path(__file__).resolve().parent)))
'''


def metadata() -> dict[str, str]:
    """What a Space reads in the head of README.md; a repository of models leaves it alone."""
    return {"sdk": "gradio", "sdk_version": GRADIO, "app_file": APP}


def write_page(folder: Path, text: bool) -> None:
    """Write app.py and requirements.txt. text: the model draws from prompts, so it needs the text encoder."""
    extras = "app,text" if text else "app"
    note = "# The wheel of dd is made by `pip wheel --no-deps --wheel-dir THIS_FOLDER .` in its repository."
    write_text(folder / APP, PAGE)
    write_text(folder / REQUIREMENTS, f"{note}\n./{WHEEL}[{extras}]\ngradio=={GRADIO}\n")
