"""The emulated incoming links of a replica: what they are set to, and how people change them."""

from typing import Any

import msgspec
import structlog

from epaxos.core.errors import ConfigError
from epaxos.core.types import replica_name
from epaxos.runtime.config import ServeConfig, find_member, is_loopback
from epaxos.runtime.delay import DelayLines

log = structlog.get_logger()


class LinkChange(msgspec.Struct, forbid_unknown_fields=True, rename={"source": "from"}):
    """Body of PUT /v1/links: new settings for one incoming link, or for all."""

    source: str = "*"
    """Region or letter of the sender; `*` for all."""
    delay_ms: float | None = None
    """One way, without jitter."""
    loss: float | None = None
    """Probability that a message is lost."""
    cut: bool | None = None
    """Whether everything is lost."""


class LinkSettings:
    """The settings of all incoming links, for `/v1/links`."""

    def __init__(self, config: ServeConfig, lines: DelayLines | None) -> None:
        self._config = config
        changeable = config.cluster.admin and is_loopback(config.member.host)
        self._lines = lines if changeable else None

    def documents(self) -> list[dict[str, Any]] | None:
        """The links as they are; None where they cannot be changed."""
        return link_documents(self._config, self._lines)

    def change(self, change: LinkChange) -> None:
        """New settings. Raises ConfigError."""
        lines = self._lines
        assert lines is not None, "links that cannot be changed are not changed"
        if change.delay_ms is not None and not 0 <= change.delay_ms <= 60_000:
            raise ConfigError(f"delay_ms = {change.delay_ms} must be between 0 and 60000")
        if change.loss is not None and not 0 <= change.loss <= 1:
            raise ConfigError(f"loss = {change.loss} must be between 0 and 1")
        if change.source == "*":
            sources = list(lines.lines)
        else:
            sources = [find_member(self._config.cluster, change.source)]
            if sources[0] not in lines.lines:
                raise ConfigError(f"from = {change.source!r} is this replica; name another")
        for source in sources:
            line = lines.lines[source]
            lines.change(
                source,
                line.delay_us if change.delay_ms is None else round(change.delay_ms * 1000),
                line.loss if change.loss is None else change.loss,
                line.cut if change.cut is None else change.cut,
            )
        log.info(
            "links changed",
            source=change.source,
            delay_ms=change.delay_ms,
            loss=change.loss,
            cut=change.cut,
        )


def link_documents(config: ServeConfig, lines: DelayLines | None) -> list[dict[str, Any]] | None:
    """Settings of the emulated incoming links; None where there are none."""
    if lines is None:
        return None
    return [
        {
            "from": replica_name(source),
            "to": replica_name(config.me),
            "region": config.cluster.replicas[source].region,
            "delay_ms": line.delay_us / 1000,
            "loss": line.loss,
            "cut": line.cut,
            "dropped": line.dropped,
        }
        for source, line in lines.lines.items()
    ]
