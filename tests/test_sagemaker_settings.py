"""The SAGEMAKER_* variables: defaults of generation C, values that are wrong, and those without effect."""

from __future__ import annotations

import pytest

from penstock.errors import UsageError
from penstock.sagemaker_settings import WITHOUT_EFFECT, SageMakerSettings, describe


def read(**environ: str) -> SageMakerSettings:
    return SageMakerSettings.from_environ(environ, cpus=4)


def test_defaults_are_those_of_the_container() -> None:
    settings = read(PATH="/bin")
    assert settings == SageMakerSettings(num_batch_threads=4, max_enqueued_batches=4)
    assert (settings.bind_port, settings.max_batch_size, settings.batch_timeout_micros) == (8080, 8, 1000)
    assert (settings.instance_count, settings.gpu_margin, settings.omp_threads) == (1, 0.2, 1)
    assert (settings.wait_time_s, settings.request_timeout_s) == (60, 60)
    assert settings.gpu_memory_fraction is None
    assert settings.default_model_name is None
    assert not settings.enable_batching
    assert not settings.multi_model


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "9000", "bind_port", 9000),
        ("SAGEMAKER_BIND_TO_PORT", "", "bind_port", 8080),
        ("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "half", "default_model_name", "half"),
        ("SAGEMAKER_TFS_DEFAULT_MODEL_NAME", "None", "default_model_name", None),
        ("SAGEMAKER_TFS_ENABLE_BATCHING", "True", "enable_batching", True),
        ("SAGEMAKER_MULTI_MODEL", "TRUE", "multi_model", True),
        ("SAGEMAKER_MULTI_MODEL", "false", "multi_model", False),
        ("SAGEMAKER_BATCH", "", "batch_transform", True),
        ("SAGEMAKER_BATCH", "true", "max_enqueued_batches", 100_000_000),
        ("SAGEMAKER_TFS_NUM_BATCH_THREADS", "3", "num_batch_threads", 3),
        ("SAGEMAKER_TFS_INTER_OP_PARALLELISM", "0", "inter_op", 0),
        ("OMP_NUM_THREADS", "4,2", "omp_threads", 4),
        ("SAGEMAKER_TFS_NGINX_LOGLEVEL", "warn", "log_level", "warning"),
        ("SAGEMAKER_GUNICORN_TIMEOUT_SECONDS", "90", "request_timeout_s", 90),
        ("SAGEMAKER_NGINX_PROXY_READ_TIMEOUT_SECONDS", "20", "request_timeout_s", 30),
        ("SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET", "b", "universal_bucket", "b"),
    ],
)
def test_values(name: str, text: str, field: str, value: object) -> None:
    assert getattr(read(**{name: text}), field) == value


def test_the_script_of_all_models_is_in_a_bucket_under_a_prefix() -> None:
    """As in the container, which fetches nothing where one of the two is missing."""
    both = {"SAGEMAKER_MULTI_MODEL_UNIVERSAL_BUCKET": "b", "SAGEMAKER_MULTI_MODEL_UNIVERSAL_PREFIX": "code/"}
    assert read(**both).universal_script == "s3://b/code/"
    for name, text in both.items():
        assert read(**{name: text}).universal_script is None


def test_a_queue_that_is_set_beats_that_of_batch_transform() -> None:
    assert read(SAGEMAKER_BATCH="true", SAGEMAKER_TFS_MAX_ENQUEUED_BATCHES="7").max_enqueued_batches == 7


def test_instances_share_what_the_margin_leaves_of_a_gpu() -> None:
    assert read(SAGEMAKER_TFS_INSTANCE_COUNT="3").gpu_memory_fraction == 0.2667


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("SAGEMAKER_BIND_TO_PORT", "http", "an integer from 1 to 65535"),
        ("SAGEMAKER_BIND_TO_PORT", "65536", "an integer from 1 to 65535"),
        ("SAGEMAKER_TFS_INSTANCE_COUNT", "0", "an integer of at least 1"),
        ("SAGEMAKER_TFS_INTRA_OP_PARALLELISM", "-1", "an integer of at least 0"),
        ("SAGEMAKER_TFS_FRACTIONAL_GPU_MEM_MARGIN", "nan", "a number from 0 up to, but not including, 1"),
        ("SAGEMAKER_TFS_ENABLE_BATCHING", "yes", "'true' or 'false'"),
        ("SAGEMAKER_MULTI_MODEL", "1", "'true' or 'false'"),
        ("OMP_NUM_THREADS", "4,x", "integers of at least 1 with commas between them"),
    ],
)
def test_a_value_that_cannot_be_meant_is_named(name: str, text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(**{name: text})
    assert str(caught.value) == f"{name} is '{text}': expected {expected}"


def test_variables_without_effect_are_named_and_not_judged() -> None:
    settings = read(SAGEMAKER_GUNICORN_LOGLEVEL="many", SAGEMAKER_SAFE_PORT_RANGE="9000-9999", SAGEMAKER_REGION="")
    assert set(settings.accepted_without_effect) == {"SAGEMAKER_GUNICORN_LOGLEVEL", "SAGEMAKER_SAFE_PORT_RANGE"}


def test_every_variable_is_described_once() -> None:
    rows = describe()
    names = [row.variable for row in rows]
    assert len(set(names)) == len(names)
    assert set(WITHOUT_EFFECT) <= set(names)
    assert all(row.effect.endswith(".") for row in rows)
    defaults = {row.variable: row.default for row in rows}
    assert defaults["SAGEMAKER_TFS_INSTANCE_COUNT"] == "1"
    assert defaults["SAGEMAKER_TFS_NUM_BATCH_THREADS"] == "number of CPUs"
    assert defaults["SAGEMAKER_MULTI_MODEL"] == "false"
    assert defaults["SAGEMAKER_TFS_DEFAULT_MODEL_NAME"] == "not set"
