"""Where two convex bodies overlap, by refining a portal as the simulator's version 2 does.

The points of one body minus those of the other are a convex body again, which contains the origin
where they overlap. The ray from the difference of their centres through the origin leaves it
somewhere; a triangle of its points that the ray goes through, the portal, is moved outwards until
no point is further out than it (Snethen 2008, "XenoCollide", Game Programming Gems 7). The overlap
is how far the portal then is from the origin.

Arrays are laid out as in `batched`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from smpo_envs.compilation import stored
from smpo_envs.safety_gym.batched import Tree, cross, dot

Support = Callable[[Float[Array, "3 B"]], Float[Array, "3 B"]]  # a body's farthest point that way

TOLERANCE = 1e-6  # m, as the simulator has it: how much further out a point may be
_ASIDE = 1e-15  # m⁴: square of a cross product below which two vectors are parallel
# More than were ever needed for a wheel and a box in 6 000 places: 2, and 20 of the refinement.
_STARTS, _TRIPS = 3, 24


class Vertex(NamedTuple):
    """A point of the difference, and that of the first body which it is from."""

    at: Float[Array, "3 B"]
    first: Float[Array, "3 B"]


class Portal(NamedTuple):
    """Three points around the ray, seen from inside counterclockwise."""

    one: Vertex
    two: Vertex
    three: Vertex


class Overlap(NamedTuple):
    """How two bodies overlap.

    Attributes:
        normal: unit vector from the first body to the second.
        point: about midway between the two surfaces, world.
        depth: by how much; anything where they do not.
        is_there: whether they do.
    """

    normal: Float[Array, "3 B"]
    point: Float[Array, "3 B"]
    depth: Float[Array, " B"]
    is_there: Bool[Array, " B"]


def overlap(
    first: Support,
    second: Support,
    first_center: Float[Array, "3 B"],
    second_center: Float[Array, "3 B"],
    *,
    early: bool,
) -> Overlap:
    """Of pairs of bodies, given their farthest points in any direction and a point inside each.

    Args:
        first: the first bodies.
        second: the second bodies.
        first_center: inside the first.
        second_center: inside the second.
        early: whether to end with the last pair, or after as many trips as any pair needs, which is
            faster where someone else has to ask for it.
    """

    def vertex(direction: Float[Array, "3 B"]) -> Vertex:
        at_first = first(direction)
        return stored(Vertex(at_first - second(-direction), at_first))

    center = stored(first_center - second_center)
    start = _unit(-center)
    one = vertex(start)
    aside = stored(cross(center, one.at))
    # The ray goes through that very point.
    is_straight = dot(aside, aside) <= _ASIDE
    two = vertex(_unit(aside))
    meets = (dot(one.at, start) > 0) & (is_straight | (dot(two.at, aside) > 0))
    outward = cross(one.at - center, two.at - center)
    turned = dot(outward, center) > 0
    found = (_either(turned, two, one), _either(turned, one, two), two, meets, is_straight)

    def begin(_: int, carry: tuple) -> tuple:
        one, two, three, meets, settled = carry
        outward = _unit(cross(one.at - center, two.at - center))
        three = _either(settled, three, vertex(outward))
        meets &= settled | (dot(three.at, outward) > 0)
        eps = jnp.finfo(outward.dtype).eps
        past_one = ~settled & (dot(cross(one.at, three.at), center) < -eps)
        past_two = ~settled & ~past_one & (dot(cross(three.at, two.at), center) < -eps)
        settled |= ~past_one & ~past_two
        one, two = _either(past_two, three, one), _either(past_one, three, two)
        return one, two, three, meets, settled

    one, two, three, meets, _ = jax.lax.fori_loop(0, _STARTS, begin, found)

    def refine(_: int, carry: tuple) -> tuple:
        portal, meets, encloses, done = carry
        outward = stored(_outward(portal))
        encloses |= dot(outward, portal.one.at) >= 0
        four = vertex(outward)
        ahead = jnp.stack([dot(four.at - own.at, outward) for own in portal]).min(0)
        is_near = ahead <= TOLERANCE
        meets &= done | encloses | ((dot(four.at, outward) >= 0) & ~is_near)
        done |= is_near | ~meets
        return _either(done, portal, _around(portal, four, center)), meets, encloses, done

    portal = Portal(one, two, three)
    refined = (portal, meets, jnp.zeros_like(meets), is_straight | ~meets)
    if early:

        def unfinished(carry: tuple) -> Bool[Array, ""]:
            trip, (_, _, _, done) = carry
            return (trip < _TRIPS) & ~done.all()

        once_more = lambda carry: (carry[0] + 1, refine(carry[0], carry[1]))  # noqa: E731
        _, refined = jax.lax.while_loop(unfinished, once_more, (jnp.int32(0), refined))
    else:
        refined = jax.lax.fori_loop(0, _TRIPS, refine, refined)
    portal, meets, _, _ = refined

    nearest = stored(_nearest(portal))
    nearest = jnp.where(is_straight, one.at, nearest)
    depth = jnp.sqrt(dot(nearest, nearest))
    point = _between(portal, center, first_center)
    point = jnp.where(is_straight, one.first - one.at / 2, point)
    normal = jnp.where(depth > 0, nearest / jnp.where(depth > 0, depth, 1), _outward(portal))
    return Overlap(normal, point, depth, meets)


def _outward(portal: Portal) -> Float[Array, "3 B"]:
    """The portal's normal."""
    one, two, three = (own.at for own in portal)
    return _unit(cross(two - one, three - one))


def _around(portal: Portal, four: Vertex, center: Float[Array, "3 B"]) -> Portal:
    """That face of portal and fourth point through which the ray goes."""
    one, two, three = portal
    side = stored(cross(four.at, center))
    past_one = dot(one.at, side) > 0
    takes_one = jnp.where(past_one, dot(two.at, side) > 0, dot(three.at, side) <= 0)
    takes_two, takes_three = ~past_one & ~takes_one, past_one & ~takes_one
    return Portal(
        _either(takes_one, four, one),
        _either(takes_two, four, two),
        _either(takes_three, four, three),
    )


def _nearest(portal: Portal) -> Float[Array, "3 B"]:
    """The portal's point that is nearest to the origin."""
    one, two, three = (own.at for own in portal)
    across = stored(cross(two - one, three - one))
    square = jnp.maximum(dot(across, across), 1e-30)
    within = across * (dot(one, across) / square)
    is_inside = jnp.ones_like(square, bool)
    best, least = within, jnp.full_like(square, jnp.inf)
    for a, b in ((one, two), (two, three), (three, one)):
        along = b - a
        is_inside &= dot(cross(along, within - a), across) >= 0
        share = -dot(a, along) / jnp.maximum(dot(along, along), 1e-30)
        on_edge = a + jnp.clip(share, 0, 1) * along
        far = dot(on_edge, on_edge)
        best, least = jnp.where(far < least, on_edge, best), jnp.minimum(far, least)
    return jnp.where(is_inside, within, best)


def _between(
    portal: Portal, center: Float[Array, "3 B"], first_center: Float[Array, "3 B"]
) -> Float[Array, "3 B"]:
    """Midway between the points of both bodies that the origin is the difference of.

    By its weights in the tetrahedron of the centre and the portal; or, where that is flat, in the
    portal's plane.
    """
    vertices = (Vertex(center, first_center), *portal)
    zero, one, two, three = (own.at for own in vertices)
    inner = [
        dot(cross(one, two), three),
        dot(cross(three, two), zero),
        dot(cross(zero, one), three),
        dot(cross(two, one), zero),
    ]
    outward = _outward(portal)
    outer = [jnp.zeros_like(inner[0])]
    outer += [dot(cross(a, b), outward) for a, b in ((two, three), (three, one), (one, two))]
    is_flat = inner[0] + inner[1] + inner[2] + inner[3] <= 0
    weights = stored([jnp.where(is_flat, b, a) for a, b in zip(inner, outer, strict=True)])
    total = weights[0] + weights[1] + weights[2] + weights[3]
    halfway = [own.first - own.at / 2 for own in vertices]
    summed = sum(w * x for w, x in zip(weights, halfway, strict=True))
    return summed / jnp.where(total == 0, 1, total)


def _unit(x: Float[Array, "3 B"]) -> Float[Array, "3 B"]:
    return x / jnp.sqrt(jnp.maximum(dot(x, x), 1e-30))


def _either(condition: Bool[Array, " B"], a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
