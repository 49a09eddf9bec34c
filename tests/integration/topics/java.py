"""Kafka's own console tools, run from the jars of the local stack."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ops.local.jars import class_path
from ops.local.java import java_command
from ops.local.layout import cache_directory
from tests.local_servers import Servers

PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
TIMEOUT_S = 60


def run_tool(servers: Servers, identity: str, tool: str, directory: Path, *options: str, stdin: bytes = b"") -> bytes:
    """The tool's output, with an identity's certificate."""
    config = directory / f"{identity}.properties"
    lines = {
        "security.protocol": "SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": servers.home.bundle(identity),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": servers.home.ca,
    }
    config.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    arguments = ("--bootstrap-server", servers.bootstrap, "--command-config", str(config), *options)
    command = java_command(tool, class_path(cache_directory(), "kafka"), 64, arguments=arguments)
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout
