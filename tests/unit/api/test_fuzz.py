"""The interface as its own document describes it, fuzzed: a few hundred cases here, 10,000 with `make fuzz`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.api.fuzzing import fuzz

EXAMPLES = 2  # per operation and phase


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("operators", "cases"), [(False, 200), (True, 100)], ids=["merchants", "operators"])
async def test_the_api_answers_as_its_document_says_whatever_is_sent(
    tmp_path: Path, operators: bool, cases: int
) -> None:
    status, printed, unreached = await fuzz(EXAMPLES, tmp_path, seed=17, operators=operators)
    assert status == 0, printed[-20_000:]
    generated = re.search(r"(\d+) generated", printed)
    assert generated is not None
    assert int(generated.group(1)) >= cases, printed[-2_000:]
    assert not [operation for operation in unreached if operation.startswith("GET")]
