"""What a contender's process is told, and what it leaves behind: a JSON file each. Standard library only."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """One contender's run."""

    app: str
    bootstrap: str
    tls: dict[str, str]
    input: str
    output: str
    changelog: str
    state: str
    result: str  # file that the process writes when it has stopped
    instance: str
    commit_ms: int

    def write(self, path: Path) -> None:
        """Keep it for the process."""
        path.write_text(json.dumps(asdict(self)))

    def client(self) -> dict[str, Any]:
        """librdkafka settings."""
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "ssl",
            "ssl.ca.location": self.tls["ca"],
            "ssl.certificate.location": self.tls["cert"],
            "ssl.key.location": self.tls["key"],
        }

    def finish(self, commits_s: list[float], **more: Any) -> None:
        """Leave the duration of every commit in seconds, and what else the contender tells."""
        Path(self.result).write_text(json.dumps({"commits_s": commits_s, **more}))


def read_job() -> Job:
    """The job that the first argument names."""
    return Job(**json.loads(Path(sys.argv[1]).read_text()))
