"""Asks Prometheus what the dashboard asks, until every query has an answer; for docker/verify.sh: queries.py URL DASHBOARD."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

_MOST_S = 180.0
_ONLY_ON_A_GPU = "rankone_gpu_memory_bytes"


def main() -> None:
    """Fails where a query has no answer, a target is down or a rule is broken."""
    url, dashboard = sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    with httpx.Client(base_url=url, trust_env=False) as http:

        def ask(path: str, **parameters: str) -> Any:
            answer = http.get(path, params=parameters).json()
            assert answer["status"] == "success", answer
            return answer["data"]

        def empty() -> list[str]:
            asked = {query: query.replace("$__rate_interval", "1m") for query in queries}
            return [query for query, sent in asked.items() if not ask("/api/v1/query", query=sent)["result"]]

        def rules() -> list[dict[str, Any]]:
            return [rule for group in ask("/api/v1/rules")["groups"] for rule in group["rules"]]

        deadline = time.monotonic() + _MOST_S
        missing, judged = empty(), rules()
        while (any(map(_is_due, missing)) or any(map(_waits, judged))) and time.monotonic() < deadline:
            time.sleep(3)
            missing, judged = empty(), rules()
        down = [target["labels"] for target in ask("/api/v1/targets")["activeTargets"] if target["health"] != "up"]
    unanswered = [query for query in missing if _is_due(query)]
    print(f"  {len(queries) - len(missing)} of {len(queries)} queries have values; without: {missing}")
    print(f"  {len(judged)} rules: {', '.join(rule['name'] + ' ' + rule['state'] for rule in judged)}")
    assert not down, down
    assert not unanswered, unanswered
    assert judged
    broken = [rule for rule in judged if rule["health"] != "ok"]
    assert not broken, broken


def _is_due(query: str) -> bool:
    """Without a GPU, or a refused request, there is no such series; all else must have values."""
    return query != _ONLY_ON_A_GPU and "refusals" not in query


def _waits(rule: dict[str, Any]) -> bool:
    """A rule that was not evaluated yet; the first time is up to a minute after the start."""
    return bool(rule["health"] == "unknown")


if __name__ == "__main__":
    main()
