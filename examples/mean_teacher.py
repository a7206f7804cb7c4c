"""
Title: A mean teacher
Author: The keras_dqn authors
Date created: 2026/11/23
Last modified: 2026/11/24
Description: A slow copy of a student teaches it (Tarvainen & Valpola, 2017), with 200 labels.
Accelerator: None
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow's own log, on import

import keras
import numpy as np

import keras_dqn

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
keras.utils.set_random_seed(args.seed)
rng = np.random.default_rng(args.seed)
patterns = np.kron(rng.normal(size=(10, 4, 4, 1)), np.ones((3, 3, 1)))


def draw(num_images):
    """Returns images, each of one of ten patterns, shifted and noisy, and their classes."""
    y = rng.integers(10, size=num_images)
    shifts = rng.integers(-2, 3, size=(num_images, 2))
    x = [np.roll(patterns[c], shift, (0, 1)) for c, shift in zip(y, shifts, strict=True)]
    return (x + rng.normal(size=(num_images, 12, 12, 1))).astype("float32"), y


class MeanTeacher(keras.Model):
    """A student that learns from labels, and to agree with its teacher on all images."""

    def __init__(self, student, consistency):
        super().__init__()
        self.student, self.consistency = student, consistency
        self.teacher = keras.models.clone_model(student)
        self.teacher.set_weights(student.get_weights())
        self.teacher.trainable = False
        shift = keras.layers.RandomTranslation(0.1, 0.1, fill_mode="wrap")
        self.augment = keras.Sequential([shift, keras.layers.GaussianNoise(0.5)])

    def call(self, x, training=None):
        return self.student(self.augment(x, training=training), training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        taught = self.teacher(self.augment(x, training=training), training=False)
        return loss + self.consistency * keras.ops.mean(keras.ops.square(y_pred - taught))


def accuracies(consistency):
    """Trains a new pair and returns the student's and the teacher's accuracy on held-out images."""
    student = keras.Sequential([keras.Input((12, 12, 1))])
    for filters in (16, 32):
        student.add(keras.layers.Conv2D(filters, 3, strides=2, use_bias=False))
        student.add(keras.layers.BatchNormalization())
        student.add(keras.layers.ReLU())
    student.add(keras.layers.Flatten())
    student.add(keras.layers.Dense(10, "softmax"))
    model = MeanTeacher(student, consistency)
    # XLA is slow at convolutions on a CPU.
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy", jit_compile=False)
    follow = keras_dqn.SoftTargetUpdate(tau=0.01, source=student, target=model.teacher)
    fit = {"batch_size": 100, "epochs": args.epochs, "verbose": 0}
    model.fit(x, y, sample_weight=has_label, callbacks=[follow], **fit)
    predictions = [net.predict(test_x, verbose=0) for net in (student, model.teacher)]
    return [np.mean(p.argmax(axis=-1) == test_y) for p in predictions]


test_x, test_y = draw(2_000)
x, y = draw(4_000)
labelled = np.arange(200)
y[:40] = rng.integers(10, size=40)
# Each labelled image is added ten times, so that a third of each batch has labels.
x, y = (np.concatenate([a, np.repeat(a[labelled], 10, axis=0)]) for a in (x, y))
has_label = np.repeat([0.0, 1.0], [4_000, 2_000])
for name, consistency in (("labels alone", 0.0), ("with consistency", 10.0)):
    student, teacher = accuracies(consistency)
    print(f"{name}: accuracy of the student {student:.3f}, of the teacher {teacher:.3f}")
