"""dd-cli bench in this process."""

import json

from typer.testing import CliRunner

from dd.cli.main import app


def bench(*arguments: str) -> list[dict]:
    result = CliRunner().invoke(app, ["bench", *arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)
