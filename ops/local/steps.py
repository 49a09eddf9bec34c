"""The one-shot steps of starting a stack, each its own short process: `python -m ops.local.steps STEP HOME`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ops.local.layout import Home, Ports, StackConfig

Step = Callable[[Home, StackConfig, Ports], None]


def cassandra_first_boot(home: Home, config: StackConfig, ports: Ports) -> None:
    from ops.local.cassandra_access import add_administrator

    add_administrator(home, config, ports)


def cassandra_roles(home: Home, config: StackConfig, ports: Ports) -> None:
    from ops.local.cassandra_access import apply_roles

    apply_roles(home, config, ports)


def registry_access(home: Home, config: StackConfig, ports: Ports) -> None:
    from ops.local.registry_access import grant_registry

    grant_registry(home, config, ports)


STEPS: dict[str, Step] = {
    "cassandra-first-boot": cassandra_first_boot,
    "cassandra-roles": cassandra_roles,
    "registry-access": registry_access,
}


def main() -> None:
    name, home = sys.argv[1], Home(Path(sys.argv[2]))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    config = home.read_config()
    assert config is not None, "`up` writes the configuration first"
    STEPS[name](home, config, Ports(config.port_base))


if __name__ == "__main__":
    main()
