"""Makes tests/golden/text_*.safetensors: tiny BERT, DistilBERT, ALBERT and GPT-2 of Python's transformers, with random
weights, and what they make of a batch. All in double precision, dropout off.

Usage: python3 make_text_golden.py FOLDER        (torch, transformers, safetensors)

Tensors: weights/NAME as the model saves them; ids, lengths, segments; hidden/N (the embeddings and each layer); logits;
pair; of BERT also targets, pair_labels and losses [10] of ten steps of AdamW (lr 1e-3, eps 1e-8, decay 0.01 on everything)
on that batch. Metadata: config, the model's config.json.
"""
import json
import sys

import torch
from safetensors.torch import save_file
from transformers import (AlbertConfig, AlbertForPreTraining, BertConfig, BertForPreTraining, DistilBertConfig,
                          DistilBertForMaskedLM, GPT2Config, GPT2LMHeadModel)

VOCABULARY, DIM, DEPTH, HEADS, HIDDEN, POSITIONS = 61, 16, 3, 4, 28, 24
LENGTHS = [9, 5, 12]


def batch(generator):
    longest = max(LENGTHS)
    ids = torch.randint(0, VOCABULARY, (len(LENGTHS), longest), generator=generator)
    segments = torch.zeros_like(ids)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        segments[row, length // 2:length] = 1
        mask[row, :length] = 1
    return ids, segments, mask


def common():
    return dict(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, initializer_range=0.2)


def make(name, model, arguments, folder, steps=False):
    generator = torch.Generator().manual_seed(7)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.double) * 0.2)
        for key, parameter in model.named_parameters():
            if "norm" in key.lower() or ".ln_" in key:
                if key.endswith("weight"):
                    parameter.add_(1)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    model.eval()
    ids, segments, mask = batch(generator)
    inputs = dict(input_ids=ids, attention_mask=mask)
    if "segments" in arguments:
        inputs["token_type_ids"] = segments
    output = model(**inputs, output_hidden_states=True)
    tensors = {"ids": ids, "segments": segments, "lengths": torch.tensor(LENGTHS)}
    seen = set()
    for key, parameter in model.state_dict().items():
        if parameter.data_ptr() not in seen and parameter.is_floating_point():
            seen.add(parameter.data_ptr())
            tensors["weights/" + key] = parameter.clone()
    for i, hidden in enumerate(output.hidden_states):
        tensors[f"hidden/{i}"] = hidden
    tensors["logits"] = output.prediction_logits if hasattr(output, "prediction_logits") else output.logits
    if hasattr(output, "seq_relationship_logits"):
        tensors["pair"] = output.seq_relationship_logits
    if hasattr(output, "sop_logits"):
        tensors["pair"] = output.sop_logits
    if steps:
        chosen = (torch.rand(ids.shape, generator=generator) < 0.3) & mask.bool()
        chosen[:, 1] = True
        targets = torch.where(chosen, torch.randint(0, VOCABULARY, ids.shape, generator=generator), torch.tensor(-100))
        labels = torch.tensor([0, 1, 1])
        tensors["targets"], tensors["pair_labels"] = targets, labels
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
        losses = []
        for _ in range(10):
            optimizer.zero_grad()
            loss = model(**inputs, labels=targets, next_sentence_label=labels).loss
            loss.backward()
            losses.append(loss.item())
            optimizer.step()
        tensors["losses"] = torch.tensor(losses, dtype=torch.double)
    tensors = {key: value.detach().contiguous().clone() for key, value in tensors.items()}
    save_file(tensors, f"{folder}/text_{name}.safetensors", metadata={"config": json.dumps(model.config.to_dict())})


def main(folder):
    make("bert", BertForPreTraining(BertConfig(hidden_size=DIM, num_hidden_layers=DEPTH, num_attention_heads=HEADS,
                                               intermediate_size=HIDDEN, hidden_dropout_prob=0,
                                               attention_probs_dropout_prob=0, **common())), ["segments"], folder, True)
    make("albert", AlbertForPreTraining(AlbertConfig(hidden_size=DIM, embedding_size=6, num_hidden_layers=DEPTH,
                                                     num_attention_heads=HEADS, intermediate_size=HIDDEN,
                                                     hidden_act="gelu_new", **common())), ["segments"], folder)
    make("distilbert", DistilBertForMaskedLM(DistilBertConfig(dim=DIM, n_layers=DEPTH, n_heads=HEADS, hidden_dim=HIDDEN,
                                                              **common())), [], folder)
    make("gpt2", GPT2LMHeadModel(GPT2Config(n_embd=DIM, n_layer=DEPTH, n_head=HEADS, n_inner=HIDDEN,
                                            n_positions=POSITIONS, vocab_size=VOCABULARY)), [], folder)


main(sys.argv[1])
