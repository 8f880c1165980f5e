"""Model, optimiser and strategy joined into compiled programs."""
import time

import jax

from fcajax.train import metrics, state, step


class Engine:
  """The compiled programs of a run.

  Both steps are compiled ahead of time at their first call, so that `compile_seconds` is known
  apart from the work. States and totals that go in are donated: use what comes out.

  Args:
    model: a Linen module whose batch norms already have the strategy's axis.
    strategy: from `parallel.create`.
    optimizer: from `optimizer.make_optimizer`.
    schedule: from `optimizer.make_schedule`.
    transform: pure function of uint8 images to the model's input.
    image_shape: of one uint8 image that `transform` takes.
    total_steps: of the run.
    seed: of the initial parameters and of the steps' random numbers.
    ema_decay: 0 keeps no averaged parameters.
    **options: further arguments of `step.make_train_step`.
  """

  def __init__(self, model, strategy, optimizer, schedule, *, transform, image_shape, total_steps,
               seed=0, ema_decay=0.0, **options):
    self.strategy = strategy
    self.schedule = schedule
    self.compile_seconds = 0.0

    sample = jax.eval_shape(transform, jax.ShapeDtypeStruct((1, *image_shape), 'uint8'))

    def create():
      zeros = jax.numpy.zeros(sample.shape, sample.dtype)
      return state.create_state(model, optimizer, zeros, seed=seed, ema=bool(ema_decay))

    self._create = create
    self.state_shapes = jax.eval_shape(create)
    self.new_train_totals = strategy.initializer(metrics.train_totals)
    self.new_eval_totals = strategy.initializer(metrics.eval_totals)
    train_step = step.make_train_step(
        model, optimizer, schedule, total_steps=total_steps, transform=transform,
        ema_decay=ema_decay, axis_name=strategy.axis_name, **options)
    eval_step = step.make_eval_step(model, transform=transform, axis_name=strategy.axis_name)

    def train(current, totals, batch):
      current, measured = train_step(current, batch)
      # The next call donates the state and the totals, so waiting needs an output of its own.
      return (current, metrics.merge(totals, measured)), current.step

    def evaluate(variables, totals, batch):
      measured, probabilities = eval_step(variables, batch)
      return metrics.merge(totals, measured), probabilities

    self._functions = {'train': strategy.train(train), 'evaluate': strategy.evaluate(evaluate)}
    self._compiled = {}

  def initialize(self):
    """A new state on the devices."""
    return self.strategy.initializer(self._create)()

  def _run(self, name, *arguments):
    if name in self._compiled:
      return self._compiled[name](*arguments)
    start = time.perf_counter()
    function = self._functions[name]
    if self.strategy.ahead_of_time:
      self._compiled[name] = function.lower(*arguments).compile()
      self.compile_seconds += time.perf_counter() - start
      return self._compiled[name](*arguments)
    self._compiled[name] = function
    result = function(*arguments)
    # The call returns once its work is under way, so nearly all of its time is compilation.
    self.compile_seconds += time.perf_counter() - start
    return result

  def train(self, current, totals, batch):
    """One update: (state, totals, batch) on the devices -> (state, totals, step).

    `step` is never donated: it is ready when the update is done.
    """
    (current, totals), done = self._run('train', current, totals, batch)
    return current, totals, done

  def evaluate(self, variables, totals, batch):
    """One evaluation batch: (variables, totals, batch) -> (totals, class probabilities)."""
    return self._run('evaluate', variables, totals, batch)

  def fetch(self, totals):
    """Waits for the devices and returns the figures as floats."""
    return metrics.compute(self.strategy.to_host(totals))
