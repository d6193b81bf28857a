"""An example notebook in percent format; it runs as a script too."""

# %% [markdown]
# # An experiment, from a question to a figure
#
# Open it in an editor that knows percent-format scripts, or run it: `python docs/notebook.py`.
# Everything runs in virtual time and takes seconds. `docs/experiments.md` explains the words.

# %%
from pathlib import Path
from tempfile import gettempdir

from bench import Experiment

PLACE = Path(gettempdir()) / "epaxos-notebook"

# %% [markdown]
# ## What is compared
#
# Every key of a trial is an argument; a list is swept. Here: two protocols, without and with
# conflicts, two repeats. `Experiment.load("quick")` or `Experiment.load("mine.toml")` work as well.

# %%
experiment = Experiment(
    "notebook",
    title="What conflicts cost at three sites",
    repeats=2,
    simulated=True,
    jitter=True,
    replicas=3,
    protocol=["epaxos", "multipaxos"],
    workload=["conflict:0", "conflict:50"],
    rate=160,
    warmup_s=0.2,
    duration_s=1.0,
)
len(experiment.trials())

# %% [markdown]
# ## Running it
#
# What was run before is taken from the store: run this cell twice. In a notebook with an event
# loop, `await experiment.run_async(out=PLACE)` leaves the loop free. `jobs=` shares the trials out
# over processes, `dask=` over a cluster.

# %%
results = experiment.run(out=PLACE, jobs=1)
print(results.validity, *results.reasons, sep="\n")

# %% [markdown]
# ## Reading it
#
# A table for eyes; flat records, one per configuration and region, for data frames:
# `polars.DataFrame(results.records())` or `pandas.DataFrame(results.records())`. Single commands:
# `results.samples()`.

# %%
print(results.table())

# %%
slowest = max(results.records(), key=lambda cell: cell["answer_p95_ms"])
print(slowest["configuration"], slowest["region_title"], slowest["answer_p95_ms"], "ms")

# %% [markdown]
# ## Figures
#
# They are matplotlib's: save them, change them. A notebook shows what a cell ends with, after
# `%matplotlib inline`.

# %%
tails = results.plot.cdf(by="region")
tails.savefig(PLACE / "tails.svg")

# %%
bars = results.plot.bars(by="workload")
bars.savefig(PLACE / "bars.svg")

# %% [markdown]
# ## What a change does
#
# The same experiment with commands on contended keys not held back, as in the papers. Which cells
# differ by more than chance?

# %%
unsafe = Experiment(
    "notebook-no-gate",
    repeats=2,
    simulated=True,
    jitter=True,
    replicas=3,
    protocol=["epaxos", "multipaxos"],
    workload=["conflict:0", "conflict:50"],
    rate=160,
    warmup_s=0.2,
    duration_s=1.0,
    gate=False,
).run(out=PLACE, jobs=1)
differences = results.diff(unsafe)
print(differences.table())
print(*differences.sentences(), sep="\n")
