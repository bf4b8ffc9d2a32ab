"""A client that a generator makes from the document, as a user of it would."""

import importlib
import subprocess
import sys

import pytest

from server import ROOT


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    tool = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    made = subprocess.run(
        [*tool, "--path", ROOT / "openapi/quantd.json", "--output-path", folder / "quantd_client"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "Unable to process schema" not in made.stdout, made.stdout
    sys.path.insert(0, str(folder))
    yield lambda name: importlib.import_module("quantd_client" + name)
    sys.path.remove(str(folder))


def test_a_generated_client_quantizes_and_restores(generated, server):
    models = generated(".models")
    client = generated("").Client(server.url)
    scheme = models.Scheme(bits=8, granularity=models.GranularityName.CHANNEL, axis=0)
    data = [[0.1, -2.0], [3.3, 0.0]]
    call = generated(".api.tensors.quantize").sync
    answer = call(client=client, body=models.QuantizeRequest(data=data, dtype=models.Dtype.F32, scheme=scheme))
    assert isinstance(answer, models.QuantizedTensor)
    assert (answer.codes, answer.zero_point) == ([[6, -127], [127, 0]], [0, 0])
    assert answer.report.mse == pytest.approx(7.6e-6, rel=0.01) and answer.scheme.restricted is True
    request = models.DequantizeRequest(
        codes=answer.codes, scale=answer.scale, zero_point=answer.zero_point, shape=answer.shape, scheme=scheme
    )
    restored = generated(".api.tensors.dequantize").sync(client=client, body=request)
    assert restored.data == [[0.09448819, -2.0], [3.3, 0.0]]
    table = generated(".api.tensors.compare").sync(client=client, body=models.CompareRequest(data=data))
    assert len(table.results) > 8 and any(row.pareto for row in table.results)
    look = generated(".api.tensors.inspect").sync(client=client, body=models.InspectRequest(data=data))
    assert look.statistics.count == 4 and look.statistics.min_ == -2
    wrong = models.QuantizeRequest(data=data, scheme=models.Scheme(bits=9))
    problem = call(client=client, body=wrong)
    assert isinstance(problem, models.Problem) and problem.errors[0].pointer == "/scheme/bits"
