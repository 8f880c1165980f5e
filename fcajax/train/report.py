"""What a run says at its beginning, and the summary and pictures that it leaves at its end."""
import pathlib

from fcajax.train import figures, workdir


def finished(directory, summary):
  """What a second run in the work directory of a finished one says."""
  return (f'the run in {directory} is finished: {summary["steps"]} steps, top-1 '
          f'{summary["accuracy"]:.2%}; nothing to do')


def stopped(name, step, total_steps, *, saved):
  """What a run says that a signal ended."""
  return f'stopped by {name} after step {step}/{total_steps}; ' + (
      'a checkpoint is saved, and the same command goes on from it' if saved
      else 'nothing was trained that could be saved')


def introduction(metadata, data, config, strategy, *, parameters, frozen, total_steps,
                 steps_per_epoch, directory):
  """Three lines: what is trained, for how long and on what, and where the results go."""
  devices = strategy.mesh.devices.flat
  names = ', '.join(map(str, data.class_names[:5])) + (', ...' if data.num_classes > 5 else '')
  return (
      f'{metadata["model"]["name"]}: {parameters:,} parameters'
      f'{f" ({frozen:,} of them frozen)" if frozen else ""}, {data.num_train:,} training and '
      f'{data.num_evaluation:,} evaluation images of {data.num_classes} classes ({names})\n'
      f'{total_steps:,} steps of {config.batch_size} images '
      f'({total_steps / steps_per_epoch:.1f} epochs), {config.dtype}, {config.parallelism} on '
      f'{len(devices)} x {devices[0].device_kind}\n'
      f'work directory {directory}; compiling the first step')


def summary(metadata, data, config, strategy, *, parameters, total_steps, steps_per_epoch, step,
            evaluated, best, corrupt, meter, compile_seconds, seconds):
  """The content of `summary.json`.

  'images_per_second' and 'data_wait_fraction' are of the training steps of this session, without
  compilation, evaluations and checkpoints; 'seconds' is all of it.
  """
  return workdir.plain({
      'finished': step >= total_steps,
      'model': metadata['model']['name'],
      'parameters': parameters,
      'step': step,
      'steps': total_steps,
      'epochs': round(step / steps_per_epoch, 4),
      **(evaluated or {}),
      'best': best,
      'images_per_second': round(meter.images / meter.seconds, 2) if meter.seconds else None,
      'data_wait_fraction': round(meter.wait / meter.seconds, 4) if meter.seconds else None,
      'compile_seconds': round(compile_seconds, 2),
      'seconds': round(seconds, 2),
      'batch_size': config.batch_size,
      'devices': strategy.device_count,
      'device_kind': strategy.mesh.devices.flat[0].device_kind,
      'training_images': data.num_train,
      'evaluation_images': data.num_evaluation,
      'corrupt_files': {'count': len(corrupt), 'names': corrupt[:100]},
  })


def draw(directory, writer, samples, step):
  """Writes the learning curves, sample images and their predictions, also to TensorBoard."""
  figures.learning_curves(directory)
  samples.write(directory)
  for name in ('learning_curves', 'predictions'):
    path = pathlib.Path(directory) / f'{name}.png'
    if path.is_file():
      writer.image(step=step, tag=name, path=path)


def draw_gate(directory, model, variables, data, transform):
  """Measures the gate of a trained network on the evaluation images: a JSON file and a picture."""
  from fcajax.analysis import gate_heat_map
  directory = pathlib.Path(directory)
  heat_map = gate_heat_map.gate_heat_map(
      model.clone(axis_name=None), variables, data.evaluation_batches(), transform)
  gate_heat_map.save_heat_map(heat_map, directory / gate_heat_map.FILE_NAME)
  gate_heat_map.draw(heat_map, directory / 'gate_heat_map.png')
