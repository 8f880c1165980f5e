"""What a run says at its beginning, and the summary that it leaves at its end."""
from fcajax.train import workdir


def introduction(metadata, data, config, strategy, *, parameters, total_steps, steps_per_epoch,
                 directory):
  """Three lines: what is trained, for how long and on what, and where the results go."""
  devices = strategy.mesh.devices.flat
  names = ', '.join(map(str, data.class_names[:5])) + (', ...' if data.num_classes > 5 else '')
  return (
      f'{metadata["model"]["name"]}: {parameters:,} parameters, {data.num_train:,} training and '
      f'{data.num_evaluation:,} evaluation images of {data.num_classes} classes ({names})\n'
      f'{total_steps:,} steps of {config.batch_size} images '
      f'({total_steps / steps_per_epoch:.1f} epochs), {config.dtype}, {config.parallelism} on '
      f'{len(devices)} x {devices[0].device_kind}\n'
      f'work directory {directory}; compiling the first step')


def summary(metadata, data, config, strategy, *, parameters, total_steps, steps_per_epoch, step,
            evaluated, best, meter, compile_seconds, seconds):
  """The content of `summary.json`.

  'images_per_second' and 'data_wait_fraction' are of the training steps of this session, without
  compilation, evaluations and checkpoints; 'seconds' is all of it.
  """
  corrupt = list(data.corrupt_files())
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
