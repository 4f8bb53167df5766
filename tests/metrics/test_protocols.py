"""Protocols: what may be compared with what."""

import pytest

from dd.errors import DDError
from dd.metrics.protocols import protocol


def test_metric_names_never_mix():
    names = {protocol(p).metric_name(n) for p in ("adm", "dd", "fd-fashion") for n in (50_000, 10_000, 2_500)}
    assert names == {
        "FID",
        "FD-adm, N=10k",
        "FD-adm, N=2500",
        "FID-dd",
        "FID-dd, N=10k",
        "FID-dd, N=2500",
        "FD-fashion, N=50k",
        "FD-fashion",
        "FD-fashion, N=2500",
    }
    with pytest.raises(DDError, match=r"no protocol 'fid': expected adm, dd, clean or fd-<dataset>"):
        protocol("fid")
