"""The page of this folder's model: python app.py here, or the app of a Space."""

from pathlib import Path

import dd
from dd.publish.app import launch

if __name__ == "__main__":
    launch(dd.load(str(Path(__file__).resolve().parent)))
