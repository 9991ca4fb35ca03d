"""Checks the Kubernetes manifests: each object against the published schema of its kind, strictly, and what no schema says.

Needs kubernetes-validate, which has the schemas in its wheel, and nothing from outside. Usage: check-manifests.py [FOLDER]
"""

import copy
import re
import sys
from pathlib import Path

import kubernetes_validate
import yaml

# Fields must exist in the oldest and the newest release that the manifests are for.
VERSIONS = ["1.30", "1.37"]
HERE = Path(__file__).parent
REPOSITORY = HERE.parent


def documents(folder: Path):
    """Every object, with the file that it stands in."""
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def problems_of(document: dict) -> list[str]:
    """What the schemas say against an object."""
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{version}: {error.message} at {'.'.join(map(str, error.path)) or 'the top'}")
        except kubernetes_validate.SchemaNotFoundError as error:
            found.append(f"{version}: {error.message}")
    return found


def kustomization(path: Path, document: dict) -> list[str]:
    """What is wrong with a kustomization, of which there is no schema: files that it names or forgets."""
    named = document["resources"] + [patch["path"] for patch in document.get("patches", [])]
    missing = [name for name in named if not (path.parent / name).exists()]
    beside = {other.name for other in path.parent.glob("*.yaml")} - {path.name}
    unknown = set(document) - {"apiVersion", "kind", "resources", "labels", "images", "patches"}
    return [f"names {name}, which is not there" for name in missing] + [
        f"leaves out {name}" for name in sorted(beside - set(named))
    ] + [f"has the field {name}" for name in sorted(unknown)]


def together(objects: dict[str, dict]) -> list[str]:
    """What is wrong with the objects beside each other."""
    found = []
    deployment = objects["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    args = container["args"]

    selectors = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": objects["Service"]["spec"]["selector"],
        "PodDisruptionBudget": objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    }
    found += [f"{kind} selects other pods" for kind, wanted in selectors.items() if not wanted.items() <= labels]

    drain = int(args[args.index("--drain") + 1])
    before = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = pod["terminationGracePeriodSeconds"]
    if grace < before + drain + 5:
        found.append(f"the pod is killed after {grace} s, and may need {before} + {drain} s and a little to drain")

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listen = int(args[args.index("--listen") + 1].rpartition(":")[2])
    for name in ["startupProbe", "readinessProbe", "livenessProbe"]:
        request = container[name]["httpGet"]
        if request["path"] != "/health" or ports.get(request["port"]) != listen:
            found.append(f"{name} does not ask /health where the program listens")
    if container["resources"]["requests"] != container["resources"]["limits"]:
        found.append("requests and limits differ, so that a pod may lose cores or memory to others")

    context = container["securityContext"]
    if not (context["readOnlyRootFilesystem"] and pod["securityContext"]["runAsNonRoot"]):
        found.append("the pod runs as root, or may write to its root")
    image = (HERE / "Containerfile").read_text()
    user = re.search(r"^USER (\d+):", image, re.M)[1]
    if int(user) != pod["securityContext"]["runAsUser"]:
        found.append(f"the image is for user {user}")

    target = objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    if (target["kind"], target["name"]) != ("Deployment", objects["Deployment"]["metadata"]["name"]):
        found.append("the HorizontalPodAutoscaler scales something else")
    metrics = REPOSITORY / "runtime/server/src/metrics.rs"
    for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"]:
        name = metric["pods"]["metric"]["name"]
        if f'"{name}"' not in metrics.read_text():
            found.append(f"/metrics has no {name}")
    return found


def check(folder: Path) -> list[str]:
    found, objects = [], {}
    for path, document in documents(folder):
        name = path.relative_to(folder)
        if document["kind"] == "Kustomization":
            found += [f"{name}: {problem}" for problem in kustomization(path, document)]
            continue
        found += [f"{name}: {document['kind']}: {problem}" for problem in problems_of(document)]
        if path.parent.name == "kubernetes":
            objects.setdefault(document["kind"], document)
    # What is of another shape than a schema says cannot be compared.
    return found or together(objects)


def places(value, path=()):
    """The path of every field of an object."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def inside(document, path):
    for key in path:
        document = document[key]
    return document


# Below these, keys are anybody's.
FREE = {"labels", "annotations", "matchLabels", "limits", "requests", "selector"}


def mutations(folder: Path) -> tuple[int, list[str]]:
    """Misspells each field of each object in turn, and puts a list where a value belongs. How many mutants there were, and
    which of them the schemas let pass."""
    count, passed = 0, []
    for path, document in documents(folder):
        if document["kind"] == "Kustomization":
            continue
        for place in places(document):
            *above, key = place
            if not isinstance(key, str) or set(above) & FREE or key in ("apiVersion", "kind") and not above:
                continue
            misspelled, another = copy.deepcopy(document), copy.deepcopy(document)
            holder = inside(misspelled, above)
            holder[key + "x"] = holder.pop(key)
            inside(another, above)[key] = {"wrong": [1]}
            for what, mutant in [("misspelled", misspelled), ("of another type", another)]:
                count += 1
                if not problems_of(mutant):
                    passed.append(f"{path.name}: {'.'.join(map(str, place))} {what}")
    return count, passed


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    found = check(folder)
    for problem in found:
        print(problem)
    if found:
        return 1
    count, passed = mutations(folder)
    for mutant in passed:
        print(f"not noticed: {mutant}")
    print(f"{len(list(documents(folder)))} objects are valid in {', '.join(VERSIONS)}; {count - len(passed)} of {count} mutants are not")
    return 1 if passed or count < 200 else 0


if __name__ == "__main__":
    sys.exit(main())
