"""Diffusion sampling as an ODE in the noise-to-signal ratio: one network, every solver, measured cost.

The public names are loaded when first used, so that `import ddim_ode` itself imports next to nothing: not torch, and
nothing that a command line would have to wait for before an interrupt is one line.
"""

TYPE_CHECKING = False  # of a type checker's, without the module `typing`
if TYPE_CHECKING:
    from typing import Any

    from ddim_ode import continuous, data, editing, grids, inverse, metrics, paths
    from ddim_ode.cascade import Cascade
    from ddim_ode.checkpoints import load
    from ddim_ode.editing import augment, sdedit, translate
    from ddim_ode.errors import DDIMError
    from ddim_ode.grids import GRIDS
    from ddim_ode.integrations.pipelines import from_pipeline
    from ddim_ode.interpolation import between, interpolate, slerp
    from ddim_ode.inverse import restore
    from ddim_ode.inversion import Reconstruction, decode, encode, reconstruct
    from ddim_ode.latents import Latent
    from ddim_ode.likelihood import Likelihood, log_likelihood
    from ddim_ode.models.analytic import GaussianMixture
    from ddim_ode.models.autoencoder import Autoencoder
    from ddim_ode.models.conditions import Conditions
    from ddim_ode.models.denoiser import Denoiser, Prediction
    from ddim_ode.models.guidance import (
        Guided,
        GuidedByClassifier,
        GuidedByLoss,
        GuidedByProjection,
        GuidedByWeaker,
    )
    from ddim_ode.models.plausibility import Probe, probe
    from ddim_ode.planning.options import SolveOptions
    from ddim_ode.planning.tuned_files import load_tuned, save_tuned
    from ddim_ode.sampling import sample
    from ddim_ode.shards import likelihood_shards, reconstruct_shards, sample_shards
    from ddim_ode.solvers import METHODS, Method, Solution, adams
    from ddim_ode.study import Study, compare, recommend
    from ddim_ode.tuning import tune

    __version__: str

__all__ = [
    "GRIDS",
    "METHODS",
    "Autoencoder",
    "Cascade",
    "Conditions",
    "DDIMError",
    "Denoiser",
    "GaussianMixture",
    "Guided",
    "GuidedByClassifier",
    "GuidedByLoss",
    "GuidedByProjection",
    "GuidedByWeaker",
    "Latent",
    "Likelihood",
    "Method",
    "Prediction",
    "Probe",
    "Reconstruction",
    "Solution",
    "SolveOptions",
    "Study",
    "adams",
    "augment",
    "between",
    "compare",
    "continuous",
    "data",
    "decode",
    "editing",
    "encode",
    "from_pipeline",
    "grids",
    "interpolate",
    "inverse",
    "likelihood_shards",
    "load",
    "load_tuned",
    "log_likelihood",
    "metrics",
    "paths",
    "probe",
    "recommend",
    "reconstruct",
    "reconstruct_shards",
    "restore",
    "sample",
    "sample_shards",
    "save_tuned",
    "sdedit",
    "slerp",
    "translate",
    "tune",
]

_HOME = {
    "GRIDS": "grids",
    "METHODS": "solvers",
    "Autoencoder": "models.autoencoder",
    "Cascade": "cascade",
    "Conditions": "models.conditions",
    "DDIMError": "errors",
    "Denoiser": "models.denoiser",
    "GaussianMixture": "models.analytic",
    "Guided": "models.guidance",
    "GuidedByClassifier": "models.guidance",
    "GuidedByLoss": "models.guidance",
    "GuidedByProjection": "models.guidance",
    "GuidedByWeaker": "models.guidance",
    "Latent": "latents",
    "Likelihood": "likelihood",
    "Method": "solvers",
    "Prediction": "models.denoiser",
    "Probe": "models.plausibility",
    "Reconstruction": "inversion",
    "Solution": "solvers",
    "SolveOptions": "planning.options",
    "Study": "study",
    "adams": "solvers",
    "augment": "editing",
    "between": "interpolation",
    "compare": "study",
    "decode": "inversion",
    "encode": "inversion",
    "from_pipeline": "integrations.pipelines",
    "interpolate": "interpolation",
    "likelihood_shards": "shards",
    "load": "checkpoints",
    "load_tuned": "planning.tuned_files",
    "log_likelihood": "likelihood",
    "probe": "models.plausibility",
    "recommend": "study",
    "reconstruct": "inversion",
    "reconstruct_shards": "shards",
    "restore": "inverse",
    "sample": "sampling",
    "sample_shards": "shards",
    "save_tuned": "planning.tuned_files",
    "sdedit": "editing",
    "slerp": "interpolation",
    "translate": "editing",
    "tune": "tuning",
}


def __getattr__(name: str) -> "Any":
    if name == "__version__":
        from importlib.metadata import version

        return version("ddim_ode")
    if name not in __all__:
        raise AttributeError(f"module 'ddim_ode' has no attribute {name!r}")
    from importlib import import_module

    if name not in _HOME:
        return import_module(f"ddim_ode.{name}")
    return getattr(import_module(f"ddim_ode.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
