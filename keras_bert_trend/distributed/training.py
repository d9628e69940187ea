"""`fit` under a strategy of `tf.distribute`: with strings, over several workers, resumed where it was stopped."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_bert_trend._utils import check_count

if TYPE_CHECKING:
    import tensorflow as tf


def fit(
    model: keras.Model,
    dataset: tf.data.Dataset,
    strategy: tf.distribute.Strategy,
    *,
    epochs: int = 1,
    validation_data: tf.data.Dataset | None = None,
    callbacks: Sequence[keras.callbacks.Callback] | None = None,
    checkpoint_dir: str | os.PathLike[str] | None = None,
    checkpoint_every: int | None = None,
    verbose: int | str = 0,
) -> keras.callbacks.History:
    """Train a model under a strategy, as `Model.fit` does.

    Before its first step, Keras's `Model.fit` averages the first batch over the replicas, to build the model. There is
    no average of strings, and with `MultiWorkerMirroredStrategy` the batch is no tensor, so both fail. This loop runs
    the model's own `train_step` and `test_step` without that.

    Example:
        >>> strategy = tf.distribute.MultiWorkerMirroredStrategy()
        >>> with strategy.scope():
        ...     model = make_model()
        ...     model.compile(optimizer, loss, metrics=["accuracy"])
        >>> history = fit(model, dataset, strategy, epochs=3, checkpoint_dir="checkpoints", checkpoint_every=100)

    Args:
        model: `keras.Model`. Built and compiled in the strategy's scope.
        dataset: `tf.data.Dataset`. What `Model.fit` takes, in global batches, finite, and in the same order in each
            epoch and after a restart. Let all batches be full (`drop_remainder=True`): replicas count alike, however
            many examples each has.
        strategy: `tf.distribute.Strategy`.
        epochs: int. The epoch to end after, counted from the first, before any restart. Defaults to 1.
        validation_data: `tf.data.Dataset` or `None`. Evaluated after every epoch.
        callbacks: list of `keras.callbacks.Callback` or `None`. Their methods are called in every process; the logs of
            an epoch are those of all replicas, the logs of a batch those of the process's first replica. A callback
            that writes files must do so in one process only.
        checkpoint_dir: str, path or `None`. A folder that all processes see. A run that finds a checkpoint there goes
            on after it: in the same epoch, after the same batch, with the optimizer's and the metrics' state.
        checkpoint_every: int or `None`. The number of steps between two checkpoints. Defaults to `None`, after each
            epoch.
        verbose: int or str. As in `Model.fit`, in the first process; others are silent. Defaults to 0.

    Returns:
        `keras.callbacks.History`, with the epochs of this run.

    Raises:
        ValueError: if the model does not belong to the strategy, is not compiled or not built; if the dataset is
            infinite; or if `checkpoint_every` is given without `checkpoint_dir`.
    """
    import tensorflow as tf

    check_count("epochs", epochs)
    if checkpoint_every is not None:
        check_count("checkpoint_every", checkpoint_every)
        if checkpoint_dir is None:
            raise ValueError("`checkpoint_every` needs `checkpoint_dir`.")
    if model.distribute_strategy is not strategy:
        raise ValueError("`model` must be made in the scope of `strategy`: with strategy.scope(): model = …")
    if not (model.built and model.compiled):
        raise ValueError("`model` must be built and compiled.")
    steps = int(dataset.cardinality())
    if steps == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`dataset` must be finite, one epoch: leave out its `repeat()`, or give it a count.")
    with strategy.scope():  # the optimizer's and the metrics' variables: a replica must not make them in a graph
        model._symbolic_build(data_batch=next(iter(dataset)))
    position = {name: tf.Variable(0, dtype=tf.int64, trainable=False) for name in ("epoch", "step")}
    checkpoints = None if checkpoint_dir is None else _Checkpoints(model, position, strategy, os.fspath(checkpoint_dir))
    if checkpoints is not None:
        checkpoints.restore()

    # Batches come from outside: what in a step does not wait for its batch would run once more, without one.
    @tf.function(reduce_retracing=True)
    def train(batch):
        return strategy.run(model.train_step, args=(batch,))

    @tf.function(reduce_retracing=True)
    def test(batch):
        strategy.run(model.test_step, args=(batch,))

    logged = keras.callbacks.CallbackList(
        callbacks,
        add_history=True,
        add_progbar=verbose != 0 and _is_chief(strategy),
        model=model,
        verbose=verbose,
        epochs=epochs,
        steps=steps if steps >= 0 else None,
    )
    model.stop_training = False
    logged.on_train_begin()
    logs: dict[str, Any] = {}
    while int(position["epoch"]) < epochs and not model.stop_training:
        epoch, done = int(position["epoch"]), int(position["step"])
        logged.on_epoch_begin(epoch)
        if not done:
            model.reset_metrics()
        for step, batch in enumerate(strategy.experimental_distribute_dataset(dataset.skip(done)), start=done):
            logged.on_train_batch_begin(step)
            results = train(batch)
            logged.on_train_batch_end(
                step, {name: strategy.experimental_local_results(value)[0] for name, value in results.items()}
            )
            position["step"].assign(step + 1)
            if checkpoints is not None and checkpoint_every is not None and (step + 1) % checkpoint_every == 0:
                checkpoints.save()
            if model.stop_training:
                break
        logs = {name: float(value) for name, value in model.get_metrics_result().items()}
        if validation_data is not None:
            model.reset_metrics()
            for batch in strategy.experimental_distribute_dataset(validation_data):
                test(batch)
            logs |= {f"val_{name}": float(value) for name, value in model.get_metrics_result().items()}
        position["epoch"].assign(epoch + 1)
        position["step"].assign(0)
        if checkpoints is not None:
            checkpoints.save()
        logged.on_epoch_end(epoch, logs)
    logged.on_train_end(logs)
    return model.history


def _is_chief(strategy) -> bool:
    resolver = strategy.cluster_resolver
    if resolver is None or resolver.task_type in (None, "chief"):
        return True
    return resolver.task_id in (None, 0) and "chief" not in resolver.cluster_spec().jobs


class _Checkpoints:
    """The state of a training run in a folder: all processes take part in saving, the first one's is kept."""

    def __init__(self, model, position, strategy, folder: str) -> None:
        import tensorflow as tf

        variables = [
            variable.value for variable in (*model.variables, *model.optimizer.variables, *model.metrics_variables)
        ]
        self._checkpoint = tf.train.Checkpoint(variables=variables, **position)
        self._folder = folder
        # The states of metrics are summed over the processes, so all must save; the first one keeps the result.
        kept = folder
        if not _is_chief(strategy):
            kept = tempfile.mkdtemp()
            weakref.finalize(self, shutil.rmtree, kept, ignore_errors=True)
        self._manager = tf.train.CheckpointManager(self._checkpoint, kept, max_to_keep=2)

    def restore(self) -> None:
        import tensorflow as tf

        path = tf.train.latest_checkpoint(self._folder)
        if path is not None:
            self._checkpoint.restore(path).assert_consumed()

    def save(self) -> None:
        self._manager.save()
