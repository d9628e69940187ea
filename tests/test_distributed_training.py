"""`distributed.fit`: under a strategy what one device gives, with strings, and after a worker was killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import types

import numpy as np
import pytest

from tests.common import ROOT, V4, run_fresh

#: Eighty texts with labels, and a model of strings without dropout.
SETUP = textwrap.dedent("""
    import sys
    from dataclasses import replace
    import keras
    import numpy as np
    import tensorflow as tf
    from keras_bert_trend import BertEncoder, BertTrend, distributed
    from keras_bert_trend.encoder import INPUT_NAMES

    generator = np.random.default_rng(0)
    words = "the bank of river is good great model i will hello".split()
    texts = [" ".join(generator.choice(words, generator.integers(1, 12))) for _ in range(80)]
    labels = np.array([["bank" in text] for text in texts], "float32")
    dataset = tf.data.Dataset.from_tensor_slices((texts, labels)).batch(8, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    dataset = dataset.with_options(options)

    def make(strategy, strings=True):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            read = BertTrend(sys.argv[1], sequence_length=16)
            config = replace(read.encoder.config, hidden_dropout=0.0, attention_dropout=0.0)
            layer = BertTrend(encoder=BertEncoder(config), preprocessor=read.preprocessor, pooling="mean")
            ids = {name: keras.Input((16,), dtype="int32", name=name) for name in INPUT_NAMES}
            inputs = keras.Input((), dtype="string") if strings else ids
            model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid")(layer(inputs)))
            model.compile(keras.optimizers.Adam(1e-3), "binary_crossentropy", metrics=["accuracy"])
        return model, layer

    class Losses(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.means = []
        def on_train_batch_end(self, batch, logs=None):
            self.means.append(float(self.model.get_metrics_result()["loss"]))
            print("batch", batch, flush=True)
""")


TWO_DEVICES = textwrap.dedent("""
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
""")


def test_two_devices_train_as_one():
    code = """
        one, _ = make(tf.distribute.get_strategy())
        expected = Losses()
        history = one.fit(dataset, callbacks=[expected], validation_data=dataset, verbose=0).history

        two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        model, layer = make(two)
        losses = Losses()
        mine = distributed.fit(model, dataset, two, callbacks=[losses], validation_data=dataset).history
        assert len(losses.means) == 10
        np.testing.assert_allclose(losses.means, expected.means, rtol=0, atol=1e-5)
        assert set(mine) == set(history)
        for name in history:
            np.testing.assert_allclose(mine[name], history[name], rtol=0, atol=1e-5)

        # Keras's own `fit`, on ids
        model, layer = make(two, strings=False)
        losses = Losses()
        ids = dataset.map(lambda text, label: (layer.preprocessor(text), label))
        model.fit(ids, callbacks=[losses], verbose=0)
        np.testing.assert_allclose(losses.means, expected.means, rtol=0, atol=1e-5)

        for arguments, message in (
            ((one, dataset, two), "must be made in the scope"),
            ((model, dataset, two, "checkpoint_every"), "needs `checkpoint_dir`"),
            ((model, dataset.repeat(), two), "must be finite"),
        ):
            try:
                distributed.fit(*arguments[:3], **dict.fromkeys(arguments[3:], 2))
            except ValueError as error:
                assert message in str(error)
            else:
                raise AssertionError(message)
    """
    run_fresh(TWO_DEVICES + SETUP + textwrap.dedent(code), V4)


def test_one_process_is_the_chief():
    import tensorflow as tf

    from keras_bert_trend.distributed.training import _is_chief

    for cluster in ({"worker": ["a:1", "b:1"]}, {"chief": ["a:1"], "worker": ["b:1", "c:1"]}):
        spec = tf.train.ClusterSpec(cluster)
        resolvers = [
            tf.distribute.cluster_resolver.SimpleClusterResolver(spec, task_type=job, task_id=number)
            for job, addresses in cluster.items()
            for number in range(len(addresses))
        ]
        chiefs = [_is_chief(types.SimpleNamespace(cluster_resolver=resolver)) for resolver in resolvers]
        assert chiefs == [True, *[False] * (len(resolvers) - 1)]


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


WORKER = SETUP + textwrap.dedent("""
    import json, time
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    model, _ = make(strategy)
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            print("batch", batch, flush=True)
            time.sleep(float(sys.argv[3]))
    history = distributed.fit(model, dataset, strategy, epochs=3, callbacks=[Slow()], checkpoint_dir=sys.argv[2],
                              checkpoint_every=4)
    print(json.dumps(history.history))
""")


def start_workers(folder, pause: float) -> list[subprocess.Popen]:
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    workers = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        workers.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, V4, folder, str(pause)],
                env={**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    return workers


def histories(workers) -> list[dict]:
    outputs = [worker.communicate()[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


@pytest.mark.distributed
def test_a_killed_worker_is_made_good(tmp_path):
    undisturbed = histories(start_workers(tmp_path / "undisturbed", 0))
    assert undisturbed[0] == undisturbed[1]
    first, second = start_workers(tmp_path / "killed", 1)
    for line in second.stdout:
        if line == "batch 5\n":  # after the first checkpoint, in the first epoch
            os.kill(second.pid, signal.SIGKILL)
            break
    start = time.time()
    first.communicate()
    assert first.returncode != 0, "it cannot go on alone, and says so"
    print("the survivor ended after", time.time() - start, "s")
    second.wait()
    resumed = histories(start_workers(tmp_path / "killed", 0))
    np.testing.assert_allclose(resumed[0]["loss"][-1], undisturbed[0]["loss"][-1], rtol=0, atol=1e-4)
