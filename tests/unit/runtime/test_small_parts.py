"""Times, trace contexts and key files: their syntax, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ops.runtime.clock import from_rfc3339, to_rfc3339
from ops.runtime.problem import problem_response
from ops.runtime.secrets import SecretKeyError, new_key_file, read_secret_keys
from ops.runtime.tracing import new_traceparent, parse_traceparent


def test_times_go_out_and_come_back() -> None:
    assert to_rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    for instant in (0, 1, 1_795_371_900_123_456):
        assert from_rfc3339(to_rfc3339(instant)) == instant
    assert from_rfc3339("2026-11-22T01:00:00+01:00") == from_rfc3339("2026-11-22T00:00:00z")


@pytest.mark.parametrize(
    "text", ["", "now", "2026-11-22", "2026-11-22T00:00:00", "20261122T000000Z", "2026-13-22T00:00:00Z", "1"]
)
def test_other_texts_are_no_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"RFC 3339|must be"):
        from_rfc3339(text)


def test_a_trace_goes_on_with_a_span_of_its_own() -> None:
    trace = new_traceparent()
    assert parse_traceparent(str(trace)) == trace
    assert trace.child().trace_id == trace.trace_id
    assert trace.child().span_id != trace.span_id
    for malformed in (None, "", "00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", f"ff-{'1' * 32}-{'1' * 16}-01", "x" * 55):
        assert parse_traceparent(malformed) is None


def test_key_files_hold_the_current_key_first(tmp_path: Path) -> None:
    file = tmp_path / "pepper.key"
    file.write_bytes(new_key_file("k1", b"k" * 32))
    keys = read_secret_keys(file)
    assert (keys.current.id, keys.current.key) == ("k1", b"k" * 32)
    assert "kkkk" not in repr(keys.current)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"keys": []}',
        b'{"keys": [{"id": "k", "key": "c2hvcnQ="}]}',
        b'{"keys": [{"id": "k", "key": "!"}]}',
    ],
)
def test_a_broken_key_file_is_named_and_its_content_is_not(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "master.key"
    file.write_bytes(content)
    with pytest.raises(SecretKeyError, match=r"master\.key") as refused:
        read_secret_keys(file)
    assert "c2hvcnQ" not in str(refused.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_key_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretKeyError):
        read_secret_keys(tmp_path)


@pytest.mark.parametrize(
    ("code", "title"),
    [("invalid_json", "Invalid JSON"), ("uri_too_long", "URI too long"), ("not_found", "Not found")],
)
def test_a_problem_has_a_title_that_reads_as_english(code: str, title: str) -> None:
    body = problem_response(400, code, "detail", "req_1").body
    assert isinstance(body, bytes)
    assert json.loads(body)["title"] == title
