"""Digest of a data set's files -> zoo/data/folders/<name>.txt: DVC packs again when a name or a content changes."""

from __future__ import annotations

from dd.datasets.folder import write_digest
from zoo.settings import HERE, load_settings, pick, run_zoo


def main(name: str) -> str:
    """Write the digest. Returns nothing worth logging."""
    settings = pick(load_settings().datasets, "data set", name)
    if settings.source == "folder":
        write_digest(settings.path(), settings.test_path(), HERE / "data" / "folders" / f"{name}.txt")
    return ""


if __name__ == "__main__":
    run_zoo(main, __doc__)
