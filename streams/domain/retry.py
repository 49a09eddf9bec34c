"""When to try again: one pure function of the policy, what is retried, and how often it was tried."""

from __future__ import annotations

from zlib import crc32

from streams.domain.envelope import Value


class RetryPolicy(Value, frozen=True, kw_only=True, gc=False):
    """Exponential back-off with jitter. The defaults are the local stack's."""

    attempts_max: int = 5
    """Sends of one operation before it is given up (with 5 s time-outs: decided within the contract's 45 s)."""
    first_delay_ms: int = 250
    delay_ms_max: int = 30_000
    """Cap of the back-off: what is never given up is asked about this often, so 60 s after an outage it is decided."""
    jitter: float = 0.2
    """The delay is spread by this share to both sides, so that what failed together does not return together."""
    answer_ms_max: int = 30_000
    """How long to wait for any answer to a request before it is staged again, twice as long each time."""
    answer_ms_cap: int = 300_000


def delay_ms(policy: RetryPolicy, subject_id: str, attempt: int, retry_after_ms: int | None = None) -> int:
    """Milliseconds from the failure of `attempt` (1 is the first) to the next; never less than the provider asked for.

    The jitter is derived from `subject_id` and `attempt`: a replay waits exactly as long.
    """
    exponential = min(policy.first_delay_ms << min(attempt - 1, 32), policy.delay_ms_max)
    share = crc32(f"{subject_id}/{attempt}".encode()) / 0xFFFFFFFF  # 0 to 1
    jittered = round(exponential * (1 - policy.jitter + 2 * policy.jitter * share))
    return max(jittered, retry_after_ms or 0)


def answer_wait_ms(policy: RetryPolicy, unanswered: int) -> int:
    """Milliseconds to wait for an answer when `unanswered` requests have brought none."""
    return min(policy.answer_ms_max << min(unanswered, 32), policy.answer_ms_cap)
