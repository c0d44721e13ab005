"""Reference posterior of Bayesian logistic regression on scikit-learn's breast-cancer data: a long run of NUTS (numpyro) in float64.

    pip install -c constraints.txt -e '.[bench]' && python bench/logistic.py

Writes `results/bench/logistic.json`: mean and standard deviation of each weight, effective sample sizes and R-hat. The page on the variance collapse compares with it.
"""
import json
from pathlib import Path
import jax, numpyro
numpyro.enable_x64()
numpyro.set_host_device_count(2)
from jax import numpy as jnp
from numpyro.diagnostics import summary
from numpyro.distributions import Bernoulli, Normal
from numpyro.infer import MCMC, NUTS
from sklearn.datasets import load_breast_cancer

x,y = load_breast_cancer(return_X_y=True)
x = (x - x.mean(0))/x.std(0)
x = jnp.hstack([x, jnp.ones((len(x), 1))])      # the last weight is the intercept

def model():
    w = numpyro.sample('w', Normal(jnp.zeros(x.shape[1]), 1.).to_event(1))
    numpyro.sample('y', Bernoulli(logits=x@w), obs=y)

mcmc = MCMC(NUTS(model), num_warmup=1000, num_samples=10_000, num_chains=2, progress_bar=False)
mcmc.run(jax.random.PRNGKey(0))
w = mcmc.get_samples(group_by_chain=True)['w']
s = summary({'w': w})['w']
out = Path(__file__).resolve().parents[1]/'results/bench/logistic.json'
out.parent.mkdir(parents=True, exist_ok=True)
out.write_text(json.dumps(dict(mean=w.mean((0, 1)).round(5).tolist(), sd=w.std((0, 1)).round(5).tolist(), draws=int(w.shape[0]*w.shape[1]),
    least_effective_sample_size=int(s['n_eff'].min()), greatest_r_hat=round(float(s['r_hat'].max()), 4), numpyro=numpyro.__version__), indent=1) + '\n')
print(out.read_text()[-200:])
