"""dd-cli reference build: a reference of one's own images."""

from types import SimpleNamespace


def test_the_folders_name_is_the_source_unless_it_is_given(cli, monkeypatch, tmp_path):
    seen = []

    def build(*given):
        seen.append(given)
        return SimpleNamespace(gaussian=SimpleNamespace(count=90), classes=3, sha256="ab" * 32)

    monkeypatch.setattr("dd.metrics.references.reference_of_folder", build)
    out, images = tmp_path / "mine.safetensors", tmp_path / "cats"
    done = cli("reference", "build", "adm", str(images), "--out", str(out))
    assert done.output == f"wrote {out}: 90 images, 3 classes, SHA-256 abababababab...\n"
    assert seen[0] == (out, "adm", images, "cats", None, "auto")
    cli("reference", "build", "adm", str(images), "-o", str(out), "--source", "the web", "--device", "cpu")
    assert seen[1] == (out, "adm", images, "the web", None, "cpu")
