"""Networks by the name of their family, and settings that are refused."""

import subprocess
import sys

import pytest
import torch

from dd.errors import DDError
from dd.models.base import Filters
from dd.models.registry import build_tokenizer
from tests.helpers.paths import ROOT
from tests.helpers.small.models import B, V, make_case, make_teacher


def test_bad_settings_are_explained():
    teacher, labels = make_case("var")
    with pytest.raises(DDError, match=r"expected temperature 1 and guidance_tokens -1, got 0.5 and -1"):
        teacher.start(labels, Filters(temperature=0.5))
    with pytest.raises(DDError, match=f"expected at most {V} .*got {V + 1}"):
        teacher.start(labels, Filters(top_k=V + 1))
    with pytest.raises(DDError, match=r"prefix: expected whole scales, \(0, 1, 5, 14, 30\) tokens, got 2"):
        teacher.start(labels, Filters(), torch.zeros(B, 2, dtype=torch.int64))
    with pytest.raises(DDError, match=r"classes: expected indices 0\.\.6 \(7 for none\), got 0\.\.9"):
        teacher.start(torch.tensor([0, 9]), Filters())
    with pytest.raises(DDError, match="family: expected one of janus, llamagen, var, got 'mar'"):
        build_tokenizer("mar", {})
    with pytest.raises(DDError, match=r"VQConfig: expected the settings codebook_size, .*depth"):
        build_tokenizer("llamagen", {"depth": 3})
    with pytest.raises(DDError, match="tokenizer ch: expected a multiple of 32"):
        build_tokenizer("llamagen", {"ch": 48})
    with pytest.raises(DDError, match="block_size: expected a square number of tokens, got 24"):
        make_teacher("llamagen", block_size=24)
    with pytest.raises(DDError, match=f"expected a transformer of {V} codes and 25 tokens .* got {V} codes and 36"):
        make_teacher("llamagen", block_size=36)
    with pytest.raises(DDError, match=r"on scales \(1, 2, 3, 4, 5\).* got 40, 6, \(1, 5\)"):
        make_teacher("var", patch_nums=(1, 5))
    full = torch.zeros(B, 25, dtype=torch.int64)
    state = make_teacher("llamagen").start(labels, Filters(), full[:, :24])
    teacher = make_teacher("llamagen")
    teacher.advance(state, full[:, :1])
    with pytest.raises(DDError, match="all 25 tokens are drawn"):
        teacher.log_probs(state)


@pytest.mark.parametrize("family", ["var", "llamagen", "janus"])
def test_models_load_without_the_compiler(family):
    program = f"import sys, dd.models.{family}.family; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0
