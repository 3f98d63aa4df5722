"""A Prometheus endpoint on loopback. It needs the `metrics` extra."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

from broker.machine import Broker
from broker.status import report
from ssmprov.causes import not_listening
from ssmprov.configuration import LOOPBACK
from ssmprov.errors import Unsupported
from ssmprov.ops import StatusResult

INTERVAL_S = 1.0


class Metrics:
    """Serves the broker's last status. The loop updates it once a second."""

    def __init__(self, port: int) -> None:
        try:
            import prometheus_client
            import prometheus_client.core
        except ImportError:
            raise Unsupported("metrics_port needs an extra: install ssmprov[metrics]") from None
        self._status: StatusResult | None = None
        self._updated_at = 0.0
        self._families: Any = prometheus_client.core
        registry = prometheus_client.CollectorRegistry()
        registry.register(self)
        try:
            self._server, _ = prometheus_client.start_http_server(port, LOOPBACK, registry)
        except OSError as error:
            raise not_listening(error, f"{LOOPBACK}:{port}", "`metrics_port` of [broker]") from None
        self.port: int = self._server.server_port

    def update(self, broker: Broker) -> None:
        now = time.monotonic()
        if now - self._updated_at >= INTERVAL_S:
            self._updated_at = now
            self._status = report(broker.state, broker.rates, os.getpid())

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def collect(self) -> Iterator[Any]:
        """The metric families of one scrape. Their status is at most a second old."""
        core = self._families
        status = self._status
        if status is None:
            return
        broker = status.broker
        for name, text, counter in (
            ("accepted", "Requests accepted", broker.accepted),
            ("answered", "Requests answered", broker.answered),
            ("refused", "Requests refused", broker.refused),
        ):
            yield core.CounterMetricFamily(f"ssmprov_{name}", text, value=counter)
        for name, text, gauge in (
            ("queued", "Waiting requests", broker.queued),
            ("running", "Running requests", broker.running),
            ("clients", "Connected clients", broker.clients),
            ("requests_per_second", "Answers per second", broker.requests_per_s),
        ):
            yield core.GaugeMetricFamily(f"ssmprov_{name}", text, value=gauge)
        for name, text, field in (
            ("worker_running", "Turns on a worker", "running"),
            ("worker_slots", "Slots of a worker", "slots"),
            ("worker_hot_bytes", "Bytes of states in memory", "hot_bytes"),
            ("worker_tokens_per_second", "Tokens decoded per second", "tokens_per_s"),
            ("worker_prefill_per_second", "Prompt tokens read per second", "prefill_per_s"),
        ):
            family = core.GaugeMetricFamily(f"ssmprov_{name}", text, labels=["worker"])
            for worker in status.workers:
                family.add_metric([worker.name], getattr(worker, field))
            yield family
