"""Data parallelism: three ways to run one pure step on every device."""
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from fcajax.train.errors import UserError

AXIS = 'batch'
NAMES = ('shard_map', 'jit', 'pmap')
# Smaller arrays cost more to gather than they save.
_FSDP_MIN_SIZE = 2**14


def create(name, *, devices=None, fsdp=False, sync_batch_norm=True):
  """Returns the strategy called `name`.

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


def _mesh(devices):
  # The Explicit default of newer JAX refuses reshapes across the batch, as the block DCT makes.
  return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def check_batch_size(key, size, devices, accumulate_steps=1):
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
  def device_count(self):
    return self.mesh.size

  @property
  def ahead_of_time(self):
    """Whether programs can be compiled before their first call."""
    return True

  def state_sharding(self, state):
    """A tree of shardings like `state` (arrays or shapes)."""
    return jax.tree.map(lambda _: NamedSharding(self.mesh, P()), state)

  def batch_sharding(self):
    return NamedSharding(self.mesh, P(AXIS))

  def place_state(self, state):
    """Puts a tree of host arrays (the same on every process) on the devices."""
    def place(value, sharding):
      value = np.asarray(value)
      return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])
    placed = jax.tree.map(place, state, self.state_sharding(state))
    # On the CPU the devices may share the host's memory, and these buffers will be donated.
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree),
                   out_shardings=self.state_sharding(state))(placed)

  def initializer(self, function):
    """Compiles `function() -> tree` so that the result lies where the step wants it."""
    shardings = self.state_sharding(jax.eval_shape(function))
    return jax.jit(function, out_shardings=shardings)

  def place_batch(self, batch):
    """Puts a process-local batch on this process's devices, as one global batch."""
    sharding = self.batch_sharding()
    return {
        name: jax.make_array_from_process_local_data(sharding, np.asarray(value))
        for name, value in batch.items()
    }

  def state_to_save(self, state):
    """The state as arrays that a checkpoint can hold, without a device axis."""
    return state

  def to_host(self, state):
    """The whole state as NumPy, without a device axis; every process has to call it."""
    def fetch(value):
      if value.is_fully_addressable or value.is_fully_replicated:
        return np.asarray(value)
      from jax.experimental import multihost_utils
      return multihost_utils.process_allgather(value, tiled=True)
    return jax.tree.map(fetch, state)

  def local_rows(self, values):
    """This process's rows of an output that is split over the batch, as NumPy."""
    shards = sorted(values.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])

  def train(self, function):
    """Wraps `function(state, totals, batch) -> ((state, totals), step)`; both are donated."""
    mapped = jax.shard_map(
        function, mesh=self.mesh, in_specs=(P(), P(), P(AXIS)), out_specs=((P(), P()), P()),
        check_vma=False)
    return jax.jit(mapped, donate_argnums=(0, 1))

  def evaluate(self, function):
    """Wraps `function(variables, totals, batch) -> (totals, rows)`; the totals are donated."""
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

  def state_sharding(self, state):
    def sharding(value):
      spec = P()
      if self.fsdp and value.size >= _FSDP_MIN_SIZE:
        axes = [i for i, n in enumerate(value.shape) if n % self.mesh.size == 0]
        if axes:
          longest = max(axes, key=lambda i: value.shape[i])
          spec = P(*(AXIS if i == longest else None for i in range(value.ndim)))
      return NamedSharding(self.mesh, spec)
    return jax.tree.map(sharding, state)

  def train(self, function):
    def step(state, totals, batch):
      (state, totals), done = function(state, totals, batch)
      state = jax.lax.with_sharding_constraint(state, self.state_sharding(state))
      return (state, totals), done
    replicated = NamedSharding(self.mesh, P())
    return jax.jit(step, out_shardings=((None, replicated), replicated), donate_argnums=(0, 1))

  def evaluate(self, function):
    return jax.jit(
        function, donate_argnums=(1,),
        out_shardings=(NamedSharding(self.mesh, P()), self.batch_sharding()))


@dataclasses.dataclass(frozen=True)
class Pmap(ShardMap):
  """One program a device under `jax.pmap`; every array of the state has a leading device axis."""

  @property
  def ahead_of_time(self):
    # A program compiled ahead asks for the arrays of all processes, where pmap takes its own.
    return jax.process_count() == 1

  @property
  def _local_devices(self):
    return [d for d in self.mesh.devices.flat if d.process_index == jax.process_index()]

  def _local_sharding(self):
    return NamedSharding(_mesh(self._local_devices), P(AXIS))

  def place_state(self, state):
    count = len(self._local_devices)
    sharding = self._local_sharding()
    def place(value):
      value = np.asarray(value)
      return jax.make_array_from_callback(
          (count, *value.shape), sharding, lambda _: np.array(value[None]))
    placed = jax.tree.map(place, state)
    return jax.jit(lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=sharding)(placed)

  def initializer(self, function):
    count = len(self._local_devices)
    def copies():
      return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), function())
    return jax.jit(copies, out_shardings=self._local_sharding())

  def place_batch(self, batch):
    count = len(self._local_devices)
    sharding = self._local_sharding()
    result = {}
    for name, value in batch.items():
      value = np.asarray(value)
      result[name] = jax.device_put(value.reshape(count, -1, *value.shape[1:]), sharding)
    return result

  def state_to_save(self, state):
    return self.to_host(state)

  def to_host(self, state):
    return jax.tree.map(lambda x: np.array(x.addressable_shards[0].data[0]), state)

  def local_rows(self, values):
    rows = super().local_rows(values)
    return rows.reshape(-1, *rows.shape[2:])

  def train(self, function):
    return jax.pmap(function, AXIS, devices=self._devices(), donate_argnums=(0, 1))

  def evaluate(self, function):
    return jax.pmap(function, AXIS, devices=self._devices(), donate_argnums=(1,))

  def _devices(self):
    return list(self.mesh.devices.flat)


def same_everywhere(value):
  """The first process's value; a collective call where there are several processes."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils
  return type(value)(multihost_utils.broadcast_one_to_all(np.array(value)))
