#!/usr/bin/env python3
"""Holds the metrics that alerts and dashboard name against those of a service that runs.

usage: metrics.py BASE_URL

It publishes an event and defines a subscription, so let it have a service whose data
nobody needs. Each name has to be one that /metrics has, with the labels that are asked for,
and each metric of /metrics has to be on the dashboard or in an alert. The queries of the
dashboard are written to standard output, as a file of rules for promtool.
"""

import json
import pathlib
import re
import sys
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
TIMEOUT_SECONDS = 10
# What Prometheus adds to every series, and to those of histograms.
LABELS_OF_PROMETHEUS = {"job", "instance", "le"}
# Only topics after the first thousand have it.
LABELS_NOT_SEEN = {"otel_metric_overflow"}
# What Grafana puts in its place.
GRAFANA_TIMES = re.compile(r"\$__(rate_interval|range)\b")


def ask(url, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        # The event that is none: it is counted.
        return error.read().decode()


def exported(url):
    """The names of all series, each with the labels that were seen; and the families."""
    ask(url + "/publish", {"topic": "t", "event_id": "1", "source": "s"})
    ask(url + "/publish", {"topic": ""})
    ask(url + "/subscriptions/s", {"topics": ["t"]}, "PUT")
    series, families = {}, set()
    for line in ask(url + "/metrics").splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            families.add(name)
            for suffix in ("_bucket", "_sum", "_count") if kind == "histogram" else ("",):
                series[name + suffix] = set()
        elif not line.startswith("#"):
            name, labels = re.match(r"(\w+)(\{.*\})?", line).groups()
            series[name].update(re.findall(r'(\w+)="', labels or ""))
    return series, families


def queries():
    """All queries, each with where it stands."""
    dashboard = json.loads((HERE / "grafana/sekali.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['id']} ({panel['title']})", target["expr"], "dashboard"
    # No reader of YAML is in the standard library: what stands in text is no query.
    for rule in re.split(r"(?m)^ +- alert: ", (HERE / "prometheus/alerts.yaml").read_text())[1:]:
        expression = re.search(r"(?ms)^ +expr: (.*?)^ +(?:for|labels): ?", rule).group(1)
        yield f"alert {rule.split()[0]}", expression, "alert"


def main():
    url = sys.argv[1].rstrip("/")
    series, families = exported(url)
    wrong, named, rules = [], set(), []
    for where, query, of in queries():
        if of == "dashboard":
            query = GRAFANA_TIMES.sub("5m", query)
            rules.append({"record": f"dashboard:{len(rules)}", "expr": query})
        for name, matchers in re.findall(r"\b(sekali_\w+)(?:\{([^}]*)\})?", query):
            named.add(name)
            if name not in series:
                wrong.append(f"{where}: there is no {name}")
                continue
            labels = set(re.findall(r"(\w+)\s*[=!]", matchers))
            for label in labels - series[name] - LABELS_OF_PROMETHEUS - LABELS_NOT_SEEN:
                wrong.append(f"{where}: {name} has no label {label}")
    for family in sorted(families):
        if not any(name in named for name in (family, family + "_bucket", family + "_count")):
            wrong.append(f"neither dashboard nor alerts have {family}")
    json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, sys.stdout)
    for one in wrong:
        print(one, file=sys.stderr)
    print(f"{len(named)} names of series, {len(families)} metrics, {len(wrong)} wrong", file=sys.stderr)
    return 1 if wrong or not named else 0


if __name__ == "__main__":
    sys.exit(main())
