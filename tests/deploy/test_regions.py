"""Production in three regions: what is rendered for them, how a model gets there, and what the lists may not say."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from common import overlays
from deploy import clusters
from deploy.clusters import ClusterError
from deploy.manifests import __main__ as manifests
from deploy.manifests import argocd, render
from tests.deploy import regions
from tests.deploy.project import MODEL, ROOT, Project
from tests.deploy.prometheus import serving
from tests.deploy.test_evidence import pod, rollout

ALL = ["staging", "production", *regions.REGIONS]
REASON = ("--without-evidence", "nothing watches a test")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder deploy/ of a project in three regions."""
    folder = tmp_path_factory.mktemp("three")
    ignored = shutil.ignore_patterns("__pycache__", "terraform", "schemas")
    for each in (render.FOLDER, render.MONITORING):
        shutil.copytree(each, folder / each.name, ignore=ignored)
    regions.add(folder)
    return folder / "deploy"


@pytest.mark.slow
def test_three_regions_are_rendered_and_nothing_is_missing(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each region has its environment, its model and its host; Argo CD deploys all of it, and projects allow it."""
    monkeypatch.setattr(render, "VARIANTS", (("gateway-api",), ("deployment",)))
    rendered = {each.name: each for each in manifests.render_all(three)}
    assert {name: list(each.problems) for name, each in rendered.items() if each.problems} == {}
    for name, region in regions.REGIONS.items():
        model = rendered[f"{name}.{MODEL}"]
        assert {each["metadata"]["namespace"] for each in model.documents} == {f"espalier-{name}"}
        ingress = next(each for each in model.documents if each["kind"] == "Ingress")
        assert ingress["spec"]["rules"][0]["host"] == f"{MODEL}.{region}.espalier.example.com"
    sets = [each for each in rendered["argocd"].documents if each["kind"] == "ApplicationSet"]
    with render.copied(three) as copy:
        applications = [each for every in sets for each in argocd.applications_of(every, copy)]
    places = {each["metadata"]["name"]: each["spec"]["destination"]["name"] for each in applications}
    # For each cluster the platform, Argo Rollouts, the Prometheus stack and monitoring; for those with node groups the controller
    # of load balancers; and the environments.
    assert len(places) == len(applications) == 3 * 4 + len(regions.REGIONS) + len(ALL) * 2
    for name, region in regions.REGIONS.items():
        assert places[f"espalier-{name}"] == places[f"espalier-{name}.{MODEL}"] == region
        assert places[f"argo-rollouts.{region}"] == places[f"kube-prometheus-stack.{region}"] == region
    assert places["espalier-production"] == "in-cluster"
    controller = next(each for each in applications if each["metadata"]["name"].startswith("aws-load"))
    values = controller["spec"]["source"]["helm"]["valuesObject"]
    region = controller["spec"]["destination"]["name"]
    assert (values["clusterName"], values["region"], values["vpcId"]) == (
        f"espalier-{region}",
        region,
        "vpc-1",
    )
    assert not any(values[each] for each in ("enableShield", "enableWaf", "enableWafv2"))
    rollouts = next(each for each in applications if each["metadata"]["name"] == "argo-rollouts.us-east-1")
    controller = rollouts["spec"]["source"]["helm"]["valuesObject"]["controller"]
    assert controller["awsTargetGroupBindingAPIVersion"] == "elbv2.k8s.aws/v1beta1"
    assert controller["extraEnv"] == [{"name": "AWS_REGION", "value": "us-east-1"}]


@pytest.fixture
def project(project: Project) -> Project:
    """With three regions, and nothing released."""
    files = regions.lists(project.me.root)
    for name in regions.REGIONS:
        for path in (f"{name}/kustomization.yaml", f"{name}/{MODEL}/kustomization.yaml"):
            here = path.replace(name, "production", 1)
            files[f"{overlays.FOLDER}/{path}"] = (ROOT / overlays.FOLDER / here).read_text()
    project.me.commit("Add two regions", files)
    return project


def _promote(project: Project, environment: str, *options: str) -> str | None:
    """Promote and merge; what was said on stderr where it was refused."""
    project.me.git("pull", "-q", "--rebase", "origin", "main")
    done = project.me.release("promote", environment, "--branch", "next", *(options or REASON))
    if done.status:
        assert done.out == ""
        return done.err
    project.me.git("push", "-q", "origin", "next:main")
    project.me.git("branch", "-q", "-D", "next")
    return None


@pytest.mark.slow
def test_a_model_is_promoted_from_wave_to_wave(project: Project) -> None:
    project.staged(1)
    refused = _promote(project, "production-us")
    assert refused is not None
    assert f"{MODEL} was never released to production, so there is nothing to promote" in refused
    assert _promote(project, "production") is None
    for name in regions.REGIONS:
        assert _promote(project, name) is None
        assert project.runs(name) == project.runs("production") == project.runs("staging")
        assert project.trailers()["Espalier-Environment"] == name
    # Staging is ahead, and the last wave gets what the wave before it has.
    project.staged(2)
    refused = _promote(project, "production-us")
    assert refused is not None
    assert "production-us already runs what production runs" in refused
    assert _promote(project, "production") is None
    assert _promote(project, "production-us") is None
    assert project.runs("production-us") == project.runs("production")
    assert project.runs("production-ap") != project.runs("production")
    shown = project.me.release("status", "--fetch").out
    rows = [line.split() for line in shown.splitlines() if "ago" in line or "just now" in line]
    assert [row[-7 if row[0] == MODEL else 0] for row in rows]
    assert [place for row in rows for place in row if place in ALL] == ALL
    for name, region in regions.REGIONS.items():
        row = next(row for row in rows if name in row)
        assert row[row.index(name) + 1 :][:2] == [region, region]
    assert f"{MODEL}: production-us runs what staging runs" in shown
    assert f"{MODEL}: production-ap is 1 commit behind staging:" in shown


@pytest.mark.slow
def test_a_wave_waits_for_the_whole_wave_before(project: Project) -> None:
    """And the evidence is that of each environment in it."""
    environments = (project.me.root / clusters.ENVIRONMENTS).read_text().replace("wave: 2", "wave: 1", 1)
    project.me.commit("Have two regions in the first wave", {clusters.ENVIRONMENTS: environments})
    (second, last) = (
        name
        for wave in (1, 2)
        for name in regions.REGIONS
        if f"environment: {name}\n  prune: false\n  wave: {wave}" in environments
    )
    project.staged(1)
    for name in ("production", second):
        assert _promote(project, name) is None
    project.staged(2)
    assert _promote(project, "production") is None
    refused = _promote(project, last)
    assert refused is not None
    assert f"is not the same in the whole wave before (production {2:012x}, {second} {1:012x})" in refused
    assert _promote(project, second) is None
    digest = project.runs("production").digest
    now = int(time.time())
    samples = [
        (name, labels | {"namespace": f"espalier-{where}"}, value)
        for where in ("production", second)
        for name, labels, value in [*pod(MODEL, 1, digest), rollout(MODEL, "Healthy")]
    ]
    held = {(name, tuple(labels.items())): [(now - 5, value)] for name, labels, value in samples}
    project.me.commit("Ask for half an hour", {"deploy/promotion.yaml": "minutes: 30\n"})
    alone = {key: value for key, value in held.items() if second not in str(key)}
    for number, series in enumerate((alone, held)):
        folder = project.me.root.parent / f"prometheus{number}"
        folder.mkdir()
        with serving(series, folder) as server:
            refused = _promote(project, last, "--prometheus", server.address)
        if series is alone:
            assert refused is not None
            assert f"{second}: {second} runs this image alone (0 of 0 ready pods run it)" in refused
            assert "production: " not in refused
    assert refused is None
    assert project.runs(last).digest == digest


def test_releases_go_to_the_first_wave_alone(project: Project) -> None:
    image = project.made(1)
    for name in ("production", *regions.REGIONS):
        done = project.me.release("set", name, "--image", image, "--push")
        assert done.status == 1
        assert f"`python -m deploy.release promote {name}`" in done.err
    done = project.me.release("promote", "staging", *REASON)
    assert "staging is where releases go first" in done.err
    done = project.me.release("promote", "prodction", *REASON)
    assert (
        "deploy/environments.yaml has no environment 'prodction' (staging, production, production-us"
        in done.err
    )


def test_the_first_wave_is_the_default_whatever_it_is_called(project: Project) -> None:
    me, listed = project.me, project.me.root / clusters.ENVIRONMENTS
    listed.write_text(listed.read_text().replace("environment: staging\n", "environment: trial\n"))
    me.git("mv", f"{overlays.FOLDER}/staging", f"{overlays.FOLDER}/trial")
    me.git("commit", "-q", "-a", "-m", "Rename an environment")
    me.git("push", "-q", "origin", "HEAD:main")
    done = me.release("set", "--image", project.made(1), "--push")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(f"trial runs {MODEL} ")


CLUSTER = "[{cluster: a, region: r, platform: kind}]"
ENVIRONMENT = "[{environment: e, cluster: a, wave: 0, prune: true}]"
MISTAKES = [
    (None, ENVIRONMENT, "there is no deploy/clusters.yaml"),
    ("[", ENVIRONMENT, "deploy/clusters.yaml is not YAML"),
    ("a: b", ENVIRONMENT, "deploy/clusters.yaml must be a list"),
    ("[]", ENVIRONMENT, "deploy/clusters.yaml must be a list"),
    ("[{cluster: a, platform: kind}]", ENVIRONMENT, "entry 1: region must be a name, and is None"),
    (CLUSTER.replace("]", ", {cluster: a, region: r, platform: eks}]"), ENVIRONMENT, "a is listed twice"),
    (CLUSTER, None, "there is no deploy/environments.yaml"),
    (CLUSTER, ENVIRONMENT.replace("cluster: a", "cluster: b"), "deploy/clusters.yaml has no cluster b (a)"),
    (
        CLUSTER,
        ENVIRONMENT.replace("wave: 0", "wave: soon"),
        "e: wave must be a number from 0 on, and is 'soon'",
    ),
    (CLUSTER, ENVIRONMENT.replace("wave: 0", "wave: 1"), "the waves are [1], and must be 0, 1"),
    (CLUSTER, ENVIRONMENT.replace("prune: true", "prune: 1"), "e: prune must be true or false, and is 1"),
    (CLUSTER, ENVIRONMENT.replace("]", f", {ENVIRONMENT[1:]}"), "e is listed twice"),
    (CLUSTER, ENVIRONMENT.replace("]", f", {ENVIRONMENT[1:].replace(': e', ': f')}"), "which are e, f"),
]


@pytest.mark.parametrize(("listed", "environments", "said"), MISTAKES, ids=[each[-1] for each in MISTAKES])
def test_a_mistake_in_a_list_is_named(listed: str | None, environments: str | None, said: str) -> None:
    texts = {clusters.CLUSTERS: listed, clusters.ENVIRONMENTS: environments}
    with pytest.raises(ClusterError) as caught:
        clusters.read(texts.get)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
