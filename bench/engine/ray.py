"""Cells as tasks of a Ray cluster: one task a run, which has a child process as it has locally.

Ray gives a task its CPUs, its share of a GPU and, once its driver is gone, its end.  Time limit,
memory limit and threads are those of the child (a Ray worker is used again and keeps its own).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tiltbench.engine.base import Engine, Event, Watch, unwatched
from tiltbench.engine.gpus import fitting, memory, share_of, visible
from tiltbench.engine.hold import Hold
from tiltbench.engine.local import lacked_memory, sweep, undone
from tiltbench.engine.supervisor import Order, Supervisor, stamp, wait
from tiltbench.plan.cell import Cell, Limits
from tiltbench.plan.errors import Refused
from tiltbench.records.provenance import code_of
from tiltbench.records.record import Record, Status, write_record
from tiltbench.targets.files import split

RETRIES = 3  # of a cell whose worker or node died
PATIENCE = 20.0  # seconds until a file written on one node must be seen on another


@dataclass(frozen=True)
class Ray(Engine):
    """`address`: HOST:PORT of a cluster, "auto" for that of this machine, "local" for a new one of
    this machine only.  A cell takes `limits.threads` CPUs and, on cuda, `gpu_share` of a GPU.

    A share of None is that of `fitting`, on the node that has the fewest CPUs a GPU and with the
    memory of this machine's GPUs; `peak` is the MB that a recorded cell has held.  A cell that ran
    out of the memory of a GPU of which it had a part is run once more with the whole of one.

    `run` raises Refused where there is no Ray, no cluster, nothing there that a cell would fit on,
    or a node that lacks the package, the folder or a plug-in's file."""

    address: str
    limits: Limits
    gpu_share: float | None = None
    peak: float | None = None

    def run(
        self,
        cells: Sequence[Cell],
        folder: Path,
        code: Mapping[str, Any],
        watch: Watch = unwatched,
    ) -> Iterator[tuple[Cell, Record]]:
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        orders = [
            Order(c, folder, self.limits, code_of(c, code), stamp(folder, c.id)) for c in cells
        ]
        with _connected(self.address), _marked(folder) as mark:
            needs = {device: self._need(device) for device in {c.device for c in cells}}
            tasks: dict[Any, Order] = {}
            try:
                for order in orders:
                    tasks[_submit(order, mark, needs[order.cell.device])] = order
                while tasks:
                    stream, news = _next(tasks)
                    if isinstance(news, Event):
                        watch(news)
                        continue
                    order = tasks.pop(stream)
                    need = needs[order.cell.device]
                    if news is None:
                        order = order._replace(deaths=order.deaths + 1)
                        news = _given_up(order) if order.deaths > RETRIES else None
                    elif need.get("GPU", 1) < 1 and lacked_memory(news) and not order.alone:
                        order, news = undone(order), None
                    if news is None:
                        alone = {**need, "GPU": 1.0} if order.alone else need
                        tasks[_submit(order, mark, alone)] = order
                    else:
                        yield order.cell, news
            finally:
                _cancel(tasks)

    def _need(self, device: str) -> dict[str, float]:
        """What Ray is to set aside for a cell.  Raises Refused where no node has it: the task would
        wait for ever."""
        need = {"CPU": float(self.limits.threads)}
        nodes = [node["Resources"] for node in _ray().nodes() if node["Alive"]]
        if device == "cuda":
            need["GPU"] = self.gpu_share or self._share(nodes)
        if not any(all(node.get(k, 0) >= n for k, n in need.items()) for node in nodes):
            asked = " and ".join(f"{number:g} {kind}" for kind, number in need.items())
            raise Refused(
                f"no node of the cluster at {self.address} has {asked}, which a cell needs; add "
                "one, or ask for fewer threads in the suite, or --device cpu"
            )
        return need

    def _share(self, nodes: Sequence[Mapping[str, float]]) -> float:
        """`--gpu-share auto`."""
        with_gpus = [node for node in nodes if node.get("GPU", 0) >= 1]
        room, threads = memory(visible(), visible()), self.limits.threads
        parts = [
            fitting(node.get("CPU", 0), node["GPU"], threads, room, self.peak) for node in with_gpus
        ]
        return share_of(min(parts, default=1))

    def __str__(self) -> str:
        return f"as tasks of the Ray cluster at {self.address}"


def _ray() -> Any:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as error:
        raise Refused(
            "--engine ray needs Ray: pip install -c constraints.txt -e '.[cluster]'"
        ) from error
    return ray


@contextlib.contextmanager
def _connected(address: str) -> Iterator[None]:
    """In a session that has called `ray.init` itself that connection is used and left as it is."""
    ray = _ray()
    if ray.is_initialized():
        yield
        return
    alone = {"include_dashboard": False} if address == "local" else {}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", **alone)
    except (ConnectionError, RuntimeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise Refused(
            f"no Ray cluster can be joined at {address} ({message}); this machine must be one of "
            "its nodes (`ray start`), and have RAY_AUTH_MODE=token set where the cluster has"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()  # ends a cluster that was started above, and with this driver its tasks


class Mark(NamedTuple):
    """By which a task knows that its node sees the driver's folder, and where it was started."""

    path: Path
    here: Path


@contextlib.contextmanager
def _marked(folder: Path) -> Iterator[Mark]:
    hold = Hold.take(folder, uuid.uuid4().hex)  # `sweep` knows whether its driver is alive
    assert hold is not None  # nobody else has the name
    try:
        yield Mark(hold.path, Path.cwd())
    finally:
        hold.release()


def _submit(order: Order, mark: Mark, need: Mapping[str, float]) -> Any:
    """The stream of what the task will say.  A death is ours to count: Ray retries nothing."""
    task = _ray().remote(_task)
    return task.options(
        num_cpus=need["CPU"],
        num_gpus=need.get("GPU", 0),
        max_retries=0,
        num_returns="streaming",
        name=order.cell.title,
    ).remote(order, mark)


def _next(tasks: Mapping[Any, Order]) -> tuple[Any, Event | Record | None]:
    """One of the streams and its news: progress, the record, or nothing more (None: dead).

    Raises Refused with a task's own sentence about its node."""
    ray = _ray()
    ready, _ = ray.wait(list(tasks), num_returns=1)
    stream, order = ready[0], tasks[ready[0]]
    try:
        return stream, ray.get(next(stream))
    except StopIteration:
        return stream, None
    except ray.exceptions.OutOfMemoryError:
        why = "its node ran out of memory and Ray killed its worker"
        return stream, _written(order, Status.OUT_OF_MEMORY, why)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Refused):
            raise Refused(str(error.cause)) from error
        why = " ".join(str(error.cause).split())
        raise Refused(
            f"the task of {order.cell.title} broke down ({why}); if something cannot be imported, "
            "install the same packages on every node"
        ) from error
    except (
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.LocalRayletDiedError,
        ray.exceptions.ObjectLostError,
    ):
        return stream, None


def _given_up(order: Order) -> Record:
    deaths = order.deaths
    return _written(order, Status.FAILED, f"its worker or node died {deaths} times")


def _written(order: Order, status: Status, reason: str) -> Record:
    """A record that no task could write."""
    cell, cost = order.cell, {"notes": [], "deaths": order.deaths}
    code = code_of(cell, order.code)
    record = Record(cell.spec, cell.labels, status, reason, cost=cost, code=code)
    write_record(order.folder, record)
    return record


def _cancel(tasks: Mapping[Any, Any]) -> None:
    ray = _ray()
    for stream in tasks:
        with contextlib.suppress(ray.exceptions.RayError):
            ray.cancel(stream, force=True)


# On the nodes.


def _task(order: Order, mark: Mark) -> Iterator[Event | Record]:
    """Progress, then the record."""
    if mark.here.is_dir():
        os.chdir(mark.here)  # plug-ins may be named from there
    _check(order, mark)
    # the child need not import again what Ray runs its workers with
    sys.modules["__main__"].__dict__.pop("__file__", None)
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if order.cell.device == "cuda" else ""
    supervisor = Supervisor(order, gpus)
    events: list[Event] = []
    try:
        while (record := supervisor.poll(events.append)) is None:
            while events:  # a loop, not `yield from`: Ray sends into what it runs
                yield events.pop(0)
            wait([supervisor])
    finally:
        supervisor.kill()
    yield record


def _check(order: Order, mark: Mark) -> None:
    """Raises Refused, naming this node, where it cannot do what the driver could."""
    node = os.uname().nodename
    end = time.monotonic() + PATIENCE
    while not mark.path.exists():
        if time.monotonic() > end:
            raise Refused(
                f"node {node} does not see the results folder {order.folder}; name one with --out "
                "that every node shares"
            )
        time.sleep(0.5)
    for name in (order.cell.target["name"], order.cell.sampler["name"]):
        file = split(name)
        if file is not None and not (mark.here / file.path).is_file():
            raise Refused(
                f"node {node} does not see the plug-in {mark.here / file.path}; keep it in a "
                "folder that every node shares"
            )
    here, there = code_of(order.cell, {})["syntax"], order.code["syntax"]
    if here != there:
        raise Refused(
            f"node {node} has other code of tiltbench (hash {here}, the driver has {there}); "
            "install the same version on every node"
        )
