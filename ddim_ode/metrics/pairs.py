"""How near an image is to another: one number a sample, float64 (B,).

PSNR = -10 log10 MSE
SSIM = (2 mx my + C1) (2 sxy + C2) / ((mx^2 + my^2 + C1) (sxx + syy + C2)), C = K^2    Wang et al. 2004, Eq. 13

both of images mapped from [-1, 1] to [0, 1], and the distance of features, in units of the distance between samples.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ddim_ode.metrics import checks
from ddim_ode.metrics.manifolds import squared_distances
from ddim_ode.metrics.spaces import Features, feature_space

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, (B,), of images (B, C, H, W), floats clipped to [-1, 1]; inf when equal.

    Raises MetricError for shapes that differ or are not of images, and values that are no floats or not finite.
    """
    x, y = checks.image_pair(x, y)
    return -10 * (x - y).square().flatten(1).mean(1).log10()


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity, (B,), at most 1, of images (B, C, H, W), floats clipped to [-1, 1].

    Wang et al. 2004, doi:10.1109/TIP.2003.819861: a Gaussian window of 11 x 11 and sigma 1.5, where it fits inside the
    image, K1 = 0.01, K2 = 0.03; the mean over the positions and the channels. In an image whose shorter side is below
    11 the window is cut to the largest odd size that fits; such values compare with each other only.
    Raises MetricError as `psnr` does.
    """
    x, y = checks.image_pair(x, y)
    batch, channels, height, width = x.shape
    size = min(WINDOW, (min(height, width) - 1) // 2 * 2 + 1)
    weights = torch.exp(-((torch.arange(size, dtype=torch.float64) - size // 2) ** 2) / (2 * SIGMA**2))
    weights /= weights.sum()

    def local(z: Tensor) -> Tensor:
        planes = z.reshape(batch * channels, 1, height, width)
        return F.conv2d(F.conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))

    mean_x, mean_y = local(x), local(y)
    variances = local(x * x) - mean_x * mean_x + (local(y * y) - mean_y * mean_y)
    covariance = local(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + K1**2) * (2 * covariance + K2**2)
    most = (mean_x * mean_x + mean_y * mean_y + K1**2) * (variances + K2**2)
    return (likeness / most).reshape(batch, -1).mean(1)


def consistency(x: Tensor, y: Tensor, features: Features) -> Tensor:
    """How far sample x_i is from the sample y_i of the same latent, (B,), in units of how far unrelated samples are:

        |f(x_i) - f(y_i)| / mean over j != l of |f(y_j) - f(y_l)|

    0 is the same high-level content; 1 is the mean of y_i against another y_j. The DDIM paper's claim (Song et al.
    2021, arXiv:2010.02502, section 5.2) is that it is small for samples of one latent at different numbers of steps.
    Features are float32: a distance of 1e-6 of their size is rounding.

    Args:
        x, y: (B, C, H, W), bytes or floats in [-1, 1], B >= 2; row by row of the same latents. y is the unit's source,
            so give the more accurate set as y.
        features: as in `feature_space`: a name, a callable or a space.

    Raises MetricError for shapes that differ, B < 2, the images `FeatureSpace` refuses, and when all f(y) are equal.
    """
    if checks.tensor("x", x).shape != checks.tensor("y", y).shape:
        raise checks.MetricError(f"x has shape {tuple(x.shape)} and y has {tuple(y.shape)}; pairs need one shape")
    if y.ndim == 0 or len(y) < 2:
        raise checks.TooFewError(f"y has shape {tuple(y.shape)}, expected at least 2 images to compare with each other")
    space = feature_space(features, x.shape[1:])
    found, other = space(x).double(), space(y).double()
    centred = other - other.mean(0)  # distances stay, and lose less to rounding
    total = sum(float(distances.sqrt().sum()) for _, distances in squared_distances(centred, centred))
    if total == 0:
        raise checks.MetricError(f"all y have the same {space.name!r} features, so no distance is large or small")
    return (found - other).norm(dim=1) * (len(y) * (len(y) - 1) / total)
