"""Distilled models as a diffusers pipeline (extra `diffusers`).

pipe = DDPipeline.from_pretrained("folder or org/repo")     # what `dd-cli export` wrote
pipe = DDPipeline.from_dd("llamagen-fashion")               # an experiment, or a student of the zoo
images = pipe(class_labels=["sneaker"], num_inference_steps=2, generator=torch.manual_seed(0)).images
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from diffusers import ConfigMixin, DiffusionPipeline, ImagePipelineOutput, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.utils.torch_utils import randn_tensor
from huggingface_hub import snapshot_download
from torch import Tensor

from dd.api import Model, load
from dd.checkpoints.exported import COMPONENTS, INDEX, WEIGHTS, Settings, sizes_of
from dd.errors import DDError
from dd.models.base import Condition, Groups, StudentOutput
from dd.models.precision import store_in
from dd.models.registry import build_student, build_tokenizer
from dd.sampling.samplers import sample

HALVES = (torch.bfloat16, torch.float16)


class _Component(ModelMixin, ConfigMixin):
    """One of our networks with diffusers' way of loading and saving."""

    network: Any

    @classmethod
    def holding(cls, network: torch.nn.Module, family: str, sizes: dict[str, Any]) -> Any:
        """A component around a network that is there already."""
        with torch.device("meta"):
            made = cls(family, sizes)
        made.network = network
        return made


class StudentModel(_Component):
    """The student. In half precision only its blocks' matrices are, and it runs under autocast; the rest is float32."""

    @register_to_config
    def __init__(self, family: str, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.network = build_student(family, sizes)
        self.half_precision: torch.dtype | None = None

    @property
    def groups(self) -> Groups:
        """Sizes of the groups, as the teacher draws them."""
        return self.network.groups

    @property
    def causal(self) -> bool:
        """Whether it can draw the first groups alone."""
        return self.network.causal

    def forward(self, x: Tensor, finished: Tensor, condition: Condition) -> StudentOutput:
        """As `dd.models.base.Student.forward`."""
        with torch.autocast(x.device.type, self.half_precision, enabled=self.half_precision is not None):
            return self.network(x, finished, condition)

    def to(self, *args: Any, **kwargs: Any) -> StudentModel:
        """Another device or precision; see the class."""
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is not None:
            super().to(device)
        if dtype in HALVES:
            store_in(self.network, dtype)
            self.half_precision = dtype
        elif dtype is not None:
            super().to(dtype)
            self.half_precision = None
        return self

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> StudentModel:
        """As diffusers' own; the precision is set after loading, by `to`."""
        given = [kwargs.pop(name, None) for name in ("dtype", "torch_dtype")]
        dtype = next((one for one in given if one is not None), None)
        model = super().from_pretrained(*args, **kwargs)
        return model if dtype is None else model.to(dtype)


class TokenizerModel(_Component):
    """The tokenizer: a codebook, and code vectors to images. It stays in float32, as everywhere in this project."""

    @register_to_config
    def __init__(self, family: str, sizes: dict[str, Any]) -> None:
        super().__init__()
        self.network = build_tokenizer(family, sizes)

    @property
    def codebook(self) -> Tensor:
        """(V, C) float32."""
        return self.network.codebook

    def forward(self, codes: Tensor) -> Tensor:
        """Code vectors (B, L, C) to images (B, 3, H, W) in about [-1, 1]."""
        return self.network.decode(codes)

    def to(self, *args: Any, **kwargs: Any) -> TokenizerModel:
        """Another device; the precision stays."""
        device, *_ = torch._C._nn._parse_to(*args, **kwargs)
        return self if device is None else super().to(device)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> TokenizerModel:
        """As diffusers' own, in float32."""
        return super().from_pretrained(*args, **{k: v for k, v in kwargs.items() if k not in ("dtype", "torch_dtype")})


class DDPipeline(DiffusionPipeline):
    """Images in one or two evaluations of a distilled student.

    The student is `transformer`, the tokenizer `vqvae`; `latents` are noise or code vectors (B, L, C). Guidance and
    filters are the teacher's, distilled into the student: there is no guidance_scale.
    """

    model_cpu_offload_seq = "transformer->vqvae"
    _callback_tensor_inputs = ("latents",)

    def __init__(
        self, transformer: StudentModel, vqvae: TokenizerModel, settings: dict[str, Any] | None = None
    ) -> None:
        super().__init__()
        if settings is None:  # diffusers restores only arguments that have a default
            raise DDError("DDPipeline: expected settings; use from_pretrained, from_dd or from_model")
        self.register_modules(transformer=transformer, vqvae=vqvae)
        lists = {name: list(value) for name, value in settings.items() if isinstance(value, tuple)}
        self.register_to_config(settings={**settings, **lists, "teacher_weights": False})

    @classmethod
    def from_dd(cls, name: str, device: str | torch.device = "cpu") -> DDPipeline:
        """A pipeline from an experiment of params.yaml, a student of the zoo, an exported folder or repository."""
        return cls.from_model(load(name, device))

    @classmethod
    def from_model(cls, model: Model) -> DDPipeline:
        """A pipeline around what `dd.load` gave."""
        exported = model.exported()
        settings, tokenizer = exported.settings, exported.teacher.tokenizer
        student = StudentModel.holding(exported.student, settings.family, exported.sizes)
        return cls(student, TokenizerModel.holding(tokenizer, settings.family, sizes_of(tokenizer)), asdict(settings))

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """The repository's files in the hub's cache (diffusers' own way refuses components of other packages)."""
        taken = ("cache_dir", "force_download", "local_files_only", "revision", "token")
        given = {name: kwargs[name] for name in taken if name in kwargs}
        wanted = [INDEX, *(f"{part}/{name}" for part in COMPONENTS for name in ("config.json", WEIGHTS))]
        return snapshot_download(pretrained_model_name, allow_patterns=wanted, **given)

    @property
    def settings(self) -> Settings:
        """What the folder says of the model."""
        return Settings.of(self.config["settings"])

    @property
    def labels(self) -> dict[str, int]:
        """Class indices by name."""
        return {name: index for index, name in enumerate(self.settings.classes)}

    def get_label_ids(self, label: str | Sequence[str]) -> list[int]:
        """Class indices of names. Raises DDError, a ValueError, for unknown ones."""
        return [self._label(one) for one in ([label] if isinstance(label, str) else label)]

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | Sequence[int | str] | None = None,
        prompt: str | Sequence[str] | None = None,
        num_inference_steps: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        noise_scale: float = 1.0,
        num_images_per_prompt: int = 1,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[Any, int, int, dict[str, Any]], dict[str, Any] | None] | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
    ) -> ImagePipelineOutput | tuple[Any]:
        """Draw one image (or `num_images_per_prompt`) of each class label or prompt.

        class_labels: indices or names. prompt: for text-to-image models. num_inference_steps: evaluations of the
        student, at most its trajectory points. generator: one, or one an image. latents: the noise (B, L, C) itself.
        noise_scale: standard deviation of the noise. output_type: pil, np (B, H, W, 3 in [0, 1]), pt (B, 3, H, W) or
        latent (code vectors). callback_on_step_end: called after each evaluation with (pipeline, index, finished
        groups, tensors); what it returns replaces them. Raises DDError for what the model cannot draw.
        """
        points = self._points(num_inference_steps)
        self._check(output_type, num_images_per_prompt, callback_on_step_end_tensor_inputs)
        condition, batch = self._condition(class_labels, prompt, num_images_per_prompt)
        noise = noise_scale * self._noise(batch, generator, latents)
        split, codebook = self.settings.split, self.vqvae.codebook.to(noise.device)
        codes: Any = None
        with self.progress_bar(total=len(points)) as bar:
            for index, point in enumerate(points):
                steps = (0, point) if index else (0,)
                last = point == points[-1] or callback_on_step_end is not None  # a callback sees whole images
                until = None if last else points[index + 1]
                codes = sample(self.transformer, codebook, noise, condition, steps, split, codes, until)
                if callback_on_step_end is not None:
                    given = dict.fromkeys(callback_on_step_end_tensor_inputs, codes)
                    codes = (callback_on_step_end(self, index, point, given) or {}).pop("latents", codes)
                bar.update()
        images = codes if output_type == "latent" else self._images(codes, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _points(self, steps: int) -> list[int]:
        known = sorted(self.settings.timesteps)
        if not 1 <= steps <= len(known):
            raise DDError(
                f"num_inference_steps: expected 1..{len(known)} (this student was trained from the points "
                f"{', '.join(map(str, known))}), got {steps}"
            )
        return known[:steps]

    def _check(self, output_type: str, copies: int, tensors: Sequence[str]) -> None:
        if output_type not in ("pil", "np", "pt", "latent"):
            raise DDError(f"output_type: expected pil, np, pt or latent, got {output_type!r}")
        if copies < 1:
            raise DDError(f"num_images_per_prompt: expected at least 1, got {copies}")
        if unknown := [name for name in tensors if name not in self._callback_tensor_inputs]:
            raise DDError(f"callback_on_step_end_tensor_inputs: expected only latents, got {', '.join(unknown)}")

    def _condition(self, labels: Any, prompt: Any, copies: int) -> tuple[Condition, int]:
        """The condition of every image, and their number."""
        encoder = self.settings.text_encoder
        wanted, other, name = (labels, prompt, "class_labels") if encoder is None else (prompt, labels, "prompt")
        if wanted is None or other is not None:
            raise DDError(f"this model draws from {name}: give {name} alone")
        single = isinstance(wanted, str | int)
        items = [wanted] if single else wanted.tolist() if isinstance(wanted, Tensor) else list(wanted)
        if not items:
            raise DDError(f"{name}: expected at least one, got none")
        rows = torch.arange(len(items)).repeat_interleave(copies)
        if encoder is None:
            known = torch.tensor([self._label(one) for one in items])
            return known[rows].to(self._execution_device), len(rows)
        return self._encoded(encoder, items)[rows].to(self._execution_device), len(rows)

    def _label(self, label: int | str) -> int:
        classes = self.settings.classes
        if isinstance(label, str):
            if label not in self.labels:
                raise DDError(f"no class {label!r}; there are {', '.join(classes[:12])}")
            return self.labels[label]
        if not 0 <= label < len(classes):
            raise DDError(f"class_labels: expected indices in 0..{len(classes) - 1}, got {label}")
        return label

    def _encoded(self, encoder: str, prompts: list[str]) -> Any:
        from dd.text.encoders import open_encoder

        config = self.transformer.network.options
        opened = open_encoder(encoder, config.caption_dim, self._execution_device)
        return opened.encode(prompts, config.cls_token_num)

    def _noise(self, batch: int, generator: Any, latents: Tensor | None) -> Tensor:
        shape = (batch, self.transformer.groups.length, self.vqvae.codebook.shape[1])
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=torch.float32)
        if latents.shape != shape:
            raise DDError(f"latents: expected noise {shape}, got {tuple(latents.shape)}")
        return latents.to(self._execution_device, torch.float32)

    def _images(self, codes: Tensor, output_type: str) -> Any:
        images = (self.vqvae(codes) / 2 + 0.5).clamp(0, 1)
        if output_type == "pt":
            return images
        array = images.permute(0, 2, 3, 1).cpu().numpy()
        return array if output_type == "np" else self.numpy_to_pil(array)
