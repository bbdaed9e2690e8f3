"""Where boxes, spheres, upright cylinders and the floor touch: contact points, depths, normals.

Arrays are laid out as in `batched`: components first, batch last. A shape with "slots" has a fixed
number of candidates; a candidate with a positive distance is no contact.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from smpo_envs.compilation import one_kernel, stored
from smpo_envs.safety_gym import portal
from smpo_envs.safety_gym.batched import cross, dot, total

_PARALLEL = 1e-3  # sine between edges that are taken to be parallel
_FEW = 512  # pairs of bodies, at most, that a CPU is to look at in one kernel


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
    """A cylinder against a box, at one point, as the simulator's version 2 finds it; slots [1].

    Near the cylinder's round side the normal is that of the side. Where there is no contact the
    distance is 1 m (see `cylinder_apart_from_box`).
    """
    axis, center, beside = jnp.broadcast_arrays(cylinder.axis, cylinder.center, box.center)
    extent = jnp.broadcast_to(_sizes(half, center), center.shape)
    axes = jnp.broadcast_to(box.axes, (3, *center.shape))
    flat = lambda x: x.reshape(*x.shape[: -len(center.shape[1:])], -1)  # noqa: E731
    pairs = stored(_Pairs(flat(center), flat(axis), flat(beside), flat(extent), flat(axes)))
    few = pairs.center.shape[1] <= _FEW
    touch = one_kernel(_meeting, size, pairs, elsewhere=_meeting_in_step, pays=few)
    return jax.tree.map(lambda x: x.reshape(*x.shape[:-1], *center.shape[1:]), touch)


class _Pairs(NamedTuple):
    """Cylinders and boxes.

    Attributes:
        center: of the cylinder.
        axis: of the cylinder.
        beside: the box's centre.
        extent: half the box's sizes.
        axes: of the box.
    """

    center: Float[Array, "3 B"]
    axis: Float[Array, "3 B"]
    beside: Float[Array, "3 B"]
    extent: Float[Array, "3 B"]
    axes: Float[Array, "3 3 B"]


def _meeting_in_step(size: Round, pairs: _Pairs) -> Touch:
    return _meeting(size, pairs, early=False)


def _meeting(size: Round, pairs: _Pairs, *, early: bool = True) -> Touch:
    """What `cylinder_and_box` finds; slots [1]."""
    center, axis, beside, extent, axes = pairs

    def of_cylinder(direction: Float[Array, "3 B"]) -> Float[Array, "3 B"]:
        along = dot(axis, direction)
        side = stored(direction - along * axis)
        # Twice, for directions along the axis: of what is left then most may be round-off.
        side = side - dot(axis, side) * axis
        length = jnp.sqrt(dot(side, side))
        outward = side * (size.radius / jnp.maximum(length, 1e-15))
        return center + outward + jnp.where(along < 0, -size.half_length, size.half_length) * axis

    def of_box(direction: Float[Array, "3 B"]) -> Float[Array, "3 B"]:
        local = stored(total(axes[i] * direction[i] for i in range(3)))
        corner = jnp.where(local < 0, -extent, extent)
        return beside + total(axes[:, i] * corner[i] for i in range(3))

    found = portal.overlap(of_cylinder, of_box, center, beside, early=early)
    offset = found.point - center
    along = dot(axis, offset)
    side = offset - along * axis
    length = jnp.sqrt(dot(side, side))
    to_end = size.half_length - jnp.abs(along)
    near_side = 0.25 * jnp.abs(size.radius - length)
    is_round = (to_end >= 0.05 * size.half_length) & (to_end >= near_side)
    normal = jnp.where(is_round, side / jnp.where(length > 0, length, 1), found.normal)
    distance = jnp.where(found.is_there, -found.depth, 1)
    return Touch(normal[:, None], found.point[:, None], distance[None])


def cylinder_apart_from_box(
    cylinder: Cylinder, size: Round, box: Box, half: Half
) -> Float[Array, "*s"]:
    """At least how far a cylinder is from a box, m; 0 or less where they may touch.

    The widest gap along the faces of both and the way from the cylinder's axis to the nearest point
    of the box.
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
    normals = stored(jnp.stack(jnp.broadcast_arrays(*faces, axis, radial), axis=1))  # [3, 5, *s]
    along_axis = dot(normals, axis[:, None])
    roundness = jnp.sqrt(jnp.maximum(1 - along_axis * along_axis, 0))
    reach = size.half_length * jnp.abs(along_axis) + size.radius * roundness
    for i in range(3):
        reach = reach + extent[i] * jnp.abs(dot(normals, box.axes[:, i][:, None]))
    return (jnp.abs(dot(normals, between[:, None])) - reach).max(0)


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


def box_and_box(
    first: Box, first_half: Half, second: Box, second_half: Half, *, hovers: bool = False
) -> Touch:
    """Two boxes side by side: a side face of one against the nearest side face of the other.

    The normal is the direction of least overlap: a side axis of either box, or, if one of them is
    tilted, one normal to a level edge of the one and an upright edge of the other. Along it the
    upright edges of the incident face are cut to the height of the reference face, their ends moved
    along the face to within its width. Slots [4].

    All as the simulator's version 2 has it: where a face is met it counts half of the depth (mended
    in 3.4.0), and only the nearer upright edge of a face that is seen at more than 30 degrees;
    where edges meet, no more than the first one of the reference face's corners.

    If the second `hovers`, the way apart may also be up: then both are looked at laid on their
    sides, their top and bottom faces and level edges in the place of side faces and upright edges.

    Deviation: the simulator also looks at other pairs of edges, and where a face is above another
    one it finds all corners of what both cover, up to eight; where level edges meet there, ours are
    up to 4 mm more or less deep.
    """
    way = _way_apart(first, first_half, second, second_half, hovers=hovers)
    if hovers:
        first, first_half, second, second_half = _laid_over(
            way.is_over, first, first_half, second, second_half
        )
    normal, swap = way.normal, way.swap
    reference, incident = stored(_swap(swap, first, second))
    half, incident_half = _swap(swap, first_half, second_half)
    between = second.center - first.center
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
    edge_across, edge_up, rise_across, rise_up = stored(
        tuple(dot(a, b) for a in (edge, rise) for b in (across, up))
    )
    corners = np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)], normal.dtype)
    side, end = corners.T.reshape(2, 4, *(1,) * (normal.ndim - 1))
    # Where on the incident face, from its middle: along its level edge and up its upright one.
    height = end * half.z - from_centre - dot(face, up)
    middle = dot(face, across) + from_middle
    extent = incident_half.z
    aside = side * half_edge
    above = jnp.clip((height - aside * edge_up) / rise_up, -extent, extent)
    lateral = middle + aside * edge_across + above * rise_across
    within = jnp.clip(lateral, -half_along, half_along)
    is_moved, moved = stored((lateral != within, within - middle))
    determinant = edge_across * rise_up - edge_up * rise_across
    to_corner = (height * edge_across - moved * edge_up) / determinant
    above = stored(jnp.where(is_moved, jnp.clip(to_corner, -extent, extent), above))
    aside = jnp.where(is_moved, (moved - above * rise_across) / edge_across, aside)
    relative = face[:, None] + aside * edge[:, None] + above * rise[:, None]
    depth = (dot(relative, axis[:, None]) - half_axis) / cosine

    slant = dot(normal, edge)
    is_nearer = (jnp.abs(slant) < 0.5) | (side * slant < 0)
    # In which order the simulator goes through the corners depends on which face it is.
    ahead = end * dot(axis, reference.axes[:, 0] + reference.axes[:, 1]) < 0
    ahead, right = ahead.astype(depth.dtype), (lateral > 0).astype(depth.dtype)
    is_x = jnp.abs(dot(axis, reference.axes[:, 0])) > 0.5
    is_corner = is_moved & (jnp.abs(to_corner) < extent)
    order = jnp.where(is_x, 2 * ahead + right, 2 * right + ahead)
    order = stored(jnp.where(is_corner, order, 4))
    is_first = ~is_corner | (order == order.min(0))
    depth = jnp.where(jnp.where(way.crosses, is_first, is_nearer), depth, 1)
    distance = jnp.where(way.gap > 0, jnp.maximum(depth, way.gap), depth)
    point = reference.center[:, None] + relative - normal[:, None] * (distance / 2)
    distance = jnp.where(way.crosses, distance, distance / 2)
    return Touch(jnp.broadcast_to(outward[:, None], point.shape), point, distance)


def _laid_over(
    is_over: Bool[Array, "*s"], first: Box, first_half: Half, second: Box, second_half: Half
) -> tuple[Box, Half, Box, Half]:
    """Both boxes, their axes called otherwise where one is above the other.

    The third axis comes first there, and third a level one: of the second box the more parallel to
    the first's.
    """
    a, b = jnp.broadcast_arrays(first.axes, second.axes)
    cosines = jnp.abs(dot(a[:, 0][:, None], b[:, :2]))
    turned = cosines[1] > cosines[0]

    def called(x: Any, y: Any, z: Any, turned: Any) -> list[jax.Array]:
        level, rise = jnp.where(turned, x, y), jnp.where(turned, y, x)
        return [jnp.where(is_over, new, old) for new, old in ((z, x), (level, y), (rise, z))]

    def of(box: Box, axes: jax.Array, half: Half, turned: Any) -> tuple[Box, Half]:
        own = jnp.stack(called(axes[:, 0], axes[:, 1], axes[:, 2], turned), axis=1)
        return Box(box.center, own), Half(*called(*half, turned))

    return *of(first, a, first_half, False), *of(second, b, second_half, turned)


class _Way(NamedTuple):
    """The direction of least overlap of two boxes.

    Attributes:
        normal: from the first to the second.
        swap: whether it is a side axis of the second.
        crosses: whether it is between two edges.
        gap: how far apart they are along it; negative: they overlap.
        is_over: whether it is up: of all faces' axes the overlap is least along a third one.
    """

    normal: Float[Array, "3 *s"]
    swap: Bool[Array, "*s"]
    crosses: Bool[Array, "*s"]
    gap: Float[Array, "*s"]
    is_over: Bool[Array, "*s"]


def _way_apart(
    first: Box, first_half: Half, second: Box, second_half: Half, *, hovers: bool
) -> _Way:
    """Of the directions that `box_and_box` looks at."""
    between = second.center - first.center
    faces = 3 if hovers else 2
    gap_first = stored(_face_gaps(first, first_half, second, second_half)[:faces])
    gap_second = stored(_face_gaps(second, second_half, first, first_half)[:faces])
    best_first, best_second = gap_first.max(0), gap_second.max(0)
    swap = best_second > best_first
    face_gap = jnp.maximum(best_first, best_second)
    sides, _ = _swap(swap, first.axes, second.axes)
    gaps = jnp.where(swap, gap_second, gap_first)
    face_normal, _ = _swap(gaps[1] > gaps[0], sides[:, 0], sides[:, 1])
    is_over = stored(gaps[2] > gaps[:2].max(0)) if hovers else jnp.zeros_like(swap)
    if hovers:
        face_normal = jnp.where(is_over, sides[:, 2], face_normal)
    edges = _edges_up(first, second, is_over) if hovers else _edges(first, second)
    edge_normal, edge_gap = stored(_between(edges, first, first_half, second, second_half))

    # Of two upright boxes each such direction is a side axis; the rest of the difference is noise.
    crosses = edge_gap > face_gap + 10 * jnp.finfo(face_gap.dtype).eps
    normal = jnp.where(crosses, edge_normal, face_normal)
    normal = jnp.where(dot(normal, between) < 0, -normal, normal)
    gap = jnp.maximum(face_gap, edge_gap)
    return stored(_Way(normal, swap & ~crosses, crosses, gap, is_over))


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


def _edges(first: Box, second: Box) -> tuple[Float[Array, "3 4 *s"], Float[Array, "3 4 *s"]]:
    """Pairs of edges, one of each box: the level ones of one and the upright ones of the other."""
    a, b = jnp.broadcast_arrays(first.axes, second.axes)
    level = jnp.stack([a[:, 0], a[:, 1], b[:, 0], b[:, 1]], axis=1)
    return level, jnp.stack([b[:, 2], b[:, 2], a[:, 2], a[:, 2]], axis=1)


def _edges_up(
    first: Box, second: Box, is_over: Bool[Array, "*s"]
) -> tuple[Float[Array, "3 4 *s"], Float[Array, "3 4 *s"]]:
    """The same, and where one box is above the other pairs of level edges."""
    a, b = jnp.broadcast_arrays(first.axes, second.axes)
    level = jnp.stack([a[:, 0], a[:, 0], a[:, 1], a[:, 1]], axis=1)
    other = jnp.stack([b[:, 0], b[:, 1], b[:, 0], b[:, 1]], axis=1)
    pairs = zip((level, other), _edges(first, second), strict=True)
    level, other = (jnp.where(is_over, over, beside) for over, beside in pairs)
    return level, other


def _between(
    edges: tuple[Float[Array, "3 4 *s"], Float[Array, "3 4 *s"]],
    first: Box,
    first_half: Half,
    second: Box,
    second_half: Half,
) -> tuple[Float[Array, "3 *s"], Float[Array, "*s"]]:
    """Which direction, of those normal to a pair of edges, is that of least overlap; the gap."""
    normal = cross(*edges)
    square = dot(normal, normal)
    normal = stored(normal * jax.lax.rsqrt(square))
    gap = jnp.abs(dot(normal, (second.center - first.center)[:, None]))
    for box, half in ((first, first_half), (second, second_half)):
        for j, size in enumerate(half):
            gap = gap - size * jnp.abs(dot(normal, box.axes[:, j][:, None]))
    # Parallel edges have no direction between them.
    chosen, best = _first_largest(stored(jnp.where(square > _PARALLEL**2, gap, -jnp.inf)))
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


def _face_gaps(box: Box, half: Half, other: Box, other_half: Half) -> Float[Array, "3 *s"]:
    """How far apart two boxes are along the axes of the first; negative: they overlap."""
    centers = jnp.abs((box.axes * (other.center - box.center)[:, None]).sum(0))
    along = jnp.abs((box.axes[:, :, None] * other.axes[:, None]).sum(0))
    x, y, z = other_half
    reach = x * along[:, 0] + y * along[:, 1] + z * along[:, 2]
    return centers - _sizes(half, centers) - reach


def _swap(condition, a, b):
    """`(b, a)` where the condition holds, else `(a, b)`."""
    first = jax.tree.map(lambda x, y: jnp.where(condition, y, x), a, b)
    second = jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
    return first, second
