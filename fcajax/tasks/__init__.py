"""What a network is trained for: the protocol (`base`), the tasks, and how they are found."""
from fcajax.tasks.base import Collector, Data, Metric, Prediction, Task
from fcajax.tasks.metrics import Mean, averages
from fcajax.tasks.registry import TASKS, get, of_metadata

__all__ = ['TASKS', 'Collector', 'Data', 'Mean', 'Metric', 'Prediction', 'Task', 'averages', 'get',
           'of_metadata']
