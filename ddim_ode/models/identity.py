"""What tells a model from another."""

import hashlib
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from ddim_ode.errors import DDIMError
from ddim_ode.models.classifier import Classifier
from ddim_ode.models.denoiser import Denoiser, Model
from ddim_ode.models.guidance import Around
from ddim_ode.models.networks import offloaded_weight
from ddim_ode.paths import f64


def fingerprint(model: Model, dtype: torch.dtype | None = None) -> str:
    """A digest of what a model predicts with: its weights, path, shape and guidance; not the code of a function.

    A function, such as a loss, may tell itself from others by a text in an attribute `facts`.

    A compiled, a distributed or an offloaded network has the digest of the plain one; a fast one, which computes in
    another precision, has not.

    Args:
        dtype: the precision in which floating-point weights are read (default: their own), so that a network moved to a
            finer one has the digest that it had.
    """
    digest = hashlib.sha256()
    if isinstance(model, Around):
        facts = " ".join(str(_plain(fact, dtype)) for fact in model.facts)
        digest.update(f"{type(model).__name__.lower()} {facts} {fingerprint(model.model, dtype)}".encode())
        return digest.hexdigest()
    digest.update(repr((model.shape, model.num_classes, _rounded(model))).encode())
    if isinstance(model, Denoiser):
        digest.update(repr((model.predicts, model.quantize)).encode())
        _add_network(digest, model.net, dtype)
    return digest.hexdigest()


def _plain(fact: object, dtype: torch.dtype | None) -> object:
    """A fact of a guidance, as text says it; of a model or a network what tells it from another."""
    if callable(getattr(fact, "evaluations", None)):  # a model
        return fingerprint(cast(Model, fact), dtype)
    if isinstance(fact, Classifier):
        return fact.num_classes, _rounded(fact), _plain(fact.net, dtype)
    if not callable(fact):
        return fact
    digest = hashlib.sha256()
    _add_network(digest, fact, dtype)
    return digest.hexdigest()


def _rounded(model: Model | Classifier) -> list[str]:
    """Facts of a model's schedule, whose last bits may be another machine's."""
    path, sigmas = model.path, torch.logspace(-3, 5, 200, dtype=torch.float64)
    facts = [path.scale(f64(1.0)).item(), model.sigma_min, model.sigma_max, *path.u(sigmas).tolist()]
    return [f"{fact:.9e}" for fact in facts]


def _add_network(digest: Any, net: object, dtype: torch.dtype | None) -> None:
    """The weights of a network, or the facts that a function tells of itself, into a digest."""
    told = getattr(net, "facts", "")
    digest.update(told.encode() if isinstance(told, str) else b"")
    net = net if isinstance(net, nn.Module) else getattr(net, "without_prompts", None)
    for name, value in _weights(net) if isinstance(net, nn.Module) else ():
        if dtype is not None and value.is_floating_point():
            value = value.detach().to(dtype)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())


def _weights(net: nn.Module) -> list[tuple[str, Any]]:
    """The weights by their names, sorted: those that they have without what compiles or distributes a network."""
    around = [path for path, module in net.named_modules() if _only_around(module)]
    found = []
    for name, value in net.state_dict().items():
        if not isinstance(value, Tensor):  # of a module's own get_extra_state
            continue
        if value.is_meta:
            value = offloaded_weight(net, name)
            if value is None:
                raise DDIMError(
                    f"the weight {name} is on the meta device, and not known where else; load the weights of the model"
                )
        found.append((_bare(name, around), value))
    return sorted(found, key=lambda one: one[0])


def _only_around(module: nn.Module) -> bool:
    """Whether it is what torch.compile (whose class would take a second to import) or DataParallel makes of one."""
    return "_orig_mod" in module._modules or isinstance(module, DataParallel | DistributedDataParallel)


def _bare(name: str, around: list[str]) -> str:
    """A weight's name without the part that something around the network has put into it."""
    for path in reversed(around):  # the innermost first
        start = f"{path}." if path else ""
        if name.startswith(start):
            inner = name.removeprefix(start).partition(".")
            if inner[0] in ("_orig_mod", "module"):
                name = start + inner[2]
    return name
