"""What to tell someone who got a name wrong, or who knows a thing by another library's name."""

from collections.abc import Iterable
from difflib import get_close_matches

# What other libraries (OmniSafe, SafePO, FSRL, Stable-Baselines3, CleanRL) call a thing -> what it
# is called here. Folded by `_folded`: small letters, no dashes.
ELSEWHERE: dict[str, str] = {
    # fields of a run
    "task": "env",
    "envid": "env",
    "environment": "env",
    "algorithm": "algo",
    "agent": "algo",
    "randomseed": "seed",
    "totaltimesteps": "steps",
    "totalsteps": "steps",
    "timesteps": "steps",
    "numtimesteps": "steps",
    "totalenvsteps": "steps",
    "vectorenvnums": "num_envs",
    "nenvs": "num_envs",
    "numenv": "num_envs",
    "envs": "num_envs",
    "trainingnum": "num_envs",
    "parallel": "devices",
    "nsteps": "rollout_length",
    "numsteps": "rollout_length",
    "rolloutsteps": "rollout_length",
    "unrolllength": "rollout_length",
    "maxepisodesteps": "episode_length",
    "maxeplen": "episode_length",
    "timelimit": "episode_length",
    "costlim": "cost_limit",
    "budget": "cost_limit",
    "costbudget": "cost_limit",
    "safetybudget": "cost_limit",
    "safetybound": "cost_limit",
    "logdir": "out",
    "outputdir": "out",
    "outdir": "out",
    "savedir": "out",
    "savemodelfreq": "checkpoint_iterations",
    "usewandb": "wandb",
    "usetensorboard": "tensorboard",
    "track": "wandb",
    # of a method
    "lr": "learning_rate",
    "stepsize": "learning_rate",
    "actorlr": "learning_rate",
    "criticlr": "learning_rate",
    "pilr": "learning_rate",
    "vflr": "learning_rate",
    "anneal": "learning_rate_decay",
    "anneallr": "learning_rate_decay",
    "linearlrdecay": "learning_rate_decay",
    "gamma": "discount",
    "costgamma": "cost_discount",
    "lam": "gae_lambda",
    "lambda": "gae_lambda",
    "gaelam": "gae_lambda",
    "lamc": "cost_gae_lambda",
    "costlam": "cost_gae_lambda",
    "updateepochs": "epochs",
    "nepochs": "epochs",
    "updateiters": "epochs",
    "learningiters": "epochs",
    "repeatpercollect": "epochs",
    "numminibatches": "minibatches",
    "nummb": "minibatches",
    "cliprange": "clip",
    "clipratio": "clip",
    "clipcoef": "clip",
    "clipeps": "clip",
    "epsclip": "clip",
    "entcoef": "entropy_coefficient",
    "entropycoef": "entropy_coefficient",
    "entropycost": "entropy_coefficient",
    "maxgradnorm": "max_gradient_norm",
    "criticnormcoef": "value_l2",
    "obsnormalise": "normalise_observations",
    "normobs": "normalise_observations",
    "normaliseobs": "normalise_observations",
    "hiddensizes": "hidden",
    "hiddenlayersizes": "hidden",
    "netarch": "hidden",
    "activationfn": "activation",
    "stdinit": "initial_log_std",
    "logstdinit": "initial_log_std",
    "lagrangianmultiplierinit": "multiplier_start",
    "lagrangianinit": "multiplier_start",
    "lagrangianupperbound": "multiplier_maximum",
    "lambdalr": "multiplier_learning_rate",
    "lagrangianmultiplierlr": "multiplier_learning_rate",
    "penaltylr": "multiplier_learning_rate",
    "pidkp": "proportional_gain",
    "pidki": "integral_gain",
    "pidkd": "derivative_gain",
    "piddelay": "derivative_delay",
    "pidddelay": "derivative_delay",
    "piddeltapemaalpha": "proportional_smoothing",
    "piddeltademaalpha": "derivative_smoothing",
    "penaltymax": "multiplier_maximum",
    "cgdamping": "fisher_damping",
    "cgiters": "solver_iterations",
    "cgmaxiters": "solver_iterations",
    "fvpsamplefreq": "fisher_stride",
    "kappa": "penalty_coefficient",
    "sautegamma": "budget_discount",
    # methods
    "ppol": "ppo_lag",
    "ppolagrangian": "ppo_lag",
    "trpol": "trpo_lag",
    "trpolagrangian": "trpo_lag",
    "cppopid": "pid_lag",
    "ppopid": "pid_lag",
    "ppolagpid": "pid_lag",
    "pidlagrangian": "pid_lag",
    "trpolagpid": "trpo_pid",
    "oncrpo": "crpo",
    "pposimmerpid": "ppo_simmer",
    "trposimmerpid": "trpo_simmer",
    "safetymodulatedpolicyoptimization": "smpo",
}

# What others have and we do not -> what to do instead.
NOT_HERE: dict[str, str] = {
    "device": "JAX takes a GPU where there is one; the environment's JAX_PLATFORMS=cpu: none",
    "cuda": "JAX takes a GPU where there is one; the environment's JAX_PLATFORMS=cpu: none",
    "torchthreads": "JAX takes the cores that it sees; devices says how many share environments",
    "evalepisodes": "policies are evaluated afterwards: smpo-jax evaluate DIR --episodes N",
    "evalfreq": "policies are evaluated afterwards: smpo-jax evaluate DIR --episodes N",
    "numepochs": "a run's length is steps; passes over a rollout are epochs",
    "batchsize": "a minibatch has num_envs * rollout_length / minibatches samples",
    "minibatchsize": "a minibatch has num_envs * rollout_length / minibatches samples",
    "stepsperepoch": "an update is made every num_envs * rollout_length steps",
    "stepsperiteration": "an update is made every num_envs * rollout_length steps",
    "capturevideo": "films are made afterwards: smpo-jax render DIR",
    "render": "films are made afterwards: smpo-jax render DIR",
    "verbose": "how often a run reports is report_every, in seconds",
    "rewardnormalise": "rewards are not normalised; advantages are",
    "costnormalise": "costs are not normalised",
}

_ON_POLICY = "methods here learn from their newest samples alone: none is off-policy or model-based"
_OFF_POLICY = "ddpg td3 sac ddpglag td3lag saclag ddpgpid td3pid sacpid sacl ddpgl cvpo dqn loop"
NOT_HERE |= dict.fromkeys(_OFF_POLICY.split(), _ON_POLICY)


def suggest(name: object, allowed: Iterable[str]) -> str:
    """What to say after "there is no X": the right name, the nearest, or all that are allowed.

    Args:
        name: as it was given; dashes, underscores and capitals do not matter.
        allowed: the names there are, as they are to be written.
    """
    by_form = _by_form(allowed)
    form = _folded(str(name)[:80])
    ours = ELSEWHERE.get(form, "")
    if _folded(ours) in by_form:
        return f"; here it is called {by_form[_folded(ours)]}"
    if ours:
        return f"; here it is called {ours}, which cannot be set in this place"
    if form in NOT_HERE:
        return f"; {NOT_HERE[form]}"
    return nearest(name, by_form.values())


def nearest(name: object, allowed: Iterable[str]) -> str:
    """As `suggest`, of names that other libraries have none of: no settings and no methods."""
    by_form = _by_form(allowed)
    near = get_close_matches(_folded(str(name)[:80]), by_form, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {by_form[near[0]]}?"
    return f"; allowed: {', '.join(by_form.values())}" if by_form else ""


def counterpart(name: str) -> str:
    """What a setting of another library's is called here; empty for one that has no counterpart."""
    return ELSEWHERE.get(_folded(name), "")


def _by_form(names: Iterable[str]) -> dict[str, str]:
    """Names by what is left of them without what spellings differ in."""
    return {_folded(name): name for name in names}


def _folded(name: str) -> str:
    """A name without what spellings differ in."""
    return name.lower().replace("-", "").replace("_", "").replace("normaliz", "normalis")
