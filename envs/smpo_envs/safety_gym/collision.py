"""Where the robot, the vases and the floor touch: contact points, depths and normals.

Arrays are laid out as in `batched`: components first, batch last. A shape with "slots" has a fixed
number of candidates; a candidate with a positive distance is no contact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpo_envs.safety_gym.batched import dot


class Touch(NamedTuple):
    """Candidate contacts between a first and a second body.

    Attributes:
        normal: unit vector from the first body to the second.
        point: midway between the two surfaces, world.
        distance: negative where the bodies overlap; only then there is a contact.
    """

    normal: Float[Array, "3 *s"]
    point: Float[Array, "3 *s"]
    distance: Float[Array, "*s"]


class Cube(NamedTuple):
    """An oriented cube.

    Attributes:
        center: world.
        axes: `axes[:, j]` is the j-th axis in world coordinates. The third is the one nearest to
            the vertical and points up: a cube looks the same whichever of its axes comes third.
    """

    center: Float[Array, "3 *s"]
    axes: Float[Array, "3 3 *s"]


def upright(center: Float[Array, "3 *s"], axes: Float[Array, "3 3 *s"]) -> Cube:
    """The same cube with its axes relabelled: the third is the one nearest to the vertical."""
    height = jnp.abs(axes[2])
    x_is_up = (height[0] > height[1]) & (height[0] > height[2])
    y_is_up = (height[1] > height[2]) & ~x_is_up
    x, y, z = axes[:, 0], axes[:, 1], axes[:, 2]
    up = jnp.where(x_is_up, x, jnp.where(y_is_up, y, z))
    first = jnp.where(x_is_up, y, jnp.where(y_is_up, z, x))
    second = jnp.where(x_is_up, z, jnp.where(y_is_up, x, y))
    return Cube(center, jnp.stack([first, second, jnp.where(up[2] < 0, -up, up)], axis=1))


def floor_and_cube(cube: Cube, half: float) -> Touch:
    """The four corners of the cube's lower face against the floor z = 0; slots [4].

    The simulator tests the corners below the centre and keeps the first four that are in the floor;
    only corners of the lowest face ever are.
    """
    x, y, up = cube.axes[:, 0], cube.axes[:, 1], cube.axes[:, 2]
    corners = [half * (a * x + b * y - up) for a in (-1, 1) for b in (-1, 1)]
    point = cube.center[:, None] + jnp.stack(corners, axis=1)
    distance = point[2]
    vertical = jnp.zeros_like(point).at[2].set(1)
    return Touch(vertical, point.at[2].set(distance / 2), distance)


def sphere_and_cube(center: Float[Array, "3 *s"], radius: float, cube: Cube, half: float) -> Touch:
    """The point of a cube nearest to a sphere; slots [1]."""
    offset = center - cube.center
    local = (cube.axes * offset[:, None]).sum(0)
    to_surface = jnp.clip(local, -half, half) - local
    square = dot(to_surface, to_surface)
    outside = square > 0
    gap = jnp.sqrt(jnp.where(outside, square, 1))
    # With its centre inside the cube, the sphere leaves through the nearest face.
    depth = half - jnp.abs(local)
    nearest = depth == depth.min(0)
    inward = jnp.where(nearest, -jnp.sign(local), 0)
    normal = jnp.where(outside, to_surface / gap, inward)
    normal = (cube.axes * normal[None]).sum(1)
    distance = jnp.where(outside, gap, -depth.min(0)) - radius
    point = center + normal * (radius + distance / 2)
    return Touch(normal[:, None], point[:, None], distance[None])


def cube_and_cube(first: Cube, first_half: float, second: Cube, second_half: float) -> Touch:
    """Two cubes side by side: the side face of one against the nearest side face of the other.

    The normal is the side axis of least overlap. The upright edges of the other cube's face are cut
    to the height of the reference face, their ends moved along the face to within its width. Slots
    [4].

    Deviation: the simulator also looks at top and bottom faces and at edge against edge. Vases
    stand on the floor and never lie on each other, and near to upright the edge normals are those
    of faces. (Simulator versions differ from each other here, too.)
    """
    gap_first = _side_gaps(first, first_half, second, second_half)
    gap_second = _side_gaps(second, second_half, first, first_half)
    best_first, best_second = gap_first.max(0), gap_second.max(0)
    swap = best_second > best_first
    reference, incident = _swap(swap, first, second)
    gaps = jnp.where(swap, gap_second, gap_first)
    half = jnp.where(swap, second_half, first_half)
    incident_half = jnp.where(swap, first_half, second_half)

    axis_is_y = gaps[1] > gaps[0]
    axis, along = _swap(axis_is_y, reference.axes[:, 0], reference.axes[:, 1])
    between = incident.center - reference.center
    normal = jnp.where(dot(axis, between) < 0, -axis, axis)
    up = reference.axes[:, 2]

    facing = (incident.axes[:, :2] * normal[:, None]).sum(0)
    face_axis, edge = _swap(
        jnp.abs(facing[1]) > jnp.abs(facing[0]), incident.axes[:, 0], incident.axes[:, 1]
    )
    face_axis = jnp.where(dot(face_axis, normal) > 0, -face_axis, face_axis)
    face = between + incident_half * face_axis  # centre of the incident face, from the reference
    rise = incident.axes[:, 2]

    points = []
    for side in (-1, 1):
        foot = face + side * incident_half * edge
        for end in (-1, 1):
            height = (end * half - dot(foot, up)) / dot(rise, up)
            point = foot + jnp.clip(height, -incident_half, incident_half) * rise
            lateral = dot(point, along)
            excess = lateral - jnp.clip(lateral, -half, half)
            points.append(point - excess / dot(edge, along) * edge)
    relative = jnp.stack(points, axis=1)
    depth = dot(relative, normal[:, None]) - half
    apart = jnp.maximum(best_first, best_second) > 0
    distance = jnp.where(apart, jnp.maximum(depth, 0), depth)
    point = reference.center[:, None] + relative - normal[:, None] * (distance / 2)
    outward = jnp.where(swap, -normal, normal)[:, None]
    return Touch(jnp.broadcast_to(outward, point.shape), point, distance)


def _side_gaps(cube: Cube, half: float, other: Cube, other_half: float) -> Float[Array, "2 *s"]:
    """How far apart two cubes are along the two side axes of the first; negative: they overlap."""
    sides = cube.axes[:, :2]
    centers = jnp.abs((sides * (other.center - cube.center)[:, None]).sum(0))
    reach = jnp.abs((sides[:, :, None] * other.axes[:, None]).sum(0)).sum(1)
    return centers - half - other_half * reach


def _swap(condition, a, b):
    """`(b, a)` where the condition holds, else `(a, b)`."""
    first = jax.tree.map(lambda x, y: jnp.where(condition, y, x), a, b)
    second = jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
    return first, second
