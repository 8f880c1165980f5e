"""Data parallelism: three ways to run one pure step on every device."""
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fcajax import distributed
from fcajax.errors import UserError

AXIS = 'batch'
NAMES = ('shard_map', 'jit', 'pmap')
# Smaller arrays cost more to gather than they save.
_FSDP_MIN_SIZE = 2**14


def create(name: str, *, devices: Sequence[jax.Device] | None = None, fsdp: bool = False,
           sync_batch_norm: bool = True) -> 'ShardMap':
  """Returns the strategy called `name`, one of `NAMES`, on `devices` (None: all of JAX's).

  - 'shard_map' (default): every device runs the step on its share of the batch; gradients are
    averaged.
  - 'jit': one program over global arrays, which the compiler divides. With `fsdp` parameters,
    averages and optimiser state are sharded too.
  - 'pmap': as 'shard_map', through `jax.pmap`.

  Raises:
    UserError: for another name, or for what a strategy cannot express.
  """
  if name not in NAMES:
    raise UserError(f'config.parallelism={name!r}; use one of {NAMES}')
  if fsdp and name != 'jit':
    raise UserError(f"config.fsdp=True needs config.parallelism='jit', not {name!r}")
  if name == 'jit' and not sync_batch_norm:
    raise UserError(
        "config.sync_batch_norm=False cannot be had with config.parallelism='jit': under jit a "
        "batch is one global array, so its statistics are global; use 'shard_map' or 'pmap'")
  devices = list(jax.devices() if devices is None else devices)
  if name == 'jit':
    return Jit(_mesh(devices), fsdp=fsdp)
  return {'shard_map': ShardMap, 'pmap': Pmap}[name](_mesh(devices))


def _mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  # The Explicit default of newer JAX refuses reshapes across the batch, as the block DCT makes.
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(key: str, size: int, devices: int, accumulate_steps: int = 1) -> None:
  """Raises UserError unless `size` images divide over the devices (and accumulation slices)."""
  parts = devices * accumulate_steps
  if size > 0 and size % parts == 0:
    return
  lower = size // parts * parts
  nearest = f'{lower} or {lower + parts}' if lower > 0 else f'{parts}'
  slices = f' in {accumulate_steps} slices each' if accumulate_steps > 1 else ''
  raise UserError(
      f'config.{key}={size} does not divide over {devices} devices{slices}; use {nearest}')


@dataclasses.dataclass(frozen=True)
class ShardMap:
  """One program a device under `jax.shard_map`; state replicated, batch split.

  `check_vma=False` goes with averaging the gradients inside the step; with `check_vma=True` the
  loss would have to be averaged instead. The other pairings are wrong by the device count.
  """

  mesh: Any
  axis_name = AXIS
  # The step sees one device's share, so batch norms need the axis to synchronise.
  norm_axis = AXIS

  @property
  def device_count(self) -> int:
    return self.mesh.size

  @property
  def ahead_of_time(self) -> bool:
    """Returns True if programs can be compiled before their first call."""
    return True

  def state_sharding(self, state: Any) -> Any:
    """Returns a tree of shardings like `state` (arrays or shapes)."""
    return jax.tree.map(lambda _: NamedSharding(self.mesh, P()), state)

  def batch_sharding(self) -> NamedSharding:
    return NamedSharding(self.mesh, P(AXIS))

  def place_state(self, state: Any) -> Any:
    """Puts a tree of host arrays (the same on every process) on the devices."""
    def place(value, sharding):
      value = np.asarray(value)
      return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
    placed = jax.tree.map(place, state, self.state_sharding(state))
    # On the CPU the devices may share the host's memory, and these buffers will be donated.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree),
                   out_shardings=self.state_sharding(state))(placed)

  def initializer(self, function: Callable[[], Any]) -> Callable[[], Any]:
    """Compiles `function() -> tree` so that the result has the sharding that the step takes."""
    shardings = self.state_sharding(jax.eval_shape(function))
    return jax.jit(function, out_shardings=shardings)

  def place_batch(self, batch: Any) -> Any:
    """Puts a process-local batch on this process's devices, as one global batch."""
    sharding = self.batch_sharding()
    return jax.tree.map(
        lambda value: jax.make_array_from_process_local_data(sharding, np.asarray(value)), batch)

  def share_shapes(self, batch: Any) -> Any:
    """Returns the shapes of a placed batch as the step sees them, up to the number of examples."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), batch)

  def state_to_save(self, state: Any) -> Any:
    """Returns the state as arrays that a checkpoint can hold, without a device axis."""
    return state

  def to_host(self, state: Any) -> Any:
    """Returns the whole state as NumPy, without a device axis; every process has to call it."""
    return jax.tree.map(distributed.fetch_all, state)

  def local_rows(self, values: Any) -> Any:
    """Returns this process's rows of a tree of outputs split over the batch, as NumPy."""
    def rows(value):
      shards = sorted(value.addressable_shards, key=lambda shard: shard.index[0].start or 0)
      return np.concatenate([np.asarray(shard.data) for shard in shards])
    return jax.tree.map(rows, values)

  def train(self, function: Callable) -> Callable:
    """Compiles `function(state, sums, batch) -> ((state, sums), step)`; both are donated."""
    mapped = jax.shard_map(
        function, mesh=self.mesh, in_specs=(P(), P(), P(AXIS)), out_specs=((P(), P()), P()),
        check_vma=False)
    return jax.jit(mapped, donate_argnums=(0, 1))

  def evaluate(self, function: Callable) -> Callable:
    """Compiles `function(variables, sums, batch) -> (sums, rows)`; the sums are donated."""
    mapped = jax.shard_map(
        function, mesh=self.mesh, in_specs=(P(), P(), P(AXIS)), out_specs=(P(), P(AXIS)),
        check_vma=False)
    return jax.jit(mapped, donate_argnums=(1,))


@dataclasses.dataclass(frozen=True)
class Jit(ShardMap):
  """Global arrays under `jax.jit`; the compiler inserts the communication.

  `fsdp` shards every large enough array of the state over the devices along its longest axis
  that they divide (fully sharded data parallelism, Rajbhandari et al. 2020, stage 3).
  """

  fsdp: bool = False
  axis_name = None
  norm_axis = None

  def state_sharding(self, state: Any) -> Any:
    def sharding(value):
      spec = P()
      if self.fsdp and value.size >= _FSDP_MIN_SIZE:
        axes = [i for i, n in enumerate(value.shape) if n % self.mesh.size == 0]
        if axes:
          longest = max(axes, key=lambda i: value.shape[i])
          spec = P(*(AXIS if i == longest else None for i in range(value.ndim)))
      return NamedSharding(self.mesh, spec)
    return jax.tree.map(sharding, state)

  def train(self, function: Callable) -> Callable:
    def step(state, sums, batch):
      (state, sums), done = function(state, sums, batch)
      state = jax.lax.with_sharding_constraint(state, self.state_sharding(state))
      return (state, sums), done
    replicated = NamedSharding(self.mesh, P())
    return jax.jit(step, out_shardings=((None, replicated), replicated), donate_argnums=(0, 1))

  def evaluate(self, function: Callable) -> Callable:
    return jax.jit(
        function, donate_argnums=(1,),
        out_shardings=(NamedSharding(self.mesh, P()), self.batch_sharding()))


@dataclasses.dataclass(frozen=True)
class Pmap(ShardMap):
  """One program a device under `jax.pmap`; every array of the state has a leading device axis."""

  @property
  def ahead_of_time(self) -> bool:
    # A program compiled ahead asks for the arrays of all processes, where pmap takes its own.
    return jax.process_count() == 1

  @property
  def _local_devices(self) -> list[jax.Device]:
    return [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]

  def _local_sharding(self) -> NamedSharding:
    return NamedSharding(_mesh(self._local_devices), P(AXIS))

  def place_state(self, state: Any) -> Any:
    count = len(self._local_devices)
    sharding = self._local_sharding()
    def place(value):
      value = np.asarray(value)
      return jax.make_array_from_callback(
          (count, *value.shape), sharding, lambda _: np.array(value[None]))
    placed = jax.tree.map(place, state)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)(placed)

  def initializer(self, function: Callable[[], Any]) -> Callable[[], Any]:
    count = len(self._local_devices)
    def copies():
      return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), function())
    return jax.jit(copies, out_shardings=self._local_sharding())

  def place_batch(self, batch: Any) -> Any:
    count = len(self._local_devices)
    sharding = self._local_sharding()
    def place(value):
      value = np.asarray(value)
      return jax.device_put(value.reshape(count, -1, *value.shape[1:]), sharding)
    return jax.tree.map(place, batch)

  def share_shapes(self, batch: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)

  def state_to_save(self, state: Any) -> Any:
    return self.to_host(state)

  def to_host(self, state: Any) -> Any:
    return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data[0]), state)

  def local_rows(self, values: Any) -> Any:
    return jax.tree.map(
        lambda rows: rows.reshape(-1, *rows.shape[2:]), super().local_rows(values))

  def train(self, function: Callable) -> Callable:
    return jax.pmap(function, AXIS, devices=self._devices(), donate_argnums=(0, 1))

  def evaluate(self, function: Callable) -> Callable:
    return jax.pmap(function, AXIS, devices=self._devices(), donate_argnums=(1,))

  def _devices(self) -> list[jax.Device]:
    return list(self.mesh.devices.flat)

