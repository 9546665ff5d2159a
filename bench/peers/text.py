"""Text as users of Hugging Face's libraries work with it: `tokenizers`, `transformers`, and ONNX Runtime for embeddings."""

import os
import pathlib

import torch
from common import compiled, error, parameter_count


class Tokenize:
    """Line by line: encode a line, all lines in one call, or the same without places in the text."""

    def __init__(self, spec):
        import tokenizers
        folder = pathlib.Path(spec["path"])
        self.text = (folder / "wikitext.txt").read_bytes()
        lines = self.text.decode().split("\n")
        self.lines = lines[:-1] if lines[-1] == "" else lines
        place = folder / spec["tokenizer"]
        if place.suffix == ".txt":
            self.tokenizer = tokenizers.BertWordPieceTokenizer(str(place))
        else:
            self.tokenizer = tokenizers.Tokenizer.from_file(str(place))
        plain = getattr(self.tokenizer, "_tokenizer", self.tokenizer)
        self.encode = {"encode": lambda lines: [plain.encode(line, add_special_tokens=False) for line in lines],
                       "encode_batch": lambda lines: plain.encode_batch(lines, add_special_tokens=False),
                       "encode_batch_fast": lambda lines: plain.encode_batch_fast(lines, add_special_tokens=False),
                       }[spec["form"]]

    def run(self):
        return self.encode(self.lines)

    def describe(self):
        return {"amount": len(self.text) / 1e6}

    def compare(self, tensors):
        found = [line.ids for line in self.run()]
        ends = torch.tensor([len(line) for line in found]).cumsum(0)
        ids = torch.tensor([token for line in found for token in line])
        same = ends.equal(tensors["ends"]) and ids.equal(tensors["ids"].long())
        return {"lines and ids that differ": 0 if same else 1}


def masked_model(shape, form, dropout):
    from transformers import BertConfig, BertForMaskedLM
    config = BertConfig(vocab_size=shape["vocabulary"], hidden_size=shape["dim"], num_hidden_layers=shape["depth"],
                        num_attention_heads=shape["heads"], intermediate_size=shape["mlp_dim"], hidden_dropout_prob=dropout,
                        attention_probs_dropout_prob=dropout)
    config._attn_implementation = form
    return BertForMaskedLM(config).train()


class TrainingStep:
    """Gradients to none, forward and loss, backward, clipping, finite check, update; numbers to the host. Nothing is padding,
    so that there is no mask."""

    def __init__(self, spec):
        self.spec = spec
        shape = spec["shape"]
        self.model = masked_model(shape, spec["form"], 0.1)
        size = (shape["batch"], shape["length"])
        self.ids = torch.randint(shape["vocabulary"], size)
        self.labels = torch.randint(shape["vocabulary"], size).masked_fill(torch.rand(size) >= 0.15, -100)
        groups = [{"params": [p for p in self.model.parameters() if p.dim() > 1], "weight_decay": 0.01},
                  {"params": [p for p in self.model.parameters() if p.dim() < 2], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-4, fused=True)
        self.loss = compiled(lambda ids, labels: self.model(input_ids=ids, labels=labels).loss, spec)

    def run(self):
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.ids, self.labels)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        if not torch.stack([loss.detach(), norm]).isfinite().all():
            raise FloatingPointError("the loss or a gradient is not finite")
        self.optimizer.step()

    def describe(self):
        return {"parameters": parameter_count(self.model)}

    def compare(self, tensors):
        model = masked_model(self.spec["small"], self.spec["form"], 0.0)
        named = dict(model.named_parameters())
        with torch.no_grad():
            for name, parameter in named.items():
                parameter.copy_(tensors["model." + name])
        loss = model(input_ids=tensors["ids"], labels=tensors["targets"]).loss
        loss.backward()
        # keys' biases change no probability: their gradients are 0 but for rounding
        errors = [error(parameter.grad, tensors["grad." + name]) for name, parameter in named.items() if "key.bias" not in name]
        return {"loss": error(loss, tensors["loss"]), "gradients": max(errors)}


class Embed:
    """Sentences of several lengths, padded to the longest of their batch."""

    def __init__(self, spec):
        self.batch = spec["batch"]
        self.lengths = torch.tensor(spec["lengths"])
        self.ids = torch.randint(1000, 30000, (len(self.lengths), int(self.lengths.max())))
        self.open(spec)

    def run(self):
        return torch.cat([self.embed(i) for i in range(0, len(self.lengths), self.batch)])

    def padded(self, first):
        lengths = self.lengths[first : first + self.batch]
        ids = self.ids[first : first + self.batch, : int(lengths.max())]
        return ids, (torch.arange(ids.size(1)) < lengths[:, None]).long()

    def embed(self, first):
        ids, mask = self.padded(first)
        hidden = self.hidden(ids, mask)
        wide = mask[:, :, None].to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * wide).sum(1) / wide.sum(1))

    def describe(self):
        return {"amount": len(self.lengths)}

    def compare(self, tensors):
        self.ids, self.lengths = tensors["ids"], tensors["lengths"]
        return {"embeddings": error(self.run(), tensors["embeddings"])} | self.compare_hidden(tensors)

    def compare_hidden(self, tensors):
        return {}


class Transformers(Embed):
    def open(self, spec):
        from transformers import BertModel
        self.model = BertModel.from_pretrained(spec["path"], attn_implementation=spec["form"]).eval()

    @torch.inference_mode()
    def embed(self, first):
        return super().embed(first)

    def hidden(self, ids, mask):
        return self.model(input_ids=ids, attention_mask=mask).last_hidden_state

    @torch.inference_mode()
    def compare_hidden(self, tensors):
        largest = 0.0
        starts = range(0, len(self.lengths), self.batch)
        padded = [self.padded(first) for first in starts]
        outputs = [self.model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states for ids, mask in padded]
        for layer in range(len(outputs[0])):
            found = torch.cat([states[layer][mask.bool()] for states, (_, mask) in zip(outputs, padded)])
            largest = max(largest, error(found, tensors[f"hidden.{layer}"]))
        return {"hidden states": largest}


class OnnxRuntime(Embed):
    def open(self, spec):
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(os.path.join(spec["path"], spec["form"] + ".onnx"), options,
                                                    providers=["CPUExecutionProvider"])

    def hidden(self, ids, mask):
        return torch.from_numpy(self.session.run(["hidden"], {"ids": ids.numpy(), "mask": mask.numpy()})[0])


class Sample:
    """generate() with its cache, greedy; nothing ends the text early."""

    def __init__(self, spec):
        from transformers import GPT2Config, GPT2LMHeadModel
        self.tokens = spec["tokens"]
        config = GPT2Config(bos_token_id=None, eos_token_id=None)
        config._attn_implementation = spec["form"]
        self.model = GPT2LMHeadModel(config).eval()
        if spec.get("bf16"):
            self.model = self.model.to(torch.bfloat16)
        self.model.generation_config.pad_token_id = 0
        self.prompt = torch.randint(config.vocab_size, (1, spec["prompt"]))
        if spec.get("compile"):
            self.model.forward = torch.compile(self.model.forward)
        self.cache = {"cache_implementation": "static"} if spec.get("compile") else {}

    @torch.inference_mode()
    def run(self):
        ids = self.model.generate(self.prompt, attention_mask=torch.ones_like(self.prompt), max_new_tokens=self.tokens,
                                  min_new_tokens=self.tokens, do_sample=False, use_cache=True, **self.cache)
        return ids[0, self.prompt.size(1) :]

    def describe(self):
        return {"parameters": parameter_count(self.model), "amount": self.tokens}

    def compare(self, tensors):
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(tensors["model." + name])
        self.prompt = tensors["prompt"][None]
        found, wanted = self.run(), tensors["answer"]
        return {"tokens that differ": 0 if found.equal(wanted) else 1}


def make(spec):
    if spec["mode"] == "embed":
        return OnnxRuntime(spec) if spec["form"] in ("model", "fused") else Transformers(spec)
    return {"tokenize": Tokenize, "train": TrainingStep, "sample": Sample}[spec["mode"]](spec)
