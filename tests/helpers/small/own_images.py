"""Plans of one's own images."""

from zoo.own import plan


def texts(root):
    return {name: (root / name).read_text() for name in ("params.yaml", "zoo/params.yaml", "zoo/index.yaml")}


def make(root, **options):
    given = {"test_folder": None, "size": 32, "minutes": 35.0, "licence": "mine", "probe": False} | options
    return plan.make_plan(options.pop("name", "pets"), root / "pictures", **given)[0]
