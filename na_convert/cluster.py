"""`check` on a Dask cluster: parts of the data on its workers, merged to the figures of the whole.

Each worker reads models and data itself, by path, and keeps its own onnxruntime sessions. What
comes back are sums (`behaviour.Behaviour`) of the same batches that one process would take, so that
the result is the same, bit for bit. A part whose worker is lost runs again on another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from pathlib import Path
from threading import Lock
from typing import Any

from .behaviour import Behaviour, Observer, Part, Progress, Stages
from .data import Preprocessing, Samples
from .errors import NaConvertError, UsageError
from .reading import samples_for

_SHARDS_PER_WORKER = 4  # so that a fast worker takes more of them, and little is lost with one
_TIMEOUT = 30  # seconds to find the scheduler


@dataclass(frozen=True)
class Job:
    """What a worker reads: ``ann`` and ``snn`` with their sha256, and the samples, all by path."""

    ann: str
    snn: str
    digests: tuple[str, str]
    data: str
    labels: str | None
    preprocessing: Preprocessing | None
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Cluster:
    """Runs parts of ``job`` on the workers of the scheduler at ``address``."""

    address: str
    job: Job

    def __call__(self, parts: Sequence[Part], progress: Progress) -> Behaviour:
        """The sums over all ``parts``.

        Raises UsageError where no scheduler answers or it has no workers, DataError and ModelError
        as a worker meets them, NaConvertError where workers die over one part again and again.
        """
        with _client(self.address) as client:
            from distributed.scheduler import KilledWorker

            workers = len(client.scheduler_info(n_workers=-1)["workers"])
            if not workers:
                raise UsageError(f"--scheduler {self.address}: has no workers")
            size = max(1, len(parts) // (workers * _SHARDS_PER_WORKER))
            shards = [tuple(parts[at : at + size]) for at in range(0, len(parts), size)]
            futures = client.map(_observe, [self.job] * len(shards), shards, pure=False)
            found: list[Behaviour] = []
            for shard, future in zip(shards, futures, strict=True):
                try:
                    found.append(future.result())
                except KilledWorker as error:
                    raise NaConvertError(
                        f"--scheduler {self.address}: workers died over and over on samples "
                        f"{shard[0].start} to {shard[-1].stop}",
                        remedy="see their logs; give them more memory",
                    ) from error
                found = [reduce(Behaviour.merged, found)]
                progress(shard[-1].stop / parts[-1].stop)
        return found[0]


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "--scheduler needs dask.distributed", remedy="pip install 'na-convert[cluster]'"
        ) from error
    try:
        connect: Any = Client
        return connect(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise UsageError(f"--scheduler {address}: no scheduler answers there") from error


# --- on a worker ----------------------------------------------------------------------------------

_one_at_a_time = Lock()


def _observe(job: Job, parts: tuple[Part, ...]) -> Behaviour:
    with _one_at_a_time:
        observer, samples = _prepared(job)
    return reduce(Behaviour.merged, (observer.part(samples, part) for part in parts))


@lru_cache(maxsize=1)
def _prepared(job: Job) -> tuple[Observer, Samples]:
    """Both networks and the samples, read once by each worker."""
    from . import forms, model_io, pipeline
    from .layers import match_layers

    loaded, file = model_io.load(Path(job.ann)), model_io.load(Path(job.snn))
    for each, digest in zip((loaded, file), job.digests, strict=True):
        if each.sha256 != digest:
            raise UsageError(f"{each.path}: a worker reads another file than the client")
    samples = samples_for(loaded, job.data, job.preprocessing, job.labels)
    network = forms.read(file.model)
    reference = pipeline.reference(loaded, samples.feeds)
    layers = match_layers(network, reference.staircase_ann)
    stages = Stages(reference.ann, reference.staircase_ann, network, file.model, layers)
    return Observer(stages, job.steps), samples


def job_for(
    ann: Any,
    snn: Any,
    data: object,
    labels: object,
    how: Preprocessing | None,
    steps: Sequence[int],
) -> Job:
    """The job of comparing ``ann`` and ``snn`` (`model_io.Loaded`) at ``steps``.

    Raises UsageError where data or labels are arrays: workers read files.
    """
    if not isinstance(data, str | Path) or not isinstance(labels, str | Path | None):
        raise UsageError("on a cluster the data have to be files that every worker can read")
    return Job(
        str(ann.path.resolve()),
        str(snn.path.resolve()),
        (ann.sha256, snn.sha256),
        str(Path(data).resolve()),
        None if labels is None else str(Path(labels).resolve()),
        how,
        tuple(steps),
    )
