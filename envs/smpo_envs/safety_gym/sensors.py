"""What a robot reads, in order: its sensors, then a lidar for each kind of object."""

from smpo_envs.safe_env import Reading
from smpo_envs.safety_gym.lidar import BINS

GRAVITY = 9.81  # m/s²
MAGNETIC_FIELD = -0.5  # along world y
# Of every robot's own motion, in its body's frame.
MOTION = (
    Reading("accelerometer", 3, "m/s²"),
    Reading("velocimeter", 3, "m/s"),
    Reading("gyro", 3, "rad/s"),
    Reading("magnetometer", 3, "1"),
)


def lidars(seen: tuple[str, ...]) -> tuple[Reading, ...]:
    """One for each kind that is seen: 0, nothing, to 1, touching."""
    return tuple(Reading(f"{kind}_lidar", BINS, "1") for kind in seen)
