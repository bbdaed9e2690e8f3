"""Accelerators that are not there: XLA's compilers for them run on any machine.

They come with packages that nothing else here needs, and which must be of jaxlib's version:

    pip install --no-deps jax-cuda12-plugin==VERSION jax-cuda12-pjrt==VERSION  # for an H100
    pip install "libtpu==0.0.42.*"  # for a TPU v5e; of jax 0.10.2

Neither a driver nor CUDA is wanted. A process that is to compile has `ENVIRONMENT` from its start:
otherwise jax looks for the devices themselves.
"""

import importlib.util
import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
from jax.experimental import topologies

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "JAX_ENABLE_COMPILATION_CACHE": "false",  # it cannot hold a program for another device
}
PACKAGES = {"h100": "jax_plugins.xla_cuda12", "v5e": "libtpu"}

# What the compiler asks of the device; numbers of the H100 SXM as openxla describes it.
_H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
  thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  registers_per_block_limit: 65536 registers_per_core_limit: 65536
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
  dnn_version: "9.10.0"
}
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
runtime_version { major: 12 minor: 8 }
dnn_version_info { major: 9 minor: 10 }
"""


def is_installed(target: str) -> bool:
    """Whether the compiler for a target of `PACKAGES` is here."""
    try:
        return importlib.util.find_spec(PACKAGES[target]) is not None
    except ModuleNotFoundError:
        return False


def lowered(target: str, function, *arguments) -> jax.stages.Lowered:
    """A function for one device of a target, given the shapes of its arguments."""
    if target == "h100":
        topology = topologies.get_topology_desc("", "cuda", target_config=_H100, topology="1x1x1")
    else:
        topology = topologies.get_topology_desc("v5e:2x2", "tpu")
    place = jax.sharding.SingleDeviceSharding(topology.devices[0])
    there = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), arguments
    )
    return jax.jit(function, out_shardings=place).lower(*there)


class Program(NamedTuple):
    """A compiled GPU program, as XLA tells of it: the optimised HLO, and what its runtime does."""

    hlo: str
    thunks: str


# What may be put into CUDA graphs; all but loops is by default.
_GRAPHS = "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION"


def told(lowered: jax.stages.Lowered, *, loops_in_graphs: bool = False) -> Program:
    """Compiles; with `loops_in_graphs` as `--xla_gpu_enable_command_buffer=+WHILE` asks for."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "xla_dump_to": folder,
            "xla_dump_hlo_as_text": True,
            "xla_gpu_enable_command_buffer": _GRAPHS + ",WHILE" * loops_in_graphs,
        }
        program = lowered.compile(compiler_options=options)
        (thunks,) = Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt")
        return Program(program.as_text() or "", thunks.read_text())
