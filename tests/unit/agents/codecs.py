"""A codec that knows every schema of the repository under made-up ids: the real bytes, without a registry."""

from __future__ import annotations

from topics.catalog import all_topics
from topics.codec import Codec
from topics.schemas import subjects


def offline_codec() -> Codec:
    """Encodes and decodes every record of the catalogue."""
    ids = {subject.name: number for number, subject in enumerate(subjects(all_topics()), start=1)}
    return Codec(ids, lambda _: None)
