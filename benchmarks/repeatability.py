"""What an exact latent becomes when the network is not asked in the same way again.

    python benchmarks/repeatability.py [MODEL] [--images 16] [--nfe 20] [--device cpu]

Encode in one setting, decode in another: other companions in the batch, another number of threads, alone on both ways.
A network may round differently then; the way back starts from the same integers and drifts from there.
"""

import argparse
from dataclasses import replace

import torch

import ddim_ode
from ddim_ode import data


def in_batches(latent: ddim_ode.Latent, size: int) -> ddim_ode.Latent:
    return replace(latent, options=replace(latent.options, batch_size=size))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="fashion")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--nfe", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    model = ddim_ode.load(arguments.model).to(arguments.device)
    images, labels = data.bundled_images()
    chosen = torch.linspace(0, len(images) - 1, arguments.images).long()
    images, labels = images[chosen], labels[chosen]
    x = data.to_float(images)
    print("| method | encoded | decoded | bit for bit | same bytes | largest error |\n|---|---|---|---|---|---|")
    for method in ("leapfrog", "exact_heun"):
        together = ddim_ode.encode(model, x, method, arguments.nfe, labels=labels, batch_size=len(x))
        alone = ddim_ode.encode(model, x, method, arguments.nfe, labels=labels, deterministic=True)
        threads = together.threads
        ways = {
            (f"batch {len(x)}", "the same"): together,
            (f"batch {len(x)} ", "batch 4"): in_batches(together, 4),
            (f"batch {len(x)}  ", "batch 1"): in_batches(together, 1),
            (f"{threads} threads", "1 thread"): replace(together, threads=1),
            ("deterministic", "a half, in another order"): alone[list(range(len(x) - 1, -1, -2))],
        }
        for (encoded, decoded), latent in ways.items():
            wanted = x if len(latent) == len(x) else x[list(range(len(x) - 1, -1, -2))]
            found = ddim_ode.decode(model, latent).x.cpu()
            same = (found == wanted).flatten(1).all(1)
            pixels = (data.to_uint8(found) == data.to_uint8(wanted)).flatten(1).all(1)
            print(
                f"| `{method}` | {encoded.strip()} | {decoded} | {int(same.sum())} of {len(latent)} |"
                f" {int(pixels.sum())} of {len(latent)} | {float((found - wanted).abs().max()):.1e} |"
            )


if __name__ == "__main__":
    main()
