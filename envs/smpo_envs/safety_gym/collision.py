"""Where boxes, spheres, upright cylinders and the floor touch: contact points, depths, normals.

Arrays are laid out as in `batched`: components first, batch last. A shape with "slots" has a fixed
number of candidates; a candidate with a positive distance is no contact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from smpo_envs.compilation import stored
from smpo_envs.safety_gym.batched import cross, dot, total


class Half(NamedTuple):
    """Half the sizes of a box along its axes, m; arrays where there are several boxes, `[*s]`."""

    x: Any
    y: Any
    z: Any

    @staticmethod
    def square(side: float, height: float) -> "Half":
        """Of a box with a square base."""
        return Half(side, side, height)


class Post(NamedTuple):
    """Something round that stands fast: an upright cylinder, or a ball with its centre at 0.1 m.

    A cylinder is higher than whatever may touch it.
    """

    radius: float  # m
    ball: bool = False


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


class Box(NamedTuple):
    """An oriented box; its size is given apart, as `Half`.

    Attributes:
        center: world.
        axes: `axes[:, j]` is the j-th axis in world coordinates. The third is the one nearest to
            the vertical and points up.
    """

    center: Float[Array, "3 *s"]
    axes: Float[Array, "3 3 *s"]


class Cylinder(NamedTuple):
    """Where a cylinder is; its size is given apart, as `Round`.

    Attributes:
        center: world.
        axis: unit vector.
    """

    center: Float[Array, "3 *s"]
    axis: Float[Array, "3 *s"]


class Round(NamedTuple):
    """The size of a cylinder, m."""

    radius: float
    half_length: float


def upright_cube(center: Float[Array, "3 *s"], axes: Float[Array, "3 3 *s"]) -> Box:
    """A cube whose third axis is, of the given ones, that nearest to the vertical.

    A cube looks the same whichever of its axes comes third.
    """
    height = jnp.abs(axes[2])
    x_is_up = (height[0] > height[1]) & (height[0] > height[2])
    y_is_up = (height[1] > height[2]) & ~x_is_up
    x, y, z = axes[:, 0], axes[:, 1], axes[:, 2]
    up = jnp.where(x_is_up, x, jnp.where(y_is_up, y, z))
    first = jnp.where(x_is_up, y, jnp.where(y_is_up, z, x))
    second = jnp.where(x_is_up, z, jnp.where(y_is_up, x, y))
    return Box(center, jnp.stack([first, second, jnp.where(up[2] < 0, -up, up)], axis=1))


def floor_and_box(box: Box, half: Half) -> Touch:
    """The four corners of the box's lower face against the floor z = 0; slots [4].

    The simulator tests the corners below the centre and keeps the first four that are in the floor;
    only corners of the lowest face ever are.
    """
    x, y, up = (c * box.axes[:, i] for i, c in enumerate(half))
    corners = [a * x + b * y - up for a in (-1, 1) for b in (-1, 1)]
    point = box.center[:, None] + jnp.stack(corners, axis=1)
    distance = point[2]
    vertical = jnp.zeros_like(point).at[2].set(1)
    return Touch(vertical, point.at[2].set(distance / 2), distance)


def discs(
    first: Float[Array, "3 *s"],
    first_radius: float,
    second: Float[Array, "3 *s"],
    second_radius: float,
) -> Touch:
    """Two spheres or upright cylinders that meet at one height; slots [1]."""
    between = second - first
    gap = jnp.sqrt(dot(between, between))
    normal = between / jnp.where(gap > 0, gap, 1)
    distance = gap - first_radius - second_radius
    point = second - normal * (second_radius + distance / 2)
    return Touch(normal[:, None], point[:, None], distance[None])


def sphere_and_box(center: Float[Array, "3 *s"], radius: float, box: Box, half: Half) -> Touch:
    """The point of a box nearest to a sphere; slots [1]."""
    offset = center - box.center
    local = stored((box.axes * offset[:, None]).sum(0))
    extent = _sizes(half, local)
    to_surface = jnp.clip(local, -extent, extent) - local
    square = dot(to_surface, to_surface)
    outside = square > 0
    gap = jnp.sqrt(jnp.where(outside, square, 1))
    # With its centre inside the box, the sphere leaves through the nearest face.
    depth = extent - jnp.abs(local)
    chosen, least = _first_largest(-depth)
    inward = jnp.stack([jnp.where(chosen == i, -jnp.sign(local[i]), 0) for i in range(3)])
    normal = jnp.where(outside, to_surface / gap, inward)
    normal = stored((box.axes * normal[None]).sum(1))
    distance = jnp.where(outside, gap, least) - radius
    point = center + normal * (radius + distance / 2)
    return Touch(normal[:, None], point[:, None], distance[None])


def sphere_and_cylinder(
    center: Float[Array, "3 *s"], radius: float, cylinder: Cylinder, size: Round
) -> Touch:
    """The point of a cylinder nearest to a sphere; slots [1]."""
    offset = center - cylinder.center
    along = dot(cylinder.axis, offset)
    across = offset - along * cylinder.axis
    far = jnp.sqrt(dot(across, across))
    outward = across / jnp.where(far > 0, far, 1)
    end = jnp.clip(along, -size.half_length, size.half_length)
    nearest = end * cylinder.axis + jnp.minimum(far, size.radius) * outward
    to_surface = nearest - offset
    gap = jnp.sqrt(dot(to_surface, to_surface))
    outside = gap > 0
    # With its centre inside the cylinder, the sphere leaves through the nearer of side and end.
    to_side, to_end = size.radius - far, size.half_length - jnp.abs(along)
    inward = jnp.where(to_side < to_end, -outward, -jnp.sign(along) * cylinder.axis)
    normal = jnp.where(outside, to_surface / jnp.where(outside, gap, 1), inward)
    distance = jnp.where(outside, gap, -jnp.minimum(to_side, to_end)) - radius
    point = center + normal * (radius + distance / 2)
    return Touch(normal[:, None], point[:, None], distance[None])


def cylinder_and_box(cylinder: Cylinder, size: Round, box: Box, half: Half) -> Touch:
    """A cylinder against a box, at one point; slots [1].

    Of the faces of both, and of the direction from the axis to the nearest point of the box, the
    normal is that through which the line between the two centres leaves their overlap first: what
    the simulator's version 2 looks for. The point is that of the cylinder which is deepest along
    the normal; of a line or a disc that is equally deep, where the box is nearest.

    Deviation: of a contact along a line or a face the simulator takes some point.
    """
    axis = cylinder.axis
    between = box.center - cylinder.center
    local = (box.axes * between[:, None]).sum(0)
    extent = _sizes(half, local)
    nearest = stored(between + (box.axes * jnp.clip(-local, -extent, extent)[None]).sum(1))
    across = nearest - dot(nearest, axis) * axis
    far = jnp.sqrt(dot(across, across))
    radial = jnp.where(far > 0, across / jnp.where(far > 0, far, 1), axis)
    faces = [box.axes[:, i] for i in range(3)]
    axis, *faces = jnp.broadcast_arrays(axis, *faces, radial)
    *faces, radial = faces
    normals = jnp.stack([*faces, axis, radial], axis=1)  # [3, 5, *s]
    normals = stored(jnp.where(dot(normals, between[:, None]) < 0, -normals, normals))
    towards = dot(normals, between[:, None])
    along_axis = dot(normals, axis[:, None])
    roundness = jnp.sqrt(jnp.maximum(1 - along_axis * along_axis, 0))
    reach = size.half_length * jnp.abs(along_axis) + size.radius * roundness
    for i in range(3):
        reach = reach + extent[i] * jnp.abs(dot(normals, box.axes[:, i][:, None]))
    along_axis, depth = stored((along_axis, reach - towards))
    # How far along the line between the centres; the longest gap if there is any.
    way = depth / jnp.maximum(towards, 1e-9)
    chosen, _ = _first_largest(jnp.where(depth < 0, 1 - depth, -way / (1 + jnp.abs(way))))

    pick = lambda x: total(jnp.where(chosen == i, x[i], 0) for i in range(5))  # noqa: E731
    chosen = stored(chosen)
    normal = total(jnp.where(chosen == i, normals[:, i], 0) for i in range(5))
    normal, depth, cosine = stored((normal, pick(depth), pick(along_axis)))
    flat = 1e-3  # sine of the angle below which a line or an end lies flat
    side = normal - cosine * axis
    length = jnp.sqrt(dot(side, side))
    on_end = length < flat
    rim = size.radius * side / jnp.where(on_end, 1, length)
    held = across * jnp.minimum(1, size.radius / jnp.where(far > 0, far, 1))
    end = jnp.clip(dot(nearest, axis), -size.half_length, size.half_length)
    end = jnp.where(jnp.abs(cosine) < flat, end, jnp.sign(cosine) * size.half_length)
    point = cylinder.center + end * axis + jnp.where(on_end, held, rim) - normal * (depth / 2)
    return Touch(normal[:, None], point[:, None], -depth[None])


def post_and_box(post: Post, middle: Float[Array, "3 *s"], box: Box, half: Half) -> Touch:
    """A post against the side of a box; slots [1].

    A cylinder touches the box's nearest side or edge at its upper or its lower end, where it is
    deeper. (The simulator's version 2, which the published results are from, reports this one
    point; version 4 reports both ends.)

    Args:
        post: what stands there.
        middle: a point on its axis, of a ball its centre.
        box: the box.
        half: its size.
    """
    if post.ball:
        return sphere_and_box(middle, post.radius, box, half)
    middle, _ = jnp.broadcast_arrays(middle, box.center)
    rise = box.axes[:, 2]
    height = dot(rise, middle - box.center)
    # The points of the axis that are level with the ends of the box, as the box sees it.
    ends = [middle.at[2].add((end - height) / rise[2]) for end in (-half.z, half.z)]
    lower, upper = (sphere_and_box(end, post.radius, box, half) for end in ends)
    deeper = upper.distance < lower.distance
    return jax.tree.map(lambda a, b: jnp.where(deeper, a, b), upper, lower)


def box_and_box(first: Box, first_half: Half, second: Box, second_half: Half) -> Touch:
    """Two boxes side by side: a side face of one against the nearest side face of the other.

    The normal is the direction of least overlap: a side axis of either box, or, if one of them is
    tilted, one normal to a level edge of the one and an upright edge of the other. Along it the
    upright edges of the incident face are cut to the height of the reference face, their ends moved
    along the face to within its width. Slots [4].

    Deviation: the simulator also looks at top and bottom faces and at other pairs of edges. These
    boxes stand or hover upright beside each other. (Simulator versions differ from each other here,
    too.)
    """
    between = second.center - first.center
    gap_first = stored(_side_gaps(first, first_half, second, second_half))
    gap_second = stored(_side_gaps(second, second_half, first, first_half))
    best_first, best_second = gap_first.max(0), gap_second.max(0)
    swap = best_second > best_first
    face_gap = jnp.maximum(best_first, best_second)
    sides, _ = _swap(swap, first.axes, second.axes)
    gaps = jnp.where(swap, gap_second, gap_first)
    face_normal, _ = _swap(gaps[1] > gaps[0], sides[:, 0], sides[:, 1])
    edge_normal, edge_gap = stored(_between_edges(first, first_half, second, second_half))

    # Of two upright boxes each such direction is a side axis; the rest of the difference is noise.
    crossing = edge_gap > face_gap + 10 * jnp.finfo(face_gap.dtype).eps
    swap &= ~crossing
    normal = jnp.where(crossing, edge_normal, face_normal)
    normal, swap = stored((jnp.where(dot(normal, between) < 0, -normal, normal), swap))
    reference, incident = stored(_swap(swap, first, second))
    half, incident_half = _swap(swap, first_half, second_half)
    between, outward = jnp.where(swap, -between, between), normal
    normal = jnp.where(swap, -normal, normal)

    axis, along, half_axis, half_along = stored(_nearest_side(reference, half, normal))
    side_seen = stored(_nearest_side(incident, incident_half, -normal))
    face_axis, edge, half_face, half_edge = side_seen
    face = between + half_face * face_axis  # centre of that face, from the reference
    rise = incident.axes[:, 2]
    # Coordinates on the reference face of what is seen along the normal.
    cosine = dot(normal, axis)

    def seen(direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        slant = dot(normal, direction) / cosine
        return direction - slant * axis, slant * half_axis

    across, from_middle = stored(seen(along))
    up, from_centre = stored(seen(reference.axes[:, 2]))
    corners = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)], normal.dtype)
    side, end = corners.T.reshape(2, 4, *(1,) * (normal.ndim - 1))
    foot = face[:, None] + side * (half_edge * edge)[:, None]  # [3, 4, *s]
    height = (end * half.z - from_centre - dot(foot, up[:, None])) / dot(rise, up)
    extent = incident_half.z
    relative = stored(foot + jnp.clip(height, -extent, extent) * rise[:, None])
    lateral = dot(relative, across[:, None]) + from_middle
    excess = lateral - jnp.clip(lateral, -half_along, half_along)
    relative = stored(relative - excess / dot(edge, across) * edge[:, None])
    depth = (dot(relative, axis[:, None]) - half_axis) / cosine
    apart = jnp.maximum(face_gap, edge_gap) > 0
    distance = jnp.where(apart, jnp.maximum(depth, 0), depth)
    point = reference.center[:, None] + relative - normal[:, None] * (distance / 2)
    return Touch(jnp.broadcast_to(outward[:, None], point.shape), point, distance)


def _nearest_side(
    box: Box, half: Half, direction: Float[Array, "3 *s"]
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The side face that looks most in a direction.

    Its normal, the axis along it, and half the box's sizes along these two.
    """
    facing = (box.axes[:, :2] * direction[:, None]).sum(0)
    y_faces = jnp.abs(facing[1]) > jnp.abs(facing[0])
    axis, along = _swap(y_faces, box.axes[:, 0], box.axes[:, 1])
    half_axis, half_along = _swap(y_faces, half.x, half.y)
    return jnp.where(dot(axis, direction) < 0, -axis, axis), along, half_axis, half_along


def _sizes(half: Half, like: jax.Array) -> Float[Array, "3 *#s"]:
    """Half the sizes of boxes as one array, given one that has an axis of components in front."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in half))
    full = jnp.stack([jnp.broadcast_to(jnp.asarray(x, like.dtype), shape) for x in half])
    return full.reshape(3, *(1,) * (like.ndim - 1 - len(shape)), *shape)


def _between_edges(
    first: Box, first_half: Half, second: Box, second_half: Half
) -> tuple[Float[Array, "3 *s"], Float[Array, "*s"]]:
    """How far apart two boxes are at most along a direction between their edges, and which it is.

    Of the directions normal to a level edge of one box and an upright edge of the other.
    """
    a, b = jnp.broadcast_arrays(first.axes, second.axes)
    level = jnp.stack([a[:, 0], a[:, 1], b[:, 0], b[:, 1]], axis=1)
    rises = [b[:, 2], b[:, 2], a[:, 2], a[:, 2]]
    normal = cross(level, jnp.stack(rises, axis=1))
    normal = stored(normal * jax.lax.rsqrt(dot(normal, normal)))
    gap = jnp.abs(dot(normal, (second.center - first.center)[:, None]))
    for box, half in ((first, first_half), (second, second_half)):
        for j, size in enumerate(half):
            gap = gap - size * jnp.abs(dot(normal, box.axes[:, j][:, None]))
    chosen, best = _first_largest(stored(gap))
    return total(jnp.where(chosen == i, normal[:, i], 0) for i in range(4)), best


def _first_largest(x: Float[Array, "n *s"]) -> tuple[jax.Array, jax.Array]:
    """Which one is the largest, and how large it is.

    By comparing one after the other: that one equals the maximum need not be true where XLA
    computes one of them anew, rounded otherwise.
    """
    chosen, best = jnp.zeros(x.shape[1:], jnp.int32), x[0]
    for i in range(1, x.shape[0]):
        chosen = jnp.where(x[i] > best, i, chosen)
        best = jnp.maximum(best, x[i])
    return chosen, best


def _side_gaps(box: Box, half: Half, other: Box, other_half: Half) -> Float[Array, "2 *s"]:
    """How far apart two boxes are along the two side axes of the first; negative: they overlap."""
    sides = box.axes[:, :2]
    centers = jnp.abs((sides * (other.center - box.center)[:, None]).sum(0))
    along = jnp.abs((sides[:, :, None] * other.axes[:, None]).sum(0))
    x, y, z = other_half
    reach = x * along[:, 0] + y * along[:, 1] + z * along[:, 2]
    return centers - _sizes(half, centers)[:2] - reach


def _swap(condition, a, b):
    """`(b, a)` where the condition holds, else `(a, b)`."""
    first = jax.tree.map(lambda x, y: jnp.where(condition, y, x), a, b)
    second = jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
    return first, second
