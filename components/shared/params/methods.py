"""The parameters of the methods of pretraining (`conf/method/`) and of the augmentation (`conf/views/`)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.shared.params.types import Count, Fraction, Positive, PositivePair, Section, SharePair


class AugmentationParams(Section):
    """Random changes made to each image on its own; see `models.augmentation.Augmentation`."""

    crop_area: SharePair = (0.2, 1.0)
    crop_ratio: PositivePair = (0.75, 4 / 3)
    flip: bool = True
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    jitter_probability: Fraction = 0.8
    grey_probability: Fraction = 0.0
    blur_probability: Fraction = 0.0
    blur_sigma: PositivePair = (0.1, 2.0)
    blur_kernel: Annotated[int, Field(ge=3)] | None = None
    crop: Literal["resized", "translated"] = "resized"
    rotation: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    affine_brightness: Fraction = 0.0
    affine_jitter: Fraction = 0.0

    @model_validator(mode="after")
    def _kernel_has_a_middle(self) -> AugmentationParams:
        if self.blur_kernel is not None and self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel = {self.blur_kernel}: must be odd, to have a pixel in its middle")
        return self

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> AugmentationParams:
        for name in ("crop_area", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} = [{low}, {high}]: the first number must not exceed the second")
        return self


class OptimizerParams(Section):
    """Optimiser of the pretraining; biases and normalisation are left out of the weight decay.

    `momentum`: of `sgd` and `lars`. `weight_decay`: of all but `adam`. `final_fraction`: of the learning rate,
    where the cosine ends.
    """

    name: Literal["adam", "adamw", "sgd", "lars"] = "adam"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_epochs: Annotated[int, Field(ge=0)] = 0
    final_fraction: Fraction = 0.0

    @model_validator(mode="after")
    def _adam_has_no_decay(self) -> OptimizerParams:
        if self.name == "adam" and self.weight_decay:
            raise ValueError(f"weight_decay = {self.weight_decay}: adam has none; set it to 0 or take adamw")
        return self


class HeadParams(Section):
    """A projection or prediction head: dense `layers` of `hidden` units, the last one `width` wide.

    `batch_norm`: after the hidden layers. `output_norm`: after the last one too, without learned scale and shift.
    `output_relu`: end with a ReLU.
    """

    hidden: Count = 128
    width: Count = 128
    layers: Annotated[int, Field(ge=1, le=8)] = 2
    batch_norm: bool = False
    output_norm: bool = False
    output_relu: bool = False


class MomentumParams(Section):
    """How slowly the momentum encoder follows: along half a cosine over the training."""

    start: Fraction = 0.99
    end: Fraction = 1.0


class MethodSection(Section):
    """What all methods have (`conf/method/`; the augmentation of the views is in `conf/views/`)."""

    projection: HeadParams = HeadParams()
    optimizer: OptimizerParams = OptimizerParams()
    augmentation: AugmentationParams = AugmentationParams()


class ContrastiveSection(MethodSection):
    """What methods with a contrastive softmax have; a learned temperature starts at `temperature`."""

    temperature: Positive = 0.1
    learnable_temperature: bool = False

    @model_validator(mode="after")
    def _learned_above_its_bound(self) -> ContrastiveSection:
        if self.learnable_temperature and self.temperature < 0.01:
            raise ValueError(f"temperature = {self.temperature}: must be ≥ 0.01 with learnable_temperature")
        return self


class PredictingSection(MethodSection):
    """What methods that predict the other view have; `symmetric`: both views predict, not the first alone."""

    prediction: HeadParams = HeadParams()
    symmetric: bool = True

    @model_validator(mode="after")
    def _prediction_fits(self) -> PredictingSection:
        _check_prediction(self.projection, self.prediction)
        return self


class SimCLRParams(ContrastiveSection):
    """SimCLR, Chen et al. 2020; `negatives`: all other views, or those of the other view only."""

    name: Literal["simclr"]
    negatives: Literal["all", "cross_view"] = "all"


class DCLParams(ContrastiveSection):
    """Decoupled contrastive learning, Yeh et al. 2021."""

    name: Literal["dcl"]


class NNCLRParams(ContrastiveSection):
    """NNCLR, Dwibedi et al. 2021; `straight_through`: a neighbour's gradient goes to the projection it replaces."""

    name: Literal["nnclr"]
    queue_size: Count = 4096
    prediction: HeadParams | None = HeadParams()
    symmetric: bool = True
    straight_through: bool = False

    @model_validator(mode="after")
    def _prediction_fits(self) -> NNCLRParams:
        if self.prediction is not None:
            _check_prediction(self.projection, self.prediction)
        return self


class MoCoParams(ContrastiveSection):
    """MoCo, He et al. 2019; version 2 uses `queue_size`, version 3 `prediction` and is `symmetric`."""

    name: Literal["moco"]
    version: Literal[2, 3] = 2
    momentum: MomentumParams = MomentumParams()
    queue_size: Count = 4096
    symmetric: bool = True
    prediction: HeadParams = HeadParams()

    @model_validator(mode="after")
    def _version_3_fits(self) -> MoCoParams:
        if self.version == 3:
            _check_prediction(self.projection, self.prediction)
            if not self.symmetric:
                raise ValueError("symmetric = false: both views ask in version 3; set it to true or take version 2")
        return self


class BYOLParams(PredictingSection):
    """BYOL, Grill et al. 2020."""

    name: Literal["byol"]
    momentum: MomentumParams = MomentumParams()


class SimSiamParams(PredictingSection):
    """SimSiam, Chen and He 2020."""

    name: Literal["simsiam"]


class BarlowTwinsParams(MethodSection):
    """Barlow Twins, Zbontar et al. 2021; `off_diagonal`: weight of the redundancy between dimensions."""

    name: Literal["barlow_twins"]
    off_diagonal: Annotated[float, Field(ge=0)] = 0.005


class VICRegParams(MethodSection):
    """VICReg, Bardes et al. 2021; weights of its three terms."""

    name: Literal["vicreg"]
    invariance: Annotated[float, Field(ge=0)] = 25.0
    variance: Annotated[float, Field(ge=0)] = 25.0
    covariance: Annotated[float, Field(ge=0)] = 1.0


class SwAVParams(MethodSection):
    """SwAV, Caron et al. 2020.

    `prototypes`: their number. `epsilon`, `iterations`: of the balanced assignment. `freeze_prototypes`: fraction
    of the training during which they are held still.
    """

    name: Literal["swav"]
    temperature: Positive = 0.1
    prototypes: Annotated[int, Field(ge=2)] = 128
    epsilon: Positive = 0.05
    iterations: Count = 3
    freeze_prototypes: Fraction = 0.01


class DINOParams(MethodSection):
    """DINO, Caron et al. 2021; `temperature` is the student's, `centre_momentum` that of the teacher's mean."""

    name: Literal["dino"]
    momentum: MomentumParams = MomentumParams()
    temperature: Positive = 0.1
    teacher_temperature: Positive = 0.04
    prototypes: Annotated[int, Field(ge=2)] = 128
    centring: Literal["mean", "sinkhorn"] = "mean"
    centre_momentum: Fraction = 0.9
    freeze_prototypes: Fraction = 0.01

    @model_validator(mode="after")
    def _teacher_is_sharper(self) -> DINOParams:
        if self.teacher_temperature > self.temperature:
            raise ValueError(
                f"teacher_temperature = {self.teacher_temperature}: must be ≤ temperature = {self.temperature}"
            )
        return self


class SupConParams(ContrastiveSection):
    """SupCon, Khosla et al. 2020.

    `unlabelled` images: `instance` lets their two views belong to each other alone, `leave_out` takes them out of
    the loss.
    """

    name: Literal["supcon"]
    views: Literal[1, 2] = 2
    unlabelled: Literal["instance", "leave_out"] = "instance"

    @model_validator(mode="after")
    def _one_view_has_no_other(self) -> SupConParams:
        if self.views == 1 and self.unlabelled == "instance":
            raise ValueError("unlabelled = instance needs views = 2; use leave_out with views = 1")
        return self


def _check_prediction(projection: HeadParams, prediction: HeadParams) -> None:
    if prediction.width != projection.width:
        raise ValueError(
            f"prediction.width = {prediction.width}: must equal projection.width = {projection.width}, "
            "which it predicts"
        )


# A new method adds its class to this union, told apart by `name`.
MethodParams = Annotated[
    SimCLRParams
    | DCLParams
    | NNCLRParams
    | MoCoParams
    | BYOLParams
    | SimSiamParams
    | BarlowTwinsParams
    | VICRegParams
    | SwAVParams
    | DINOParams
    | SupConParams,
    Field(discriminator="name"),
]
