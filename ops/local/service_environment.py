"""The settings of each Python service of the local stack, as the environment variables it reads them from."""

from __future__ import annotations

from ops.local import cassandra, kafka
from ops.local.demo_merchants import seeded_merchants
from ops.local.layout import Home, Ports, StackConfig
from ops.runtime.settings import Settings, settings_environment


def service_settings(home: Home, config: StackConfig, ports: Ports, name: str, instance: int) -> Settings:
    is_api, is_simulator = name == "payment-api", name == "provider-simulator"
    return Settings(
        service=name,
        instance=instance,
        tls_ca=home.ca,
        tls_cert=home.cert(name),
        tls_key=home.key(name),
        kafka_bootstrap=kafka.bootstrap(config, ports),
        cassandra_contact_points=cassandra.contact_points(config),
        cassandra_port=ports.cassandra,
        cassandra_datacenter=cassandra.DATACENTER,
        schema_registry_url=f"https://127.0.0.1:{ports.schema_registry}",
        state_dir=home.state(name, instance),
        secrets_dir=home.secrets,
        provider_url=f"https://127.0.0.1:{ports.provider}",
        batch_processor_url=f"https://127.0.0.1:{ports.admin('batch-processor', 0)}",
        admin_port=ports.admin(name, instance),
        api_port=ports.api(instance) if is_api else 0,
        api_loopback_port=ports.api_loopback(instance) if is_api else 0,
        internal_port=ports.internal(instance) if is_api else 0,
        provider_port=ports.provider if is_simulator else 0,
        vault_port=ports.vault if is_simulator else 0,
        failpoints_file=home.failpoints(name, instance),
        intake_merchants=seeded_merchants(home) if name == "payment-worker" else [],
    )


def service_environment(home: Home, config: StackConfig, ports: Ports, name: str, instance: int) -> dict[str, str]:
    return settings_environment(service_settings(home, config, ports, name, instance))
