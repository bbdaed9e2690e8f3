"""What the trainer's sums over time should be, as plain loops over NumPy arrays in float64."""

import numpy as np


def gae(reward, value, next_value, terminated, truncated, discount, lambda_):
    """Advantages by their definition, one environment and one step at a time."""
    steps, envs = reward.shape
    advantage = np.zeros((steps, envs))
    for n in range(envs):
        following = 0.0
        for t in reversed(range(steps)):
            future = 0.0 if terminated[t, n] else next_value[t, n]
            delta = reward[t, n] + discount * future - value[t, n]
            is_end = terminated[t, n] or truncated[t, n]
            following = delta + (0.0 if is_end else discount * lambda_ * following)
            advantage[t, n] = following
    return advantage


def lambda_return(reward, next_value, terminated, truncated, discount, lambda_):
    """The geometric mixture of n-step returns, each of them summed from its definition."""
    steps, envs = reward.shape
    result = np.zeros((steps, envs))
    for n in range(envs):
        for t in range(steps):
            total, weight, rewards, k = 0.0, 1.0, 0.0, t
            while True:
                rewards += discount ** (k - t) * reward[k, n]
                future = 0.0 if terminated[k, n] else next_value[k, n]
                n_step = rewards + discount ** (k - t + 1) * future
                if terminated[k, n] or truncated[k, n] or k == steps - 1:
                    total += weight * n_step  # the last one takes all that is left
                    break
                total += weight * (1 - lambda_) * n_step
                weight *= lambda_
                k += 1
            result[t, n] = total
    return result


def episodes(tracker, reward, cost, terminated, truncated):
    """(cost before each step, age, [(return, cost, length)] of whole episodes, tracker after)."""
    steps, envs = reward.shape
    so_far, elapsed, finished = np.zeros((steps, envs)), np.zeros((steps, envs)), []
    sums = [[float(x[n]) for x in tracker] for n in range(envs)]
    for t in range(steps):
        for n in range(envs):
            so_far[t, n], elapsed[t, n] = sums[n][1], sums[n][2]
            sums[n][:3] = sums[n][0] + reward[t, n], sums[n][1] + cost[t, n], sums[n][2] + 1
            if terminated[t, n] or truncated[t, n]:
                if terminated[t, n] or not sums[n][3]:
                    finished.append(tuple(sums[n][:3]))
                sums[n] = [0.0, 0.0, 0.0, 0.0]
    return so_far, elapsed, finished, np.array(sums).T


def price(charge, terminated, truncated, discount, trace):
    """What earlier steps of the same episode put on each step, added up pair by pair."""
    steps, envs = charge.shape
    result = np.zeros((steps, envs))
    for n in range(envs):
        for later in range(steps):
            for earlier in reversed(range(later)):
                if terminated[earlier, n] or truncated[earlier, n]:
                    break
                gap = later - earlier
                result[later, n] += charge[earlier, n] * discount**gap * trace ** (gap - 1)
    return result


def pid(costs, limit, kp, ki, kd, smoothing, *, delay, start, maximum):
    """The controller's output after each measured cost, with Python's own lists and max."""
    integral, error, history, outputs = start, 0.0, [0.0], []
    for cost in costs:
        integral = min(max(integral + ki * (cost - limit), 0.0), maximum)
        error = smoothing * error + (1 - smoothing) * (cost - limit)
        history.append(smoothing * history[-1] + (1 - smoothing) * cost)
        before = history[-1 - delay] if len(history) > delay else 0.0
        output = kp * error + integral + kd * max(history[-1] - before, 0.0)
        outputs.append(min(max(output, 0.0), maximum))
    return outputs
