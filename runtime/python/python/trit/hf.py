"""The quantizer "trit" of transformers: `from_pretrained` packs ternary layers, `save_pretrained` writes them packed.

Importing this module registers it, and so does the first use of `trit.TritConfig`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from .nn import BitLinear  # First, because it says what to install where torch is missing.

# isort: split
import torch

try:
    from transformers.quantizers.auto import AutoHfQuantizer, register_quantization_config, register_quantizer
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin
except ImportError as error:
    raise ImportError(
        'trit.TritConfig needs transformers 4.57 or later: pip install "trit[torch]"'
    ) from error

from . import replace

__all__ = ["TritConfig", "TritHfQuantizer"]

_VERSION = 1
"""Of what config.json says of layers."""


@register_quantization_config("trit")
class TritConfig(QuantizationConfigMixin):
    """How `from_pretrained` packs a model's ternary layers.

    skip and latent are as for `trit.accelerate`. layers, in a packed checkpoint, says for each layer how it computes:
    {"rule": ..., "scales": "matrix" | "rows" | "groups", "group_size": ..., "rms_norm_eps": ...}. A checkpoint that
    transformers loads as "bitnet" is packed as what it says it is.
    """

    def __init__(
        self,
        skip: list[str] | None = None,
        latent: bool = False,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        version: int = _VERSION,
        **kwargs: Any,
    ) -> None:
        self.quant_method: Any = "trit"
        self.skip = list(skip or [])
        self.latent = bool(latent)
        self.layers = {name: dict(layer) for name, layer in (layers or {}).items()}
        self.version = version
        self._source: Any = None
        if version != _VERSION:
            raise ValueError(
                f"config.json says version {version} of packed layers, and this trit reads {_VERSION}: update trit"
            )
        unknown = sorted(set(kwargs) - {"quant_method"})
        if unknown:
            raise ValueError(f"TritConfig has no option {', '.join(unknown)}")

    def to_dict(self) -> dict[str, Any]:
        """What config.json says."""
        return {
            "quant_method": "trit",
            "version": self.version,
            "skip": list(self.skip),
            "latent": self.latent,
            "layers": copy.deepcopy(self.layers),
        }

    def to_diff_dict(self) -> dict[str, Any]:
        """As `to_dict`."""
        return self.to_dict()

    def __repr__(self) -> str:
        layers = f", {len(self.layers)} packed layers" if self.layers else ""
        return f"TritConfig(skip={self.skip}, latent={self.latent}{layers})"


@register_quantizer("trit")
class TritHfQuantizer(HfQuantizer):  # type: ignore[misc,unused-ignore]
    """Packs ternary layers after their weights are loaded, or makes empty layers for packed weights before."""

    requires_calibration = False
    quantization_config: TritConfig

    def __init__(self, quantization_config: TritConfig, **kwargs: Any) -> None:
        super().__init__(quantization_config, **kwargs)
        # A checkpoint that is loaded as "bitnet" first. What loads it is asked for all that concerns loading.
        source = quantization_config._source
        self._loader: Any = (
            AutoHfQuantizer.from_config(source, pre_quantized=True) if source is not None else None
        )
        self._packed = bool(quantization_config.layers)

    def validate_environment(self, *args: Any, **kwargs: Any) -> None:
        device_map = kwargs.get("device_map")
        devices = set(device_map.values()) if isinstance(device_map, dict) else {device_map}
        away = {str(device) for device in devices} - {"None", "auto", "cpu"}
        if away:
            raise ValueError(
                f"device_map names {', '.join(sorted(away))}: trit computes on the CPU, pass device_map=None"
            )

    def update_device_map(self, device_map: Any) -> Any:
        return {"": "cpu"} if device_map == "auto" else device_map

    def _process_model_before_weight_loading(self, model: Any, **kwargs: Any) -> None:
        if self._packed:
            for name, layer in self.quantization_config.layers.items():
                replace.put(model, name, _empty(model, name, layer))
        elif self._loader is not None:
            self._loader._process_model_before_weight_loading(model, **kwargs)

    def _process_model_after_weight_loading(self, model: Any, **kwargs: Any) -> Any:
        config = self.quantization_config
        model.eval()
        if self._packed:
            # Weights that are read from a file are packed for this CPU now, so that damaged ones are found here.
            for module in model.modules():
                if isinstance(module, BitLinear):
                    module._matrix()
        else:
            replace.accelerate(model, skip=config.skip, latent=config.latent)
        return model

    def get_load_operations(self) -> Any:
        return self._loader.get_load_operations() if self._loader is not None else {}

    def get_weight_conversions(self) -> Any:
        return self._loader.get_weight_conversions() if self._loader is not None else []

    def is_serializable(self, safe_serialization: bool | None = None) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return False


def attach(model: Any) -> None:
    """Says in a model's configuration which layers are packed, so that `save_pretrained` and `from_pretrained` fit."""
    layers = {}
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            layers[name] = _describe(module)
    given = getattr(model.config, "quantization_config", None)
    config = TritConfig(layers=layers)
    if isinstance(given, TritConfig):
        config.skip, config.latent = given.skip, given.latent
    model.config.quantization_config = config
    model.hf_quantizer = TritHfQuantizer(config)
    model.is_quantized = True
    model.quantization_method = config.quant_method
    # What turned a checkpoint's weights into those of "bitnet" must not be turned back.
    if hasattr(model, "_weight_conversions"):
        model._weight_conversions = []


def _describe(module: BitLinear) -> dict[str, Any]:
    layer: dict[str, Any] = {
        "rule": module.rule,
        "scales": ("matrix", "rows", "groups")[module.scales.ndim],
    }
    if module.group_size is not None:
        layer["group_size"] = module.group_size
    if module.rms_norm is not None:
        norm: Any = module.rms_norm
        layer["rms_norm_eps"] = float(norm.variance_epsilon)
    return layer


def _empty(model: Any, name: str, layer: Mapping[str, Any]) -> BitLinear:
    """A layer in place of the one with this name, for weights to come."""
    try:
        old = model.get_submodule(name)
        k, n, bias = old.in_features, old.out_features, old.bias is not None
    except AttributeError as error:
        raise ValueError(
            f"config.json says that {name} is packed, and the model has no such linear layer"
        ) from error
    norm = None
    with torch.device("meta"):
        if "rms_norm_eps" in layer:
            from transformers.models.llama.modeling_llama import LlamaRMSNorm

            norm = LlamaRMSNorm(k, eps=layer["rms_norm_eps"])
        new = BitLinear(
            k,
            n,
            bias,
            rule=layer["rule"],
            scales=layer["scales"],
            group_size=layer.get("group_size"),
            rms_norm=norm,
            dtype=old.weight.dtype,
        )
    return new


_merge_quantization_configs = AutoHfQuantizer.merge_quantization_configs


def _merge_with_bitnet(quantization_config: Any, quantization_config_from_args: Any) -> Any:
    """As transformers merges what config.json and the caller say; but TritConfig packs what is loaded as "bitnet".

    transformers refuses two methods, because it knows none that takes up what another one loaded.
    """
    passed = quantization_config_from_args
    if isinstance(passed, TritConfig):
        given = quantization_config
        if not isinstance(given, dict):
            given = given.to_dict()
        if given.get("quant_method") == "bitnet":
            merged = TritConfig(skip=passed.skip, latent=passed.latent)
            merged._source = given
            return merged
    return _merge_quantization_configs(quantization_config, passed)


AutoHfQuantizer.merge_quantization_configs = staticmethod(_merge_with_bitnet)  # type: ignore[method-assign]
