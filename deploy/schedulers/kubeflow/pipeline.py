"""The Kubeflow pipeline: each stage is a task that gets the commit and its inputs from the DVC remote and gives its outputs back.

usage: python pipeline.py OUTPUT < STAGES

STAGES is JSON: for each model, and each of its stages, the stages that it depends on. `make kubeflow` gives it. The components
run in the image of training and start deploy.schedulers.component.
"""

import json
import sys

from kfp import compiler, dsl, kubernetes

IMAGE = "training"
"""The parameter `image` takes its place."""
SECRET = {"token": "GH_TOKEN"}
"""Keys of the Secret `espalier-forge`, and the variables that they become, where the pull request is opened."""
START = ["/app/.venv/bin/python", "/app/start.py", "run", "deploy.schedulers.component"]
CLONE = """\
git clone --quiet --config 'credential.helper=!gh auth git-credential' --branch main "$1" /work/source
cd /work/source
shift
exec /app/.venv/bin/python -m deploy.schedulers.component "$@"
"""


@dsl.container_component
def checkout(repository: str, folder: dsl.OutputPath(str)):
    return dsl.ContainerSpec(
        image=IMAGE, command=["bash", "-euc", CLONE, "checkout", repository], args=["checkout", folder]
    )


def stage(title: str):
    """The component that runs a stage; kfp calls a task as its component."""

    def run(folder: str, name: str, inputs: str):
        return dsl.ContainerSpec(
            image=IMAGE, command=["env", f"RUN_FOLDER={folder}", *START], args=["stage", name, inputs]
        )

    run.__name__ = title
    return dsl.container_component(run)


@dsl.container_component
def review(folder: str, stages: str):
    return dsl.ContainerSpec(
        image=IMAGE, command=["env", f"RUN_FOLDER={folder}", *START], args=["review", stages]
    )


@dsl.container_component
def propose(repository: str, folder: str, reason: str):
    return dsl.ContainerSpec(
        image=IMAGE,
        command=["env", f"REASON={reason}", "bash", "-euc", CLONE, "propose", repository],
        args=["propose", folder],
    )


def placed(task: dsl.PipelineTask, image: str) -> dsl.PipelineTask:
    """A task in the image, with a folder to work in. It always runs: its inputs are more than its parameters."""
    task.set_container_image(image)
    task.set_caching_options(False)
    task.set_retry(num_retries=2, backoff_duration="60s")
    task.set_cpu_request("1").set_memory_request("4Gi").set_memory_limit("4Gi")
    return kubernetes.empty_dir_mount(task, volume_name="work", mount_path="/work")


def address(first: str, model: str, name: str) -> str:
    """What DVC calls a stage of a model."""
    return name if model == first else f"models/{model}/dvc.yaml:{name}"


def group(first: str, model: str, stages: dict[str, list[str]]):
    """The pipeline of one model."""

    def of_model(folder: str, image: str):
        tasks = {}
        for name, needed in stages.items():
            inputs = " ".join(address(first, model, each) for each in needed)
            tasks[name] = stage(name)(folder=folder, name=address(first, model, name), inputs=inputs)
            placed(tasks[name], image).set_display_name(name)
            tasks[name].after(*(tasks[each] for each in needed))

    return dsl.pipeline(name=model)(of_model)


def main() -> None:
    graph = json.load(sys.stdin)
    first = next(iter(graph))
    # Defined here, because kfp defines no pipeline inside another one.
    pipelines = {model: group(first, model, stages) for model, stages in graph.items()}
    every = " ".join(address(first, model, name) for model, stages in graph.items() for name in stages)

    @dsl.pipeline(
        name="espalier-retrain",
        description="Reads the data of all models again, trains what that changes, and opens a pull request.",
    )
    def retrain(repository: str, image: str, reason: str = ""):
        begun = placed(checkout(repository=repository), image)
        groups = [
            of_model(folder=begun.outputs["folder"], image=image).set_display_name(model)
            for model, of_model in pipelines.items()
        ]
        reviewed = placed(review(folder=begun.outputs["folder"], stages=every), image).after(*groups)
        proposed = propose(repository=repository, folder=begun.outputs["folder"], reason=reason)
        placed(proposed, image).after(reviewed)
        for each in (begun, proposed):
            kubernetes.use_secret_as_env(each, "espalier-forge", SECRET)

    compiler.Compiler().compile(retrain, sys.argv[1])


if __name__ == "__main__":
    main()
