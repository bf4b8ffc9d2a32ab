"""A two-layer perceptron, trained here, hosted as quantized layers there: is it as good?

Trains on scikit-learn's bundled digits (1797 images of 8 x 8 pixels), writes the weights to
digits.fc1.safetensors and digits.fc2.safetensors, hosts them on a running quantd with several
schemes, classifies the images that it was not trained on over HTTP, and prints how often each
is right beside the model in real numbers.

    quantd &
    python examples/digits/digits.py --url http://localhost:8080

Needs numpy, requests, safetensors and scikit-learn.
"""

import argparse
import dataclasses
import io
import pathlib
import tempfile
import warnings

import numpy as np
import requests
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HIDDEN = 64
BATCH = 128
# How weights become codes, and where activations get their scale from.
WEIGHTS = {
    "int8 per channel": {"scheme": "int8_per_channel"},
    "int8 per tensor": {"scheme": "int8", "scheme.granularity": "tensor"},
    "int4 g32": {"scheme": "int4_g32"},
    "int4 per channel": {"scheme": "int4_per_channel"},
    "int4 per tensor": {"scheme": "int4", "scheme.granularity": "tensor"},
}
ACTIVATIONS = ("calibrated", "dynamic", "guessed")
# What one might take activations to lie in without looking: the pixels do.
GUESS = (0.0, 1.0)


@dataclasses.dataclass
class Row:
    """How one way to host the model did."""

    weights: str
    activations: str
    accuracy: float
    difference: float
    sqnr_db: float
    weight_bytes: int


@dataclasses.dataclass
class Model:
    """y = relu(x W1^T + b1) W2^T + b2, and the images that it has and has not seen."""

    w1: np.ndarray
    b1: np.ndarray
    w2: np.ndarray
    b2: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray
    labels: np.ndarray

    def hidden(self, x):
        """The result of the first layer."""
        return np.maximum(x @ self.w1.T + self.b1, 0)

    def logits(self, x):
        """The result of both."""
        return self.hidden(x) @ self.w2.T + self.b2


def train():
    """The perceptron, trained on half of the images."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    seen, unseen, seen_labels, labels = train_test_split(
        images, labels, test_size=0.5, random_state=0, stratify=labels
    )
    model = MLPClassifier((HIDDEN,), alpha=1e-3, learning_rate_init=3e-3, max_iter=150, tol=0, random_state=0)
    with warnings.catch_warnings():
        # So many steps, wherever they lead.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(seen, seen_labels)
    (w1, w2), (b1, b2) = model.coefs_, model.intercepts_
    weights = [np.ascontiguousarray(x.T, np.float32) for x in (w1, b1, w2, b2)]
    return Model(*weights, seen, unseen, labels)


class Quantd:
    """A running server."""

    def __init__(self, url):
        self.url = url.rstrip("/")
        self.session = requests.Session()

    def call(self, method, path, **options):
        """One request; an answer that says what is wrong is an error."""
        answer = self.session.request(method, self.url + path, timeout=60, **options)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer

    def calibrate(self, name, batches, **options):
        """Learns the range of batches."""
        self.call("POST", "/v1/calibrators", json={"name": name, "replace": True} | options)
        for batch in batches:
            self.call("POST", f"/v1/calibrators/{name}/batches", **npy(batch))

    def host(self, name, file, weight, **options):
        """Makes a layer of a file's weight and bias."""
        query = weight | options
        headers = {"content-type": "application/x-safetensors"}
        return self.call("PUT", f"/v1/layers/{name}", params=query, data=file.read_bytes(), headers=headers).json()

    def forward(self, name, x):
        """The result of a layer or chain."""
        options = npy(x)
        options["headers"] |= {"accept": "application/x-npy"}
        answer = self.call("POST", f"/v1/layers/{name}/forward", **options)
        return np.load(io.BytesIO(answer.content))


def npy(x):
    """A request that brings an array."""
    file = io.BytesIO()
    np.save(file, x)
    return {"data": file.getvalue(), "headers": {"content-type": "application/x-npy"}}


def batches(x):
    """The rows of an array, some at a time."""
    return [x[i : i + BATCH] for i in range(0, len(x), BATCH)]


def coding(kind, calibrator):
    """The options of a static or dynamic input or output, as a query has them."""
    if kind == "calibrated":
        return {"calibrator": calibrator, "signed": "false"}
    if kind == "guessed":
        return {"min": GUESS[0], "max": GUESS[1], "signed": "false"}
    return None


def options(place, fields):
    """`{"min": 0}` of the input as `input.min=0`."""
    return {f"{place}.{name}": value for name, value in (fields or {}).items()}


def measure(server, model, files, weights, activations):
    """Hosts the model in one way and classifies the images over HTTP."""
    between = coding(activations, "digits.hidden")
    # With static activations codes go from layer to layer as they are.
    fc1 = server.host("digits.fc1", files[0], WEIGHTS[weights], activation="relu",
                      **options("input", coding(activations, "digits.input")), **options("output", between))
    fc2 = server.host("digits.fc2", files[1], WEIGHTS[weights], **options("input", between))
    chain = server.call("PUT", "/v1/layers/digits", json={"chain": ["digits.fc1", "digits.fc2"]}).json()
    assert chain["kind"] == "chain"
    logits = np.concatenate([server.forward("digits", batch) for batch in batches(model.unseen)])
    exact = model.logits(model.unseen)
    noise = np.sum((logits - exact).astype(np.float64) ** 2)
    accuracy = 100 * np.mean(logits.argmax(1) == model.labels)
    return Row(
        weights, activations, accuracy, accuracy - 100 * np.mean(exact.argmax(1) == model.labels),
        10 * np.log10(np.sum(exact.astype(np.float64) ** 2) / noise),
        fc1["memory"]["packed_bytes"] + fc2["memory"]["packed_bytes"],
    )


def run(url, folder):
    """The accuracy in real numbers, and a row for each way to host the model."""
    model = train()
    server = Quantd(url)
    files = [pathlib.Path(folder) / f"digits.fc{i}.safetensors" for i in (1, 2)]
    save_file({"weight": model.w1, "bias": model.b1}, files[0])
    save_file({"weight": model.w2, "bias": model.b2}, files[1])
    server.calibrate("digits.input", batches(model.seen), scheme="uint8")
    server.calibrate("digits.hidden", map(model.hidden, batches(model.seen)), percentile=99.99, scheme="uint8")
    rows = [measure(server, model, files, w, a) for w in WEIGHTS for a in ACTIVATIONS]
    for name in ("digits", "digits.fc1", "digits.fc2"):
        server.call("DELETE", f"/v1/layers/{name}")
    for name in ("digits.input", "digits.hidden"):
        server.call("DELETE", f"/v1/calibrators/{name}")
    return 100 * np.mean(model.logits(model.unseen).argmax(1) == model.labels), rows


def table(accuracy, rows):
    """The rows as text."""
    head = f"{'weights':18} {'activations':12} {'accuracy':>9} {'points':>7} {'SQNR':>8} {'bytes':>7}"
    size = 4 * (64 * HIDDEN + HIDDEN + HIDDEN * 10 + 10)
    lines = [head, f"{'float':18} {'float':12} {accuracy:8.2f}% {'':7} {'':8} {size:7}"]
    lines += [
        f"{row.weights:18} {row.activations:12} {row.accuracy:8.2f}% {row.difference:+7.2f} "
        f"{row.sqnr_db:5.1f} dB {row.weight_bytes:7}"
        for row in rows
    ]
    return "\n".join(lines)


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://localhost:8080", help="a running quantd")
    parser.add_argument("--out", help="folder for the weights; a temporary one if left out")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(table(*run(arguments.url, arguments.out or folder)))


if __name__ == "__main__":
    main()
