"""The one-shot steps of starting a stack, each its own short process: `python -m ops.local.steps STEP HOME`.

Every step may be repeated and may be killed at any point: it then simply runs again.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ops.local.layout import Home, Ports, StackConfig

Step = Callable[[Home, StackConfig, Ports], None]


def cassandra_first_boot(home: Home, config: StackConfig, ports: Ports) -> None:
    """Give a new cluster its administrator."""
    from ops.local.cassandra_access import add_administrator

    add_administrator(home, config, ports)


def cassandra_administrator(home: Home, config: StackConfig, ports: Ports) -> None:
    """The same where containers run the node."""
    from ops.local.cassandra_access import add_administrator_elsewhere

    asyncio.run(add_administrator_elsewhere(home, config, ports))


def prepare(home: Home, config: StackConfig, ports: Ports) -> None:
    """Everything that servers and services read, for containers (`payments up` does it by itself)."""
    from ops.local.start import prepare

    prepare(home, config)


def records(home: Home, config: StackConfig, ports: Ports) -> None:
    """Roles, keyspace, migrations and grants of the record tables."""
    from ops.local.cassandra_access import apply_roles
    from ops.local.record_tables import migrate_and_grant

    apply_roles(home, config, ports)
    asyncio.run(migrate_and_grant(home, config, ports))


def registry_access(home: Home, config: StackConfig, ports: Ports) -> None:
    """What the registry may do in Kafka."""
    from ops.local.registry_access import grant_registry

    grant_registry(home, config, ports)


def topics(home: Home, config: StackConfig, ports: Ports) -> None:
    """Topics and grants of the catalogue."""
    from ops.local.registry_access import kafka_administrator
    from topics.apply import apply_topics

    apply_topics(kafka_administrator(home, config, ports), replication_factor=config.nodes)


def schemas(home: Home, config: StackConfig, ports: Ports) -> None:
    """Every subject of the catalogue in the registry."""
    from ops.local.probes import client_context
    from topics.catalog import all_topics
    from topics.registry import Registry, register_schemas
    from topics.schemas import subjects

    registry = Registry(f"https://127.0.0.1:{ports.schema_registry}", client_context(home, "operator"))
    try:
        register_schemas(registry, subjects(all_topics()))
    finally:
        registry.close()


def merchants(home: Home, config: StackConfig, ports: Ports) -> None:
    """Two demo merchants with keys, once per home."""
    from ops.local.demo_merchants import seed

    seed(home, ports)


STEPS: dict[str, Step] = {
    "cassandra-first-boot": cassandra_first_boot,
    "cassandra-administrator": cassandra_administrator,
    "prepare": prepare,
    "records": records,
    "registry-access": registry_access,
    "topics": topics,
    "schemas": schemas,
    "merchants": merchants,
}


def main() -> None:
    name, home = sys.argv[1], Home(Path(sys.argv[2]))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("cassandra.protocol").setLevel(logging.ERROR)  # it warns of each grant that is there already
    config = home.read_config() or StackConfig()
    STEPS[name](home, config, Ports(config.port_base))


if __name__ == "__main__":
    main()
