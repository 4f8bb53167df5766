"""dd-cli experiment: what there is, and adding a preset."""


def test_experiment_commands(project, cli):
    listed = cli("experiment", "list").output
    assert "mine" in listed
    assert "var-d24-released" in listed
    result = cli("experiment", "add", "llamagen-l", "--as", "big")
    assert "dvc repro evaluate@big" in result.output
    assert "big" in cli("experiment", "list").output
