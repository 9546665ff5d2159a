"""All that bench/run.sh can measure: ours, the peers in their set-ups, and the aims."""

import random
from dataclasses import dataclass, field, replace

from harness import machine

ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


@dataclass
class Candidate:
    """One way to do the work: a worker's spec and its environment. The label tells it from the others of its row."""

    label: str
    spec: dict
    environment: dict = field(default_factory=dict)
    program: str = "python"  # or the name of one of our own programs


@dataclass
class Peer:
    """A row of the table: the fastest of its candidates."""

    name: str
    candidates: list
    aim: float | None = None
    rival: bool = True  # what a user would pick instead, so it can be the best peer; else a bound of our own
    waits: bool = False  # ours, but every message is waited for at once: shows what of the communication ours hides
    hidden_aim: float | None = None  # for that share


@dataclass
class Work:
    name: str
    program: str
    spec: dict
    peers: list
    optional: bool = False  # ours may not be able to do it (yet): left out without fuss
    roof: str | None = None  # "gemm" or "copy"
    roof_aim: float | None = None
    unit: str = "s"
    check: list = field(default_factory=list)  # candidates that must compute the same
    tolerance: float = 1e-3
    usual: bool = True  # measured where no name is given
    takes_recipe: bool = False  # peers are built from the recipe that ours resolves
    material: str | None = None  # files that are made once: a key of MATERIAL in bench/run.py
    uses_pip: bool = False  # cannot be measured without the packages of bench/peers/requirements.txt
    memory_aim: float | None = None  # of our peak memory, as a share of the peer's
    environment: dict = field(default_factory=dict)  # of ours
    rounds: int | None = None  # at most so many need be taken, where each takes long
    large: bool = False  # contenders need so much memory that one is tried at a time and only the fastest kept


def set_ups(peer, spec, forms=(None,), compiled_forms=None, frozen=False):
    """The three rows of a peer (four with frozen weights): each the fastest of `forms`."""

    def candidates(environment, forms, **extra):
        return [Candidate(form or "", {"peer": peer, **spec, **extra, **({"form": form} if form else {})}, environment)
                for form in forms]

    compiled_forms = forms if compiled_forms is None else compiled_forms
    rows = {
        "eager": candidates({}, forms),
        "eager, allocator": candidates(ALLOCATOR, forms),
        "compile": candidates(ALLOCATOR, compiled_forms, compile=True),
    }
    if frozen:
        environment = {**ALLOCATOR, "TORCHINDUCTOR_FREEZING": "1"}
        rows["compile, frozen"] = candidates(environment, compiled_forms, compile=True)
    return rows


def joined(rows):
    """All candidates of several rows, as those of one."""
    return [Candidate(", ".join(filter(None, [c.label, name])), c.spec, c.environment)
            for name, row in rows.items() for c in row]


INDEX_FORMS = ("slices", "bmm", "grouped")
# torch.compile: the grouped product goes in bf16 only, and slices are compiled anew for each division of the rows
COMPILED_FORMS = ("bmm",)


def training(name, recipe, aims, roof_aim=None, forms=(None,), compiled_forms=None):
    spec = {"mode": "train"}
    rows = set_ups("model", spec, forms, compiled_forms)
    return Work(name, "model", {**spec, "recipe": f"bench/recipes/{recipe}.toml"},
                [Peer(row, candidates, aims.get(row, aims["best"])) for row, candidates in rows.items()],
                roof="gemm", roof_aim=roof_aim, check=rows["eager"], takes_recipe=True)


def ours(recipe, *settings):
    return {"mode": "train", "recipe": f"bench/recipes/{recipe}.toml", "set": list(settings)}


def bf16_training(name, recipe, *settings, forms=(None,), compiled_forms=None):
    """In bf16, beside PyTorch's autocast and beside ourselves in fp32."""
    rows = set_ups("model", {"mode": "train", "autocast": True}, forms, compiled_forms)
    peers = [Peer(row, candidates) for row, candidates in rows.items()]
    peers.append(Peer("ours in fp32", [Candidate("", ours(recipe, *settings), program="model")], rival=False))
    return Work(name, "model", ours(recipe, 'runtime.precision="bf16"', *settings), peers, check=rows["eager"], tolerance=0.05,
                usual=machine.multiplies_bf16(), takes_recipe=True)


def recomputing(name, recipe):
    """The price of running layers again in the backward pass, beside the memory that it saves."""
    kept = Candidate("", ours(recipe), program="model")
    return Work(name, "model", ours(recipe, "model.recompute=true"), [Peer("all activations kept", [kept])])


def latency(name, recipe, aim, forms=(None,), compiled_forms=None):
    spec = {"mode": "infer"}
    rows = set_ups("model", spec, forms, compiled_forms, frozen=True)
    ours = {**spec, "recipe": f"recipes/wide_net/{recipe}.toml", "set": LATENCY}
    return Work(name, "model", ours, [Peer(row, candidates, aim) for row, candidates in rows.items()],
                roof="gemm", check=rows["eager"], takes_recipe=True)


LATENCY = ['model.preset="paper"', "train.batch_size=1", "train.micro_batch_size=0", 'runtime.precision="fp32"',
           'runtime.device="cpu"', 'data.format="synthetic"']

def int8_latency():
    """WideNet-B with int8 experts, against our ViT-B in fp32."""
    ours = {"mode": "infer", "int8": True, "recipe": "recipes/wide_net/widenet_b.toml", "set": LATENCY}
    vit = {"mode": "infer", "recipe": "recipes/wide_net/vit_b16.toml", "set": LATENCY}
    return Work("widenet_b_int8_latency", "model", ours,
                [Peer("our ViT-B, fp32", [Candidate("", vit, program="model")], 1.0)], optional=True)


def mixture(dim, experts, k, tokens):
    spec = {"dim": dim, "experts": experts, "k": k, "tokens": tokens}
    index_aim = 1.5 if experts >= 16 or tokens <= 1568 else 1.15
    einsum = joined(set_ups("mixture", {**spec, "form": "einsum"}))
    index = joined(set_ups("mixture", spec, INDEX_FORMS, COMPILED_FORMS))
    products = Candidate("", {**spec, "form": "products"}, program="mixture")
    usual = k == 2 and (dim, experts) in ((192, 4), (192, 32), (384, 8), (768, 4), (768, 16))
    return Work(f"mixture_d{dim}_e{experts}_k{k}_t{tokens}", "mixture", spec,
                [Peer("one-hot einsum", einsum, 10.0 if tokens >= 6304 else index_aim),
                 Peer("index-based", index, index_aim),
                 Peer("its products alone", [products], 0.8, rival=False)],
                roof="gemm", usual=usual,
                check=[Candidate(form, {"peer": "mixture", **spec, "form": form}) for form in ("einsum", *INDEX_FORMS)])


def attention(name, **extra):
    """Attention within one process, the part that a ring of processes repeats for each block of keys."""
    spec = {"tokens": 2048, "heads": 8, "head_dim": 64, "train": False, **extra}
    forms = ("fused", "heads")
    rows = set_ups("attention", spec, forms)
    return Work(name, "attention", spec, [Peer("scaled_dot_product_attention", joined(rows), 1.2)], roof="gemm",
                check=rows["eager"], tolerance=1e-5)


ONE_THREAD_EACH = {"OMP_NUM_THREADS": "1"}


def ring(tokens, causal):
    """Attention of a sequence split over two processes of a thread each, zigzag order, forward and backward."""
    shape = {"tokens": tokens, "heads": 8, "head_dim": 64, "causal": causal}
    spec = {**shape, "ranks": 2, "order": "zigzag", "method": "ring"}
    public = [Candidate(label, {"peer": "ring", **spec}, {**ONE_THREAD_EACH, **environment})
              for label, environment in (("as installed", {}), ("allocator", ALLOCATOR))]

    def of_ours(**extra):
        return [Candidate("", {**spec, **extra}, ONE_THREAD_EACH, "ring")]

    return Work(f"ring_{tokens // 1024}k{'_causal' if causal else ''}_train", "ring", spec,
                [Peer("zigzag ring in PyTorch", public, 1.0),
                 Peer("RSA as published, ours", of_ours(method="rsa"), 1.0, rival=False),
                 Peer("ours, no overlap", of_ours(overlap=False), rival=False, waits=True, hidden_aim=0.7),
                 Peer("ours, one process", [Candidate("", {**shape, "train": True}, program="attention")], rival=False)],
                roof="gemm", check=public[:1], tolerance=1e-5, environment=ONE_THREAD_EACH)


def ring_bert():
    """Whole updates of BERT-base on a sequence of 2048 tokens, over two processes of a thread each and in one of two."""
    settings = ["data.length=2048", "model.positions=2048", "data.short_share=0", "train.batch_size=1", "train.micro_batch_size=1",
                'runtime.precision="fp32"']
    spec = {"peer": "steps", "program": "build/release/stoa", "recipe": "recipes/ring_attention/bert_base.toml"}
    two = {**spec, "launch": ["launch", "-n", "2", "--"], "processes": 2, "set": [*settings, "parallel.sequence=2"]}
    one = {**spec, "launch": [], "processes": 1, "set": settings}
    whole = Candidate("", one)
    return Work("ring_bert_2k", "python", two, [Peer("one process", [whole], 0.85, rival=False)], check=[whole], tolerance=1e-5,
                material="wikitext", environment=ONE_THREAD_EACH, rounds=3)


def vit_b_shapes():
    block = [[2304, 768], [2304], [768, 768], [768], [3072, 768], [3072], [768, 3072], [768], *[[768]] * 4]
    return [[768, 3, 16, 16], [768], [197, 768], *block * 12, [768], [768], [1000, 768], [1000]]


TENSORS = {"8m": [[1024, 1024]] * 8, "86m": vit_b_shapes(), "small": [[32, 32], [512]] * 1000}


def optimizer(name, size):
    spec = {"optimizer": {"name": name, "lr": {"adamw": 1e-3, "lamb": 1e-2}[name], "weight_decay": 0.05}, "tensors": TENSORS[size]}

    def candidates(form):
        return [Candidate(label, {"peer": "optimizer", **spec, "form": form}, environment)
                for label, environment in (("as installed", {}), ("allocator", ALLOCATOR))]

    if name == "adamw":
        peers = [Peer("torch.optim, fused", candidates("fused"), 1.0), Peer("torch.optim, foreach", candidates("foreach"), 3.0)]
    else:  # torch.optim has no LAMB
        peers = [Peer("foreach", candidates("foreach"), 3.0), Peer("tensor by tensor", candidates("loop"), 3.0)]
    return Work(f"{name}_{size}", "optimizer", spec, peers, roof="copy", roof_aim=None if size == "small" else 0.8,
                check=[Candidate(peer.name, peer.candidates[0].spec) for peer in peers])


def loader(name, crop):
    spec = {"batch": 64, "images": 512, "classes": 8, "crop": crop}
    rows = [Peer(title, [Candidate("", {"peer": "loader", **spec, "form": form}, ALLOCATOR)], 1.5)
            for title, form in (("DataLoader, Pillow", "pil"), ("DataLoader, OpenCV", "opencv"))]
    return Work(name, "loader", spec, rows, unit="images/s/core", material="photos", uses_pip=True,
                check=[] if crop else [Candidate(peer.name, peer.candidates[0].spec) for peer in rows], tolerance=0.05)


# vocabularies of Criteo's 26 fields, 33.8 million ids
CRITEO = [1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194, 27, 14992, 5461306, 10, 5652,
          2173, 4, 7046547, 18, 15, 286181, 105, 142572]


def click_training(name, batch, pool, aim):
    spec = {"mode": "train", "batch": batch, "sizes": CRITEO, "numerics": 13, "pool": pool}
    ours = {**spec, "warm_up": pool}
    peers = [Peer("official method, eager", [Candidate("", {"peer": "click", **spec, "form": "official"}, ALLOCATOR)], aim),
             Peer("FBGEMM, row-wise Adagrad", [Candidate("", {"peer": "click", **spec, "form": "fbgemm"}, ALLOCATOR)], 1.0)]
    if batch < 131072:  # with it the largest batch would need more than 24 GB
        peers.append(Peer("ours, every row every step", [Candidate("", {**ours, "absent": "dense", "warm_up": 1}, program="click")],
                          8.0 if batch == 1024 else None, rival=False))
    return Work(name, "click", ours, peers, uses_pip=True)


def click_scoring(name, batch):
    spec = {"mode": "score", "batch": batch, "sizes": CRITEO, "numerics": 13, "pool": 200}
    return Work(name, "click", spec,
                [Peer("eager", [Candidate("", {"peer": "click", **spec, "form": "score"}, ALLOCATOR)], 2.0)])


def on_gpu(work):
    """The same work on a GPU. Peers' set-ups of the host's allocator are left out: they change nothing there."""
    for candidate in [c for peer in work.peers for c in peer.candidates] + work.check:
        candidate.spec["device"] = "cuda"
    peers = [peer for peer in work.peers if peer.rival and peer.name != "eager, allocator"]
    for peer in peers:
        peer.aim = None
        peer.candidates = [c for c in peer.candidates if "allocator" not in c.label]
    return replace(work, name=f"gpu_{work.name}", spec={**work.spec, "device": "cuda"}, peers=peers, roof=None, roof_aim=None,
                   usual=machine.has_gpu())


def gpu_works():
    large = ("train.batch_size=256",)
    return [
        on_gpu(bf16_training("vit_s_bf16_train", "vit_s", *large)),
        on_gpu(bf16_training("widenet_ti_bf16_train", "widenet_ti", *large, forms=INDEX_FORMS, compiled_forms=COMPILED_FORMS)),
        on_gpu(mixture(384, 8, 2, 12544)),
        on_gpu(mixture(192, 32, 2, 12544)),
        *[on_gpu(optimizer(name, size)) for name in ("adamw", "lamb") for size in ("86m", "small")],
    ]


def clicks(name, mode, peers, rows=1_000_000):
    spec = {"mode": mode, "rows": rows}
    for peer in peers:
        for candidate in peer.candidates:
            candidate.spec |= spec
    return Work(name, "tabular", spec, peers, unit="rows/s/core", material="clicks", uses_pip=True)


def click_data():
    return [
        clicks("click_prepare", "prepare",
               [Peer(form, [Candidate("", {"peer": "tabular", "form": form}, ALLOCATOR)], 5.0) for form in ("pandas", "polars")]),
        clicks("click_parse", "parse", [Peer("plain parser", [Candidate("", {"form": "plain"}, program="tabular")])]),
        Work("click_auc", "tabular", auc := {"mode": "auc", "rows": 4_600_000},
             [Peer("scikit-learn", [Candidate("", {"peer": "tabular", "form": "auc", **auc}, ALLOCATOR)], 2.0)], uses_pip=True,
             check=[Candidate("scikit-learn", {"peer": "tabular", "form": "auc", **auc})], tolerance=1e-9),
    ]


QUIETLY = {**ALLOCATOR, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
ONE_THREAD = {**QUIETLY, "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}


def text_peer(spec, forms, **environment):
    """The fastest of several forms."""
    return [Candidate(form, {"peer": "text", **spec, "form": form}, {**QUIETLY, **environment}) for form in forms]


def text_set_ups(spec, forms, compiled_forms):
    """As installed, with the allocator's settings, compiled: the fastest of them all."""
    as_installed = {"HF_HUB_OFFLINE": "1"}
    return [*[Candidate(f"{form}, as installed", {"peer": "text", **spec, "form": form}, as_installed) for form in forms],
            *[Candidate(f"{form}, allocator", {"peer": "text", **spec, "form": form}, QUIETLY) for form in forms],
            *[Candidate(f"{form}, compile", {"peer": "text", **spec, "form": form, "compile": True}, QUIETLY)
              for form in compiled_forms]]


def tokenizing(name, tokenizer, aim):
    spec = {"mode": "tokenize", "tokenizer": tokenizer}
    peers = text_peer(spec, ("encode", "encode_batch", "encode_batch_fast"), **ONE_THREAD)
    return Work(name, "text", spec, [Peer("tokenizers", peers, aim)], unit="MB/s", check=peers, tolerance=0, material="wikitext",
                uses_pip=True, environment=ONE_THREAD)


BERT_BASE = {"vocabulary": 30522, "dim": 768, "depth": 12, "heads": 12, "mlp_dim": 3072}
SMALL_BERT = {"vocabulary": 1000, "dim": 64, "depth": 3, "heads": 4, "mlp_dim": 256}


def masked_training(batch, length):
    spec = {"mode": "train", "shape": {**BERT_BASE, "batch": batch, "length": length},
            "small": {**SMALL_BERT, "batch": batch // 4, "length": length}}
    forms = ("sdpa", "eager")
    return Work(f"text_bert_train_{length}", "text", spec, [Peer("transformers", text_set_ups(spec, forms, forms), 1.2)],
                roof="gemm", check=text_peer(spec, forms), uses_pip=True, memory_aim=0.7, large=True)


def embedding(batch, lengths):
    spec = {"mode": "embed", "batch": batch, "lengths": lengths}
    forms, exported = ("sdpa", "eager"), ("model", "fused")
    return Work(f"text_embed_{batch}", "text", spec,
                [Peer("transformers", text_set_ups(spec, forms, ()), 1.3),
                 Peer("ONNX Runtime", text_peer(spec, exported), 0.9)],
                unit="sentences/s", check=text_peer(spec, (*forms, *exported)), tolerance=1e-5, material="minilm", uses_pip=True)


def sampling(bf16=False):
    spec = {"mode": "sample", "prompt": 32, "tokens": 64, "bf16": bf16}
    forms = ("sdpa", "eager")
    return Work("text_bf16_sample" if bf16 else "text_sample", "text", spec,
                [Peer("transformers", text_set_ups(spec, forms, forms[:1]), None if bf16 else 2.0)], unit="tokens/s",
                check=[] if bf16 else text_peer(spec, forms), tolerance=0, uses_pip=True,
                usual=not bf16 or machine.multiplies_bf16())


def text():
    draw = random.Random(1)
    lengths = [draw.randint(16, 256) for _ in range(64)]
    return [tokenizing("text_wordpiece", "vocab.txt", 2.0), tokenizing("text_bpe", "bpe.json", 1.0),
            masked_training(32, 128), masked_training(8, 512), embedding(1, lengths), embedding(64, lengths), sampling(),
            sampling(bf16=True)]


def all_works():
    vit_aims = {"eager": 1.3, "best": 1.15}
    return [
        training("vit_ti_train", "vit_ti", vit_aims, roof_aim=0.75),
        training("vit_s_train", "vit_s", vit_aims, roof_aim=0.75),
        bf16_training("vit_ti_bf16_train", "vit_ti"),
        bf16_training("vit_s_bf16_train", "vit_s"),
        recomputing("vit_s_recompute_train", "vit_s"),
        training("widenet_ti_train", "widenet_ti", {"best": 1.3}, forms=INDEX_FORMS, compiled_forms=COMPILED_FORMS),
        latency("vit_b_latency", "vit_b16", 1.2),
        latency("widenet_b_latency", "widenet_b", 1.2, forms=INDEX_FORMS, compiled_forms=("slices", "bmm")),
        int8_latency(),
        *[optimizer(name, size) for name in ("adamw", "lamb") for size in TENSORS],
        click_training("click_train_1k", 1024, 1000, 50.0),
        click_training("click_train_8k", 8192, 125, 10.0),
        click_training("click_train_128k", 131072, 8, 2.0),
        click_scoring("click_score_1", 1),
        click_scoring("click_score_1000", 1000),
        *click_data(),
        *text(),
        attention("attention_local_forward"),
        attention("attention_local_train", train=True),
        attention("attention_local_causal_train", train=True, causal=True),
        *[ring(tokens, causal) for tokens in (2048, 4096) for causal in (False, True)],
        ring_bert(),
        loader("loader_jpeg", crop=False),
        loader("loader_jpeg_crop", crop=True),
        *[mixture(dim, experts, k, tokens)
          for dim in (192, 384, 768) for experts in (4, 8, 16, 32) for k in (1, 2) for tokens in (392, 1568, 6304)],
        *gpu_works(),
    ]


# matrix products whose speed is the roof: square ones, and those of the models above
# (a product here is [rows, in, out])
ROOF_PRODUCTS = [[1024, 1024, 1024], [2048, 2048, 2048],
                 [6304, 192, 768], [6304, 768, 192], [6304, 384, 1536], [6304, 1536, 384]]
ROOF_COPY = 1 << 28  # bytes


def select(works, names, everything):
    """Works whose names begin with one of `names`, the usual ones of them where there are any; the usual ones without
    names. Throws KeyError with a name that none begins with."""
    if not names:
        return [work for work in works if everything or work.usual]
    chosen = []
    for name in names:
        found = [work for work in works if work.name.startswith(name)]
        if not found:
            raise KeyError(name)
        usual = [work for work in found if work.usual]
        chosen += [work for work in (found if everything or not usual else usual) if work not in chosen]
    return chosen
