"""Arguments and options that several commands share, each declared once."""

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer


class Dtype(str, Enum):
    float32 = "float32"
    float64 = "float64"


class Device(str, Enum):
    cpu = "cpu"
    cuda = "cuda"
    auto = "auto"


MODEL = typer.Argument(
    metavar="MODEL",
    help="A bundled model's name, a folder (ours or of diffusers), or a checkpoint with its YAML file beside it.",
    show_default=False,
)
ConfigFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Configuration of a checkpoint, if that is not the YAML file beside it."),
]
NoEma = Annotated[
    bool, typer.Option("--no-ema", help="Take the last weights of a checkpoint that has averaged ones too.")
]
TOL_HELP = "Adaptive methods: error to accept, RMS over an image in [-1, 1]."

ModelName = Annotated[str, MODEL]
ModelChoice = Annotated[
    str | None, typer.Argument(metavar="MODEL", help="Show where each method steps on this model.", show_default=False)
]
PlannedNfe = Annotated[int, typer.Option("--nfe", help="Evaluations a sample, of a MODEL.")]
Images = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="IMAGES",
        help="Image files, or folders of them; without any, Fashion-MNIST test images that come with the package.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the earlier run in DIR.")]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace FILE.")]
Keep = Annotated[
    Path | None,
    typer.Option(
        "--keep",
        metavar="DIR",
        help="Measure a whole set of images: a folder, an .npz, samples, fashion-mnist. What is measured is kept in DIR"
        " shard by shard, so that a run that was cut short goes on, and several processes share the work.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Png = Annotated[bool, typer.Option("--images", help="Write every sample as a PNG too.")]

Count = Annotated[
    int | None,
    typer.Option("-n", metavar="N", help="How many: the first N.", show_default="all, or 16 of the package's"),
]
Resize = Annotated[bool, typer.Option("--resize", help="Crop, resize and convert images to what the model takes.")]
SeedsText = Annotated[
    str | None,
    typer.Option("--seeds", metavar="SEEDS", help="One an image: 0-15, or 0,5,9.", show_default="0, 1, ..."),
]
LabelsText = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="LABELS",
        help="Class of the images: 3, or one each: 3,5,5, or none: the null class.",
        show_default="none, or the images' own",
    ),
]

MethodName = Annotated[
    str,
    typer.Option(
        help="Solver; `ddim-ode methods` lists them. 'tuned' is the one beside the model, FILE.json one that was saved."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Let a tuned method run on another model or guidance than it was tuned to.")
]
Nfe = Annotated[int | None, typer.Option(help="Most evaluations a sample may cost, one way.", show_default="20")]
Tol = Annotated[float | None, typer.Option(help=TOL_HELP, show_default="0.01")]
MaxNfe = Annotated[
    int | None,
    typer.Option(help="Adaptive methods: evaluations after which one DDIM step must do.", show_default="1000"),
]
Guidance = Annotated[float, typer.Option(help="Scale of classifier-free guidance; other than 1 costs two evaluations.")]
GuidanceRange = Annotated[
    str | None, typer.Option(metavar="LOW:HIGH", help="Guide at these sigmas only.", show_default="all")
]
EtaScale = Annotated[
    str | None,
    typer.Option(
        "--eta",
        metavar="ETA",
        help="Scale of the noise on the way: 0 is DDIM, 1 is DDPM, 'ddpm_large' its other variance.",
        show_default="0; 1 for the sde methods",
    ),
]
EtaRange = Annotated[
    str | None, typer.Option(metavar="LOW:HIGH", help="Noise at these sigmas only.", show_default="all")
]
GridText = Annotated[
    str | None, typer.Option(help="Grid's name, or decreasing sigmas: 80,10,1,0.", show_default="the method's")
]
GridOrProfile = Annotated[
    str | None,
    typer.Option(
        help="Grid's name, or decreasing sigmas: 80,10,1,0, or the profile.safetensors of a run with 'auto'.",
        show_default="the method's",
    ),
]
GridUpText = Annotated[
    str | None, typer.Option(help="Grid's name, or decreasing sigmas > 0: 80,10,1.", show_default="the method's")
]
Augmentation = Annotated[
    str | None,
    typer.Option(
        metavar="LEVELS",
        help="Of a cascade: noise in the images that stages are told, 0 to 1; one for all, or one each: 0.1,0.2.",
        show_default="the cascade's own",
    ),
]
Precision = Annotated[Dtype, typer.Option("--dtype", help="Precision of the state and the network.")]
BatchSize = Annotated[int | None, typer.Option(help="Samples integrated at once.", show_default="128")]
Threads = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Of torch in each process.", show_default="all, or 1 with --keep"),
]
On = Annotated[Device, typer.Option("--device", help="Where the network runs; auto is a GPU if there is one.")]
Fast = Annotated[
    bool,
    typer.Option(
        "--fast", help="Compile the network, mostly in bfloat16: for long runs in which a percent does not matter."
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="One sample at a time, by torch's deterministic algorithms. Slow."),
]

HOW = {"as_json", "out", "overwrite"}  # how a command answers, not what


def arguments(context: typer.Context) -> dict[str, Any]:
    """The command line, defaults included, for a manifest."""

    def plain(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return str(value.resolve()) if isinstance(value, Path) else value

    return {name: plain(value) for name, value in context.params.items() if name not in HOW}


def given(context: typer.Context) -> dict[str, str]:
    """The arguments on the command line: parameter -> how the user writes it."""
    written = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = parameter.opts[0]
            written[name] = option if option.startswith("-") else name.upper()
    return written
