"""One of two processes that train together; started by test_parallel.py.

    python one_process.py RANK PORT WORKDIR
"""
import sys

import jax

from tests.helpers import tiny

RANK, PORT, WORKDIR = int(sys.argv[1]), sys.argv[2], sys.argv[3]


class HalfIterator(tiny.TinyIterator):
  """This process's images of every batch; its state belongs to this process."""

  def __next__(self):
    return {name: value[RANK::2] for name, value in super().__next__().items()}

  def get_state(self):
    return super().get_state() | {'rank': RANK}

  def set_state(self, state):
    assert state['rank'] == RANK
    super().set_state(state)


class HalfPipeline(tiny.TinyPipeline):
  iterator_class = HalfIterator

  def evaluation_batches(self):
    for batch in super().evaluation_batches():
      yield {name: value[RANK::2] for name, value in batch.items()}


def main():
  jax.distributed.initialize(f'localhost:{PORT}', 2, RANK)
  from fcajax import distributed
  from fcajax.train import loop, parallel
  assert jax.device_count() == 4 and jax.local_device_count() == 2
  assert distributed.gather([{'rank': RANK}] * (RANK + 1)) == 1 * [{'rank': 0}] + 2 * [{'rank': 1}]
  assert distributed.largest(RANK) == 1 and distributed.same_everywhere(RANK) == 0
  parallel._FSDP_MIN_SIZE = 16
  for steps in (4, 6):
    config = tiny.make_config(**{
        'num_steps': steps, 'parallelism': 'jit', 'fsdp': True, 'optimizer.schedule': 'constant'})
    loop.train(config, f'{WORKDIR}/two', HalfPipeline(), model=tiny.TinyNet(),
               resume_with_changes=True)


if __name__ == '__main__':
  main()
