"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler; kwok plays the machines.

What kwok does not do: run containers. A pod is "ready" as soon as it is scheduled, so probes and programs are not tested here.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.cluster import cluster_build
from tests.peers import free_port, wait_for_port

Object = dict[str, Any]
# Machines of the imaginary cluster: zone -> number; each with so much.
ZONES = {"a": 3, "b": 3}
CAPACITY = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "2Ti", "pods": "110"}
# kwok as a cloud's load balancer: it gives each such service an address of the documentation range (RFC 5737).
LOAD_BALANCER = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "load-balancer"},
    "spec": {
        "resourceRef": {"apiGroup": "v1", "kind": "Service"},
        "selector": {
            "matchExpressions": [
                {"key": ".spec.type", "operator": "In", "values": ["LoadBalancer"]},
                {"key": ".status.loadBalancer.ingress", "operator": "DoesNotExist"},
            ]
        },
        "next": {"statusTemplate": "loadBalancer:\n  ingress:\n  - ip: 192.0.2.10\n"},
    },
}


def _certificates(folder: Path) -> None:
    """A certificate authority and one certificate of it, for the API server's calls to metrics-server and kwok's own door."""
    now = dt.datetime.now(dt.UTC)
    keys = {
        name: rsa.generate_private_key(public_exponent=65537, key_size=2048)
        for name in ("ca", "front-proxy", "accounts")
    }
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    for name in ("ca", "front-proxy"):
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = x509.CertificateBuilder(
            issuer, subject, keys[name].public_key(), x509.random_serial_number(), now, now + dt.timedelta(days=1)
        )
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        made = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.TraditionalOpenSSL
    for name, key in keys.items():
        (folder / f"{name}.key").write_bytes(
            key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        )


@dataclass
class ControlPlane:
    """Start it once; its data goes with its folder."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_hex(16))
    _processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ports: dict[str, int] = field(default_factory=dict)

    def start_server(self) -> None:
        """etcd and the API server: enough to see what is admitted. Returns when it answers. Raises CannotBuildError."""
        self._programs = cluster_build.programs(("etcd", "kube-apiserver"))
        names = ("etcd", "etcd-peer", "api", "controllers", "scheduler", "kwok", "metrics")
        self._ports = {name: free_port() for name in names}
        self._write_files()
        self._start_etcd()
        self._start_api_server()

    def start_rest(self) -> None:
        """Controllers, scheduler, machines and their meters. Returns when the machines are ready. Raises CannotBuildError."""
        self._programs = cluster_build.programs()
        self._start_controllers()
        self._start_kwok()
        self._add_machines()
        self._start_metrics_server()

    def stop(self) -> None:
        """Ends every process that was started here, last first."""
        for process in reversed(self._processes.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "kubeconfig"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._ports['api']}"

    def environment(self) -> dict[str, str]:
        """For helm: this cluster, and no settings of the person who runs the tests."""
        home = {"HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig)}
        return {**{k: v for k, v in os.environ.items() if "proxy" not in k.lower()}, **home}

    def apply(self, *objects: Object) -> None:
        """Creates or changes objects, field by field on the server's side. Raises AssertionError with what it refused."""
        for made in objects:
            path = f"{self.place(made)}/{made['metadata']['name']}?fieldManager=tests&force=true"
            answer = self.call("PATCH", path, made, "application/apply-patch+yaml")
            assert answer.status_code in (200, 201), f"{made['kind']} {made['metadata']['name']}: {answer.text[:2000]}"

    def place(self, made: Object) -> str:
        """The path of the API under which objects of this kind (and namespace) lie."""
        version = str(made["apiVersion"])
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        (found,) = [r for r in self.get(base)["resources"] if r["kind"] == made["kind"] and "/" not in r["name"]]
        within = f"/namespaces/{made['metadata']['namespace']}" if found["namespaced"] else ""
        return f"{base}{within}/{found['name']}"

    def call(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> httpx.Response:
        """One call of the API server."""
        headers = {"authorization": f"Bearer {self.token}", "content-type": kind}
        return httpx.request(
            method, self.url + path, headers=headers, content=json.dumps(body) if body is not None else None,
            verify=False, timeout=60, trust_env=False,
        )  # fmt: skip

    def get(self, path: str) -> Object:
        """What lies at a path of the API. Raises AssertionError when the server refuses."""
        answer = self.call("GET", path)
        assert answer.status_code == 200, answer.text[:2000]
        return dict(answer.json())

    def items(self, path: str) -> list[Object]:
        return list(self.get(path)["items"])

    def patch(self, path: str, body: Object) -> Object:
        answer = self.call("PATCH", path, body, "application/merge-patch+json")
        assert answer.status_code == 200, answer.text[:2000]
        return dict(answer.json())

    def wait(self, condition: Callable[[], Any], what: str, timeout_s: float = 120.0) -> Any:
        """The condition's first true answer; AssertionError with `what` after the time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(0.25)
        raise AssertionError(f"not within {timeout_s:g} s: {what}\n{self.tails()}")

    def tails(self) -> str:
        """The ends of the logs."""
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-800:]}" for f in self.folder.glob("*.log"))

    def _write_files(self) -> None:
        _certificates(self.folder)
        (self.folder / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n", encoding="utf-8")
        named = {"name": "osler", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [named],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "osler", "context": {"cluster": "osler", "user": "admin"}}],
            "current-context": "osler",
        }
        self.kubeconfig.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.kubeconfig.chmod(0o600)

    def _run(self, name: str, port: str, *arguments: str) -> None:
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [str(self._programs[name]), *arguments], stdout=output, stderr=output, env=self.environment()
            )
        self._processes[name] = process
        wait_for_port(self._ports[port], process, log, 120.0)

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in ("etcd", "etcd-peer"))
        # Nothing of this cluster need outlive the machine: no waiting for the disk.
        self._run(
            "etcd", "etcd", "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level=warn",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        )  # fmt: skip

    def _start_api_server(self) -> None:
        at = self.folder
        self._run(
            "kube-apiserver", "api", "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1",
            f"--secure-port={self._ports['api']}",
            f"--etcd-servers=http://127.0.0.1:{self._ports['etcd']}", f"--cert-dir={at / 'api-certificates'}",
            "--service-cluster-ip-range=10.96.0.0/16", "--endpoint-reconciler-type=none",
            "--authorization-mode=Node,RBAC", f"--token-auth-file={at / 'tokens.csv'}", f"--client-ca-file={at / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at / 'accounts.key'}", f"--service-account-signing-key-file={at / 'accounts.key'}",
            f"--requestheader-client-ca-file={at / 'ca.crt'}", "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={at / 'front-proxy.crt'}", f"--proxy-client-key-file={at / 'front-proxy.key'}",
        )  # fmt: skip
        self.wait(lambda: self.call("GET", "/readyz").status_code == 200, "the API server is ready")

    def _start_controllers(self) -> None:
        login = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1")
        delegated = (f"--authentication-kubeconfig={self.kubeconfig}", f"--authorization-kubeconfig={self.kubeconfig}")
        self._run(
            "kube-controller-manager", "controllers", *login, *delegated, f"--secure-port={self._ports['controllers']}",
            f"--service-account-private-key-file={self.folder / 'accounts.key'}",
            f"--root-ca-file={self.folder / 'ca.crt'}", "--horizontal-pod-autoscaler-sync-period=3s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=1s", "--horizontal-pod-autoscaler-cpu-initialization-period=1s",
        )  # fmt: skip
        self._run("kube-scheduler", "scheduler", *login, *delegated, f"--secure-port={self._ports['scheduler']}")

    def _start_kwok(self) -> None:
        (self.folder / "load-balancer.yaml").write_text(yaml.safe_dump(LOAD_BALANCER), encoding="utf-8")
        files = [*cluster_build.simulation(), self.folder / "load-balancer.yaml"]
        self._run(
            "kwok", "kwok", f"--kubeconfig={self.kubeconfig}", "--manage-all-nodes=true", "--node-ip=127.0.0.1",
            f"--node-port={self._ports['kwok']}", f"--server-address=127.0.0.1:{self._ports['kwok']}",
            f"--tls-cert-file={self.folder / 'front-proxy.crt'}", f"--tls-private-key-file={self.folder / 'front-proxy.key'}",
            *(f"--config={file}" for file in files),
        )  # fmt: skip

    def _add_machines(self) -> None:
        machines = [
            _machine(f"machine-{zone}{number}", zone) for zone, count in ZONES.items() for number in range(count)
        ]
        for machine in machines:
            answer = self.call("POST", "/api/v1/nodes", machine)
            assert answer.status_code == 201, answer.text[:2000]
        self.apply(_STORAGE, *(_volume(number) for number in range(8)))

        def ready() -> bool:
            conditions = [c for node in self.items("/api/v1/nodes") for c in node["status"].get("conditions", [])]
            return sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions) == len(machines)

        self.wait(ready, "the machines are ready")

    def _start_metrics_server(self) -> None:
        port = self._ports["metrics"]
        self._run(
            "metrics-server", "metrics", f"--kubeconfig={self.kubeconfig}", "--bind-address=127.0.0.1",
            f"--authentication-kubeconfig={self.kubeconfig}", f"--authorization-kubeconfig={self.kubeconfig}",
            f"--secure-port={port}", f"--cert-dir={self.folder / 'metrics-certificates'}", "--kubelet-insecure-tls",
            "--kubelet-use-node-status-port", "--kubelet-preferred-address-types=InternalIP", "--metric-resolution=10s",
        )  # fmt: skip
        self.apply(*_metrics_api(port))


_STORAGE: Object = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kubernetes.io/no-provisioner",
    "volumeBindingMode": "WaitForFirstConsumer",
}


def _machine(name: str, zone: str) -> Object:
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "kubernetes.io/os": "linux"}
    annotations = {"metrics.k8s.io/resource-metrics-path": f"/metrics/nodes/{name}/metrics/resource"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": annotations},
        "status": {"allocatable": CAPACITY, "capacity": CAPACITY},
    }


def _volume(number: int) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"disk-{number}"},
        "spec": {
            "capacity": {"storage": "4Ti"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "standard",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/disks/{number}"},
        },
    }


def _metrics_api(port: int) -> list[Object]:
    """How the API server finds metrics-server: by a name, since it refuses endpoints on loopback."""
    place = {"name": "metrics-server", "namespace": "kube-system"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": place,
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
    }
    api = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1beta1.metrics.k8s.io"},
        "spec": {
            "service": {**place, "port": port},
            "group": "metrics.k8s.io",
            "version": "v1beta1",
            "insecureSkipTLSVerify": True,
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        },
    }
    return [service, api]
