"""What the cluster needs before the chart: images, operator, ingress controller, S3, Redis, Secrets and files."""

import base64
import io
import json
import secrets
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import boto3
import numpy as np
import yaml
from botocore.config import Config
from mypy_boto3_s3 import S3Client
from PIL import Image

from docs.scenes import Scene, draw
from helm.rules import rules
from tests.cluster import kube
from tests.cluster.kube import kubectl, run

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
NAMESPACE, OPERATOR_NAMESPACE, MONITORING_NAMESPACE = "roadseg", "kuberay-operator", "monitoring"
BUCKET = "road"
ARCHIVES_PREFIX = "roadseg-images-"  # of folders; .ci/run removes those that are left
ENTRIES = ("api-keys", "auth_token", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "redis-password")
# CamVid's labels.
TREE, ROAD = 5, 3
DRIVES, FRAMES_PER_DRIVE = ("0001TP", "0006R0"), 12
READY_TIMEOUT_S = 600  # generous: the machine may be small and busy


@dataclass(frozen=True)
class Keys:
    """The secrets of the cluster under test, in the order of ENTRIES."""

    api: str
    ray: str
    s3_id: str
    s3_secret: str
    redis: str

    @classmethod
    def of_cluster(cls) -> "Keys":
        """The keys that an earlier journey left in the cluster, else new ones."""
        found = kube.get("secrets", f"--namespace={NAMESPACE}")["items"]
        known = {name: base64.b64decode(v).decode() for secret in found for name, v in secret.get("data", {}).items()}
        return cls(*(known.get(entry) or secrets.token_hex(16) for entry in ENTRIES))

    def of_secret(self, *entries: str) -> dict[str, str]:
        """Some entries, as a Secret holds them."""
        return {entry: value for entry, value in zip(ENTRIES, astuple(self), strict=True) if entry in entries}


def load_images(tag: str, *names: str) -> str:
    """Build our images and bring them into the cluster; the output of `ci/images`, which has their sizes."""
    with tempfile.TemporaryDirectory(prefix=ARCHIVES_PREFIX) as folder:
        told = run(ROOT / "ci/images", "--tag", tag, "--archive", folder, *names)
        for name in names:
            load_archive(Path(folder) / f"{name}.tar")
    return told


def load_archive(archive: Path) -> None:
    """Bring an image into the cluster, and remove its archive."""
    context = kubectl("config", "current-context").strip()
    if context.startswith("kind-"):
        run("kind", "load", "image-archive", "--name", context.removeprefix("kind-"), archive)
    else:
        run(ROOT / "ci/cluster", "load", archive)
    archive.unlink()


def load_helper_images(everything: bool) -> None:
    """Build third-party images from the same programs, under the names in the manifests.

    Only for the one-node cluster, which cannot pull images. Redis and Prometheus are for `everything` only.
    """
    tools, wheels = ROOT / ".tools/bin", ROOT / ".venv/dev/bin"
    operator = "FROM scratch\nCOPY ray-operator /manager\nUSER 65532\n"
    single = "FROM {base}\nCOPY {program} /usr/local/bin/{program}\nENV PATH=/usr/local/bin:/usr/bin:/bin\n"
    base = run(ROOT / "ci/base-image").strip()
    redis = (
        f"FROM {base}\nRUN apt-get update && apt-get install --yes --no-install-recommends redis-server "
        "&& rm -rf /var/lib/apt/lists/*\n"
    )
    # The arguments of Traefik are those for the entry point of its image.
    traefik = single.format(base="scratch", program="traefik") + 'ENTRYPOINT ["/usr/local/bin/traefik"]\n'
    recipes: dict[str, tuple[str, Path | None]] = {
        _operator_image(): (operator, tools / "ray-operator"),
        _image_in(HERE / "traefik.yaml"): (traefik, wheels / "traefik"),
        _image_in(ROOT / "k8s/dev-s3.yaml"): (single.format(base="scratch", program="weed"), wheels / "weed"),
    }
    if everything:
        prometheus = single.format(base="scratch", program="prometheus")
        recipes[_image_in(ROOT / "k8s/dev-redis.yaml")] = (redis, None)
        recipes[_image_in(ROOT / "k8s/dev-prometheus.yaml")] = (prometheus, tools / "prometheus")
    for name, (recipe, program) in recipes.items():
        with tempfile.TemporaryDirectory(prefix=ARCHIVES_PREFIX) as context:
            if program:
                shutil.copy(program, context)
            (Path(context) / "Dockerfile").write_text(recipe)
            run("buildah", "bud", "--quiet", "--isolation", "chroot", "--layers", "--tag", name, context)
            archive = Path(context) / "helper.tar"
            run("buildah", "push", "--quiet", "--disable-compression", name, f"docker-archive:{archive}:{name}")
            load_archive(archive)


def _image_in(manifest: Path) -> str:
    return next(line.split("image:")[1].strip() for line in manifest.read_text().splitlines() if "image:" in line)


def module_folder(tools: str, module: str) -> Path:
    """The folder of a Go module at the version that a set in ci/tools pins."""
    return Path(run(ROOT / "ci/tools/module", tools, module).strip())


def _operator_manifests() -> Path:
    return module_folder("kubernetes", "github.com/ray-project/kuberay/ray-operator") / "config"


def _operator_image() -> str:
    (image,) = yaml.safe_load((_operator_manifests() / "default/kustomization.yaml").read_text())["images"]
    return f"{image['newName']}:{image['newTag']}"


def install_operator() -> None:
    """Install the operator from the manifests in its pinned module."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(_operator_manifests(), Path(folder) / "config")
        overlay = {
            "namespace": OPERATOR_NAMESPACE,
            "resources": ["namespace.yaml", "config/default"],
            # Its limit of a tenth of a CPU makes it slow while much happens at once.
            "patches": [
                {
                    "target": {"kind": "Deployment"},
                    "patch": '[{"op": "remove", "path": "/spec/template/spec/containers/0/resources/limits/cpu"}]',
                }
            ],
        }
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}}
        (Path(folder) / "namespace.yaml").write_text(json.dumps(namespace))
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(overlay))
        # On the server: the definitions are too large for the annotation that a client-side apply writes.
        kubectl("apply", "--server-side", f"--kustomize={folder}")
    definitions = ("crd/rayservices.ray.io", "crd/rayclusters.ray.io")
    # kubectl wait fails on a definition so new that it has no conditions yet, so ask again.
    kube.wait_until(
        "KubeRay's definitions",
        lambda: kubectl("wait", "--for=condition=Established", *definitions, "--timeout=5s"),
        READY_TIMEOUT_S,
    )
    kubectl("rollout", "status", "deployment/kuberay-operator", f"--namespace={OPERATOR_NAMESPACE}", "--timeout=300s")


def install_services(keys: Keys, everything: bool) -> None:
    """Install Secrets, S3 and, if everything, Redis in a namespace for restricted pods, and Traefik in another."""
    definitions = module_folder("gateway", "sigs.k8s.io/gateway-api") / "config/crd"
    kubectl("apply", "--server-side", f"--kustomize={definitions}")
    kubectl("apply", f"--filename={HERE / 'traefik.yaml'}")
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})
    entries = {
        "roadseg-api-keys": keys.of_secret("api-keys"),
        "roadseg-ray-token": keys.of_secret("auth_token"),
        "roadseg-s3": keys.of_secret("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
        "roadseg-redis": keys.of_secret("redis-password"),
    }
    kube.apply(
        *(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": n, "namespace": NAMESPACE}, "stringData": data}
            for n, data in entries.items()
        )
    )
    services = {"dev-s3": "seaweedfs"} | ({"dev-redis": "redis"} if everything else {})
    for name in services:
        kubectl("apply", f"--namespace={NAMESPACE}", f"--filename={ROOT / 'k8s' / name}.yaml")
    for deployment in services.values():
        _wait_for_deployment(NAMESPACE, deployment)
    _wait_for_deployment("traefik", "traefik")


def install_prometheus(release: str) -> None:
    """Install Prometheus in its own namespace, with the rules of a release."""
    kubectl("apply", f"--filename={ROOT / 'k8s/dev-prometheus.yaml'}")
    values = yaml.safe_load((ROOT / "helm/roadseg/values.yaml").read_text())["monitoring"]["rules"]
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "prometheus-rules", "namespace": MONITORING_NAMESPACE},
            "data": {"rules.yaml": rules(NAMESPACE, release, values)},
        }
    )
    # One from an earlier journey read its rules when it started.
    kubectl("rollout", "restart", "deployment/prometheus", f"--namespace={MONITORING_NAMESPACE}")
    _wait_for_deployment(MONITORING_NAMESPACE, "prometheus")


def _wait_for_deployment(namespace: str, name: str) -> None:
    kubectl("rollout", "status", f"deployment/{name}", f"--namespace={namespace}", f"--timeout={READY_TIMEOUT_S}s")


def s3_client(keys: Keys, port: int) -> S3Client:
    """A client for the S3 server of the cluster at a forwarded port."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id=keys.s3_id,
        aws_secret_access_key=keys.s3_secret,
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )


def write_dataset(root: Path) -> None:
    """Write drawn streets in the layout of CamVid: enough for a short training."""
    street = Scene(cars=((3.1, 12.0),))
    for part, drives in (("train", DRIVES), ("val", ("0016E5",))):
        for folder in (root / part, root / f"{part}annot"):
            folder.mkdir(parents=True)
        for drive_number, drive in enumerate(drives):
            for i in range(FRAMES_PER_DRIVE):
                seed = 100 * drive_number + i
                scene = replace(street, seed=seed, bend=(i - 6) / 2, road_m=3.5 + i / 8, light=1 - i / 40)
                image_HWC, road_HW = draw(scene, 90, 120)
                label_HW = np.where(road_HW, ROAD, TREE).astype(np.uint8)
                Image.fromarray(image_HWC).save(root / part / f"{drive}_{i:05d}.png")
                Image.fromarray(label_HW).save(root / f"{part}annot" / f"{drive}_{i:05d}.png")


def put_files(keys: Keys, folder: Path) -> None:
    """Copy all files in a folder to the bucket, under their paths in the folder."""
    with kube.forwarded(NAMESPACE, "seaweedfs", 8333) as port:
        client = s3_client(keys, port)
        with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # from an earlier journey
            client.create_bucket(Bucket=BUCKET)
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            client.upload_file(str(path), BUCKET, path.relative_to(folder).as_posix())


def get_files(keys: Keys, prefix: str, folder: Path) -> None:
    """Copy the files directly under a prefix in the bucket to a folder."""
    with kube.forwarded(NAMESPACE, "seaweedfs", 8333) as port:
        client = s3_client(keys, port)
        for item in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", []):
            client.download_file(BUCKET, item["Key"], str(folder / Path(item["Key"]).name))


def local_mask(picture: bytes, model: str = "bundled:small") -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """The mask of the same model outside the cluster: mask_HW, uint8, 255 is road."""
    command = [str(Path(sys.executable).with_name("roadseg-serve")), "segment", "-", "--model", model]
    done = subprocess.run(command, input=picture, capture_output=True, check=True)
    return np.asarray(Image.open(io.BytesIO(done.stdout)))
