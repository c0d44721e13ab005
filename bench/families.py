"""In which decoder-only families may a prompt be computed once? Tiny random models of every type that is easily built, in float64.

    pip install -c constraints.txt -e . && python bench/families.py [--only llama] [--out results/bench]

For each model: does it take embeddings for tokens; how far are losses and prompt gradients when the prompt's keys and values are computed once
from those of whole sequences, as largest relative error, (a) with this package's engine and (b) in plain transformers, where the texts go on with
the very cache object that the prompt left. Variants have a window shorter than the prompt (`window`), windows in some layers (`mixed`), or positions
that are scaled (`dynamic`, `longrope`, `yarn`, `llama3`). What fails is a row too. Writes `families.json`. No weights are downloaded.
"""
import argparse, logging, os, re, time, warnings
os.environ.setdefault('OMP_NUM_THREADS', '1')
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
import torch, torch.nn.functional as F
from transformers import AutoConfig, AutoModelForCausalLM
from bayes_prompt.backbone import Backbone, _check_embeddings
from bayes_prompt.causal import SharedPrefix
from bayes_prompt.engine import loss_and_grad
from bayes_prompt.machine import environment
from bayes_prompt.prompt import Example
from bayes_prompt.store import write_json

V, P = 100, 12 # tokens of the vocabulary, rows of a prompt
ENDS = dict(vocab_size=V, pad_token_id=0, bos_token_id=1, eos_token_id=2)
LLAMA = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=128)
GPT = dict(n_embd=32, n_layer=2, n_head=4, n_positions=128)
MOE = LLAMA | dict(num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, shared_expert_intermediate_size=16, n_group=1, topk_group=1)
LATENT = MOE | dict(num_key_value_heads=4, kv_lora_rank=8, q_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8, first_k_dense_replace=1)
del LATENT['head_dim']
BART = dict(d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48, max_position_embeddings=128)
BERT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128, is_decoder=True)
MAMBA = dict(hidden_size=32, num_hidden_layers=2, state_size=8, num_heads=4, head_dim=16, n_groups=1, expand=2)
MIXED = dict(layer_types=['sliding_attention', 'full_attention'], sliding_window=8)

def rope(kind, **kw): return dict(rope_parameters=dict(rope_type=kind, rope_theta=1e4, factor=2., **kw))

SHAPES = { # type -> its sizes
    **dict.fromkeys('llama mistral qwen2 qwen3 gemma gemma2 gemma3_text phi phi3 stablelm olmo olmo2 olmo3 granite smollm3 cohere cohere2 starcoder2 helium glm glm4 '
                    'nemotron apertus exaone4 ernie4_5 hunyuan_v1_dense ministral ministral3 seed_oss arcee vaultgemma persimmon gpt_neox gpt_neox_japanese diffllama '
                    'bitnet cwm jais2 nanochat granite_swa'.split(), LLAMA),
    **dict.fromkeys('mixtral qwen2_moe qwen3_moe phimoe granitemoe olmoe gpt_oss minimax_m2 ernie4_5_moe hunyuan_v1_moe flex_olmo glm4_moe jetmoe solar_open'.split(), MOE),
    **dict.fromkeys('deepseek_v2 deepseek_v3 minicpm3'.split(), LATENT),
    **dict.fromkeys('gpt2 gpt_bigcode openai-gpt ctrl'.split(), GPT), **dict.fromkeys(('codegen', 'gptj'), GPT | dict(rotary_dim=4)),
    **dict.fromkeys('bart mbart'.split(), BART), 'bert': BERT, 'dots1': MOE | dict(n_shared_experts=1),
    'gpt_neo': dict(hidden_size=32, num_layers=2, num_heads=4, max_position_embeddings=128, attention_types=[[['global', 'local'], 1]], window_size=64),
    'opt': dict(hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128),
    'bloom': dict(hidden_size=32, n_layer=2, n_head=4), 'falcon': dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, alibi=False),
    'mpt': dict(d_model=32, n_layers=2, n_heads=4, max_seq_len=128),
    'biogpt': LLAMA, 'xglm': dict(d_model=32, ffn_dim=48, num_layers=2, attention_heads=4, max_position_embeddings=128),
    'llama4_text': MOE | dict(intermediate_size_mlp=48, layer_types=['full_attention']*2), 'gemma3n_text': LLAMA | dict(
        vocab_size_per_layer_input=V, hidden_size_per_layer_input=8, laurel_rank=4, num_kv_shared_layers=0, activation_sparsity_pattern=None, layer_types=['full_attention']*2),
    'mamba': MAMBA, 'mamba2': MAMBA, 'falcon_mamba': MAMBA, 'rwkv': dict(hidden_size=32, attention_hidden_size=32, num_hidden_layers=2, intermediate_size=48),
    'qwen3_next': MOE | dict(linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=8, layer_types=['linear_attention', 'full_attention']),
    'lfm2': LLAMA | dict(layer_types=['conv', 'full_attention'], block_multiple_of=8), 'recurrent_gemma': LLAMA | dict(lru_width=32, attention_window_size=8),
    'jamba': MOE | dict(mamba_d_state=8, mamba_dt_rank=4, use_mamba_kernels=False, attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1),
    'falcon_h1': LLAMA | dict(mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8, mamba_n_groups=1),
}
VARIANTS = { # (type, what is special) -> what is set beside
    **{(t, 'window'): dict(sliding_window=8) for t in ('mistral', 'mixtral', 'phi3', 'starcoder2')},
    **{(t, 'mixed'): MIXED for t in 'gemma2 gemma3_text cohere2 olmo3 gpt_oss exaone4 ministral'.split()},
    **{(t, 'mixed'): MIXED | dict(use_sliding_window=True, max_window_layers=0) for t in ('qwen2', 'qwen3', 'smollm3')},
    ('falcon', 'alibi'): dict(alibi=True), ('gpt_neo', 'window'): dict(window_size=8),
    ('llama', 'llama3'): rope('llama3', low_freq_factor=1., high_freq_factor=4., original_max_position_embeddings=64),
    ('llama', 'yarn'): rope('yarn', original_max_position_embeddings=64), ('llama', 'dynamic'): rope('dynamic') | dict(max_position_embeddings=16),
    ('phi3', 'longrope'): dict(rope_parameters=dict(rope_type='longrope', rope_theta=1e4, short_factor=[1.]*4, long_factor=[3.]*4, original_max_position_embeddings=16),
                               original_max_position_embeddings=16),
}

def tiny(kind, more):
    "A random model in which everything matters, in float64"
    config = AutoConfig.for_model(kind, **ENDS | SHAPES[kind] | more)
    model = AutoModelForCausalLM.from_config(config)
    if hasattr(model, 'set_experts_implementation'): # others multiply in float32
        try: model.set_experts_implementation('eager')
        except Exception: pass
    torch.manual_seed(0)
    for p in model.parameters(): torch.nn.init.normal_(p, std=.15) if p.dim() > 1 else torch.nn.init.normal_(p, 1, .1)
    return model.requires_grad_(False).eval()

def error(got, want): return ((got - want).abs().max()/want.abs().max()).item()

def by_engine(model):
    "Losses and gradients of this package, prompt once against whole sequences"
    tok = SimpleNamespace(pad_token_id=0, eos_token_id=2)
    bb = Backbone('tiny', model, tok)
    exs = [Example(tuple(range(7, 7+k)), (5, 3)[:n]) for k, n in ((9, 2), (5, 1))]
    x = bb.embed(torch.arange(20, 20 + 2*P).view(2, P)).detach().to(bb.embed.weight.dtype)
    def step(engine): return loss_and_grad(replace(bb, engine=engine, meter=Counter()), x, [[e] for e in exs])
    return zip(step(SharedPrefix()), step(None))

def by_transformers(model):
    "The same of one text in plain calls: the cache that the model made itself goes on"
    embed, ids = model.get_input_embeddings(), torch.arange(7, 16)[None]
    rows = embed(torch.arange(20, 20 + P)[None]).detach().to(embed.weight.dtype)
    def loss(logits): return F.cross_entropy(logits[0, :-1], ids[0, 1:])
    def whole(x): return loss(model(inputs_embeds=torch.cat([x, embed(ids)], 1), use_cache=False).logits[:, P:])
    def once(x):
        cache = model(inputs_embeds=x, use_cache=True).past_key_values
        return loss(model(inputs_embeds=embed(ids), past_key_values=cache, use_cache=True).logits)
    out = []
    for f in (once, whole):
        x = rows.clone().requires_grad_()
        value = f(x)
        value.backward()
        out.append((value.detach(), x.grad))
    return zip(*out)

def said(e): return re.sub(r'\s+', ' ', str(e))[:160] or type(e).__name__

def measured(how, model):
    "Relative errors of loss and gradient, or what went wrong"
    try: loss, gradient = [error(a, b) for a, b in how(model)]
    except Exception as e: return dict(error=said(e))
    return dict(loss=float(f'{loss:.2g}'), gradient=float(f'{gradient:.2g}'))

def row(kind, variant, more):
    out = dict(family=kind, variant=variant)
    try: model = tiny(kind, more)
    except Exception as e: return out | dict(error=said(e))
    try: _check_embeddings(kind, model)
    except Exception as e: return out | dict(takes=False, error=said(e))
    for dtype in (torch.float64, torch.float32): # a few have constants that only float32 holds
        model.to(dtype)
        found = dict(engine=measured(by_engine, model), transformers=measured(by_transformers, model))
        if 'without overflow' not in found['engine'].get('error', ''): break
    return out | dict(takes=True, dtype=str(dtype).removeprefix('torch.')) | found

def main(only, out):
    warnings.filterwarnings('ignore')
    logging.disable(logging.WARNING)
    jobs = {(kind, ''): {} for kind in SHAPES} | VARIANTS
    rows, began = [], time.perf_counter()
    for (kind, variant), more in jobs.items():
        if not re.search(only, kind): continue
        rows.append(row(kind, variant, more))
        print(rows[-1], flush=True)
    if only: return
    write_json(Path(out)/'families.json', dict(environment=environment(), prompt=P, seconds=round(time.perf_counter() - began), rows=rows))

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--only', default='', help='a pattern of types to look at, without writing')
    p.add_argument('--out', default=Path(__file__).resolve().parents[1]/'results/bench')
    a = p.parse_args()
    torch.set_num_threads(1)
    main(a.only, a.out)
