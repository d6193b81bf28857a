"""What strangers send must not fill a disk."""

import pytest
import structlog

from epaxos.runtime import logs


def test_an_event_that_repeats_is_suppressed_and_counted(monkeypatch):
    now = 100.0
    monkeypatch.setattr(logs.time, "monotonic", lambda: now)
    limit = logs.RateLimit()
    for _ in range(logs.LINES_PER_SECOND):
        assert limit(None, "info", {"event": "noise"}) == {"event": "noise"}
    for _ in range(7):
        with pytest.raises(structlog.DropEvent):
            limit(None, "info", {"event": "noise"})
    assert limit(None, "info", {"event": "other"}) == {"event": "other"}
    now = 101.0
    assert limit(None, "info", {"event": "noise"}) == {"event": "noise", "suppressed": 7}
    assert limit(None, "info", {"event": "noise"}) == {"event": "noise"}
