"""Random keys as other libraries hand them out."""

import jax
from jaxtyping import PRNGKeyArray


def typed_key(key: jax.Array) -> PRNGKeyArray:
    """The key, also where it is a raw one (`jax.random.PRNGKey`, `[2]` of uint32)."""
    is_typed = jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
    return key if is_typed else jax.random.wrap_key_data(key)
