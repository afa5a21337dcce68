"""The clients: how each is started with its file of docs/shippers, how many records it
sends, and what is known of it. In the files nothing is changed but ports, directories
and, for OpenTelemetry in JSON, the package of the exporter.
"""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import socket
import subprocess
import time
import typing
import urllib.request

# How long a program may take for all that it sends, in seconds.
PROGRAM_SECONDS_MAX = 40
# How long a service may take to start, and to end, in seconds.
SERVICE_SECONDS_MAX = 20
# How many records a client sends.
RECORDS = 200
# Where most send them, of which a topic is the rest.
RAW = "/publish/records"
LOKI = "/loki/api/v1/push"
SPLUNK = "/services/collector/event"


@dataclasses.dataclass
class Client:
    name: str
    # The topics of its events, each a row of its own.
    topics: list
    # Starts it, and returns when it has ended or has all that it is to send. A context
    # manager where something runs on.
    run: typing.Callable
    # Where it sends. A service that has no such route is not asked to take it.
    route: str = RAW
    # By topic, where it is not RECORDS.
    sent: dict = dataclasses.field(default_factory=dict)
    retries: bool = True
    # Whose packages it needs: python or node.
    needs: str = ""
    # Else the program, and the package of Debian that has it.
    program: str = ""
    package: str = ""
    # Reads the number of a record from its payload.
    number: typing.Callable = None
    # Reads the numbers in a body, for a client that does not send all that it is given.
    numbers_sent: typing.Callable = None


@dataclasses.dataclass
class Place:
    """Where one client runs: its directory, and the proxy that it talks to."""

    directory: str
    proxy: object
    docs: str
    venv: str
    node: str

    def file(self, name, **replaced):
        """A copy of a file of docs/shippers that has our addresses. Programs of node find
        their packages from where they are."""
        with open(os.path.join(self.docs, name), encoding="utf-8") as source:
            text = source.read()
        port = self.proxy.address.partition(":")[2]
        for old, new in {"3000": port, **replaced}.items():
            if old not in text:
                raise RuntimeError(f"{name} has no {old}")
            text = text.replace(old, new)
        directory = self.node if name.endswith(".mjs") else self.directory
        path = os.path.join(directory, f"{port}-{name}")
        with open(path, "w", encoding="utf-8") as copy:
            copy.write(text)
        return path

    def program(self, *command, **environment):
        """Runs a program to its end. What it says goes to a file, for who looks into why."""
        with open(os.path.join(self.directory, "said"), "ab") as said:
            subprocess.run(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL, check=True,
                           env={**os.environ, **environment}, timeout=PROGRAM_SECONDS_MAX)

    @contextlib.contextmanager
    def service(self, *command):
        """Has a program run while the `with` lasts."""
        with open(os.path.join(self.directory, "said"), "ab") as said:
            child = subprocess.Popen(command, stdout=said, stderr=said, stdin=subprocess.DEVNULL)
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(SERVICE_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def said(self):
        with open(os.path.join(self.directory, "said"), encoding="utf-8", errors="replace") as said:
            return said.read()

    def python(self, name, *arguments, **environment):
        self.program(os.path.join(self.venv, "bin", "python"), self.file(name), *arguments, **environment)

    def javascript(self, name, *arguments, replaced=None, **environment):
        file = self.file(name, **(replaced or {}))
        try:
            self.program("node", file, *arguments, **environment)
        finally:
            os.unlink(file)


def until(what, condition):
    deadline = time.monotonic() + SERVICE_SECONDS_MAX
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} does not start")
        time.sleep(0.05)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connected(family, address):
    """A connection to a service that is starting, or None."""
    client = socket.socket(family)
    try:
        client.connect(address)
        return client
    except OSError:
        client.close()
        return None


def curl(place):
    place.program("sh", place.file("curl.sh"))


@contextlib.contextmanager
def syslog_ng(place):
    port = free_port()
    config = place.file("syslog-ng.conf", **{"15140": str(port), "/var/lib/syslog-ng": place.directory})
    state = [f"--{name}={place.directory}/{name}" for name in ("persist-file", "pidfile", "control")]
    with place.service("syslog-ng", "--foreground", "--no-caps", f"--cfgfile={config}", *state):
        address = ("127.0.0.1", port)
        with until("syslog-ng", lambda: connected(socket.AF_INET, address)) as client:
            for number in range(RECORDS):
                client.sendall(f"<13>Jan  2 03:04:05 host app[7]: record {number}\n".encode())
            yield


@contextlib.contextmanager
def collectd(place):
    # collectd measures this machine; to have it send what we count, values are put into
    # it by its socket. It takes one for each name and time.
    config = os.path.join(place.directory, "collectd.conf")
    door = os.path.join(place.directory, "door")
    with open(config, "w", encoding="utf-8") as file:
        file.write(f'Hostname "host"\nBaseDir "{place.directory}"\nPIDFile "{place.directory}/pid"\n'
                   f'TypesDB "/usr/share/collectd/types.db"\nInterval 1\nWriteThreads 1\nLoadPlugin unixsock\n'
                   f'<Plugin unixsock>\n  SocketFile "{door}"\n</Plugin>\n'
                   f'Include "{place.file("collectd.conf")}"\n')
    with place.service("collectd", "-f", "-C", config):
        with until("collectd", lambda: connected(socket.AF_UNIX, door)) as client:
            answers = client.makefile()
            for number in range(RECORDS):
                client.sendall(f'PUTVAL "host/records/gauge-number" {1700000000 + number}:{number}\n'.encode())
                answers.readline()
            # Of what it is given it loses the value with which its buffer was full when a
            # request fails: the first one does.
            for _ in range(SERVICE_SECONDS_MAX * 10):
                client.sendall(b"FLUSH\n")
                answers.readline()
                if sum(len(collectd_numbers(body)) for body in place.proxy.bodies) >= RECORDS - 1:
                    break
                time.sleep(0.1)
            yield


def collectd_number(value):
    return int(value["values"][0])


def collectd_numbers(body):
    return [collectd_number(value) for value in json.loads(body)]


@contextlib.contextmanager
def alertmanager(place):
    with place.service(
        "prometheus-alertmanager", f"--config.file={place.file('alertmanager.yml')}",
        f"--storage.path={place.directory}/alerts", "--web.listen-address=127.0.0.1:0",
        "--cluster.listen-address=",
    ):
        address = until("Alertmanager", lambda: re.search(r"address=(127\.0\.0\.1:\d+)", place.said()))[1]
        alerts = [{"labels": {"alertname": f"record {number}"}} for number in range(RECORDS)]
        request = urllib.request.Request(f"http://{address}/api/v2/alerts", json.dumps(alerts).encode(),
                                         {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=SERVICE_SECONDS_MAX).close()
        yield


def python(name, topic, file, *arguments, route=RAW, retries=True, number=None, **environment):
    return Client(name, [topic], lambda place: place.python(file, *arguments, **environment),
                  route=route, retries=retries, number=number, needs="python")


def node(name, topic, file, *arguments, route=RAW, retries=True, number=None, replaced=None, **environment):
    def run(place):
        place.javascript(file, *arguments, replaced=replaced, **environment)

    return Client(name, [topic], run, route=route, retries=retries, number=number, needs="node")


def otel(client, name, topic, file, compression="none", **more):
    return client(name, topic, file, route="/v1/logs", OTEL_SERVICE_NAME=topic,
                  OTEL_EXPORTER_OTLP_COMPRESSION=compression, **more)


AS_JSON = {"exporter-logs-otlp-proto": "exporter-logs-otlp-http"}

CLIENTS = [
    Client("curl", ["curl-lines", "curl-array", "curl-ndjson", "curl-gzip", "curl-form"], curl,
           sent={"curl-form": 1}, program="curl", package="curl"),
    Client("syslog-ng", ["syslog"], syslog_ng,
           program="syslog-ng", package="syslog-ng-core, syslog-ng-mod-http"),
    Client("collectd write_http", ["collectd"], collectd, retries=False,
           program="collectd", package="collectd-core",
           number=collectd_number, numbers_sent=collectd_numbers),
    Client("Alertmanager", ["alerts"], alertmanager,
           program="prometheus-alertmanager", package="prometheus-alertmanager"),
    python("requests, urllib3 Retry", "requests", "python_requests.py"),
    python("logging.HTTPHandler", "python-logging", "python_logging.py", retries=False),
    otel(python, "OTel Python", "otel-python", "python_opentelemetry.py"),
    otel(python, "OTel Python, gzip", "otel-python-gzip", "python_opentelemetry.py", "gzip"),
    otel(node, "OTel JS, proto", "otel-js", "node_opentelemetry.mjs"),
    otel(node, "OTel JS, proto, gzip", "otel-js-gzip", "node_opentelemetry.mjs", "gzip"),
    otel(node, "OTel JS, JSON", "otel-js-json", "node_opentelemetry.mjs", replaced=AS_JSON),
    otel(node, "OTel JS, JSON, gzip", "otel-js-json-gzip", "node_opentelemetry.mjs", "gzip", replaced=AS_JSON),
    python("CloudEvents Python, binary", "python.to_binary_event", "python_cloudevents.py"),
    python("CloudEvents Python, structured", "python.to_structured_event", "python_cloudevents.py", "structured"),
    node("CloudEvents JS, binary", "node.binary", "node_cloudevents.mjs"),
    node("CloudEvents JS, structured", "node.structured", "node_cloudevents.mjs", "structured"),
    node("pino, pino-http-send", "pino", "pino_http_send.mjs"),
    node("winston Http", "winston", "winston.mjs", retries=False),
    node("pino-loki", "pino-loki", "pino_loki.mjs", route=LOKI, retries=False),
    node("winston-loki, protobuf", "winston-loki", "winston_loki.mjs", route=LOKI),
    python("elasticsearch-py helpers.bulk", "elasticsearch-py", "python_elasticsearch.py", route="/_bulk"),
    node("@elastic/elasticsearch helpers.bulk", "elasticsearch-js", "node_elasticsearch.mjs", route="/_bulk"),
    python("splunk-handler", "splunk-handler", "python_splunk.py", route=SPLUNK),
    node("splunk-logging", "splunk-logging", "node_splunk.mjs", route=SPLUNK),
]


def lacking(client, venv, node):
    """What a client needs and this machine has not, or None."""
    if client.needs == "python" and not os.path.exists(os.path.join(venv, "bin", "python")):
        return "its packages of PyPI are not installed"
    if client.needs == "node" and not os.path.exists(os.path.join(node, "node_modules")):
        return "its packages of npm are not installed"
    if client.program and not shutil.which(client.program):
        return f"{client.program} is not installed (Debian: {client.package})"
    return None
