"""TensorFlow Serving's config file: what it says, and each mistake in its words."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import UsageError
from penstock.models.config_file import ConfiguredModel, ModelServerConfig, configured_models, parse_config_file
from penstock.savedmodel.layout import select_versions

PARSE_FAILURE = r"Error parsing text-format tensorflow\.serving\.ModelServerConfig: "


def one(fields: str) -> str:
    return f"model_config_list {{ config {{ {fields} }} }}"


def complete(fields: str = "") -> str:
    return one(f"name: 'm' base_path: '/m' model_platform: 'tensorflow' {fields}")


def test_everything_that_a_file_may_say(tmp_path: Path) -> None:
    text = """
    # two models
    model_config_list: {
      config: {
        name: "resnet", base_path: "/models/resnet"; model_platform: "tensorflow"
        model_version_policy: { specific { versions: 7 versions: 3 versions: 7 } }
        version_labels { key: "stable" value: 3 }
        version_labels { key: "canary" value: 7 }
        logging_config { log_collector_config { type: "x" filename_prefix: "/log" } sampling_config { sampling_rate: 0.5 } }
      }
      config < name: 'half' base_path: 'file:///models/half' model_type: TENSORFLOW >
    }
    """
    assert parse_config_file(text) == [
        ConfiguredModel("resnet", Path("/models/resnet"), "3,7", {"canary": 7, "stable": 3}, has_logging=True),
        ConfiguredModel("half", Path("/models/half"), "latest:1", {}),
    ]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("", "latest:1"),
        ("model_version_policy {}", "latest:1"),
        ("model_version_policy { latest {} }", "latest:1"),
        ("model_version_policy { latest { num_versions: 3 } }", "latest:3"),
        ("model_version_policy { all {} }", "all"),
        ("model_version_policy { specific { versions: [2, 1] } }", "1,2"),
        ("model_version_policy { specific { versions: 9223372036854775807 versions: 0 } }", "0,9223372036854775807"),
        ("model_version_policy { latest { num_versions: 4294967295 } }", "latest:4294967295"),
    ],
)
def test_policies_are_written_as_the_option_is(policy: str, expected: str) -> None:
    models = parse_config_file(complete(policy))
    assert models is not None
    assert models[0].policy == expected
    select_versions([], expected)


@pytest.mark.parametrize(("text", "expected"), [("", None), ("# nothing\n", None), ("model_config_list {}", [])])
def test_no_list_is_another_thing_than_an_empty_list(text: str, expected: list[ConfiguredModel] | None) -> None:
    assert parse_config_file(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model_config_list {\n  config {\n    nme: 'm'\n  }\n}",
            PARSE_FAILURE + r'3:5: .*"tensorflow\.serving\.ModelConfig" has no .*"nme"',
        ),
        ("model_config_list {", PARSE_FAILURE + r"1:\d+: "),
        ("model_config_list { config { name: m } }", PARSE_FAILURE + r"1:\d+: "),
        ("models {}", PARSE_FAILURE + r'1:1: .*"tensorflow\.serving\.ModelServerConfig" has no field named "models"'),
        (complete("name: 'n'"), PARSE_FAILURE + r"1:\d+: "),
        (complete("model_version_policy { latest { num_versions: -1 } }"), PARSE_FAILURE),
        (complete("model_version_policy { latest {} all {} }"), PARSE_FAILURE),
        (complete("version_labels { key: 'a' value: 'b' }"), PARSE_FAILURE),
        (complete("model_type: KERAS"), PARSE_FAILURE),
        ("{}", PARSE_FAILURE),
        ("\x00", PARSE_FAILURE),
        ("name: '\ud800'", PARSE_FAILURE),
    ],
)
def test_what_does_not_parse_is_refused_with_its_line_and_column(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config_file(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            complete("} config { name: 'm' base_path: '/n' model_platform: 'tensorflow'"),
            "Illegal to list model m multiple times in config list",
        ),
        (
            one("name: 'm' base_path: 'models/m' model_platform: 'tensorflow'"),
            r"Expected model m to have an absolute path or URI; got base_path\(\)=models/m",
        ),
        (
            one("name: 'm' model_platform: 'tensorflow'"),
            r"Expected model m to have an absolute path or URI; got base_path\(\)=$",
        ),
        (one("name: 'm' base_path: 'file://m' model_platform: 'tensorflow'"), "not a folder of this machine"),
        (
            one("name: 'm' base_path: 'gs://bucket/m' model_platform: 'tensorflow'"),
            "gs://bucket/m is not a folder of this machine",
        ),
        (one("name: 'm' base_path: '/m'"), "Model m has no platform: expected model_platform: 'tensorflow'"),
        (one("name: 'm' base_path: '/m' model_platform: 'onnx'"), "Model m requests unsupported platform onnx"),
        (one("name: 'm' base_path: '/m' model_type: OTHER"), r"Model m requests unsupported platform \(model_type 2\)"),
        (one("name: 'm' base_path: '/m' model_type: 7"), r"Model m requests unsupported platform \(model_type 7\)"),
        (one("base_path: '/m' model_platform: 'tensorflow'"), "has no name"),
        (complete("model_version_policy { specific {} }"), "Model m: the specific versions .* found none"),
        (complete("model_version_policy { specific { versions: -3 } }"), "Model m: the specific versions .* found -3"),
        ("custom_model_config { type_url: 'x' }", "custom_model_config is not supported: expected model_config_list"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_config_file(text)


@given(
    st.text()
    | st.lists(st.sampled_from(["model_config_list", "config", "name", ":", "{", "}", "'m'", "\n", "7", "[", "<"])).map(" ".join)
)
def test_any_text_is_models_or_one_refusal(text: str) -> None:
    try:
        models = parse_config_file(text)
    except UsageError:
        return
    assert models is None or all(isinstance(model, ConfiguredModel) for model in models)


names = st.text(min_size=1, max_size=20)
entries = st.fixed_dictionaries(
    {
        "base_path": names.map(lambda name: "/" + name.replace("\0", "")),
        "versions": st.sets(st.integers(0, (1 << 63) - 1), max_size=4),
        "labels": st.dictionaries(names, st.integers(-(1 << 63), (1 << 63) - 1), max_size=3),
    }
)


@given(st.dictionaries(names, entries, max_size=4))
def test_what_protobuf_writes_is_read_back(models: dict[str, dict[str, object]]) -> None:
    config = ModelServerConfig()
    config.model_config_list.SetInParent()
    for name, entry in models.items():
        added = config.model_config_list.config.add(name=name, base_path=entry["base_path"], model_platform="tensorflow")
        added.model_version_policy.specific.versions.extend(entry["versions"] or {5})
        added.version_labels.update(entry["labels"])
    read = parse_config_file(text_format.MessageToString(config))
    assert read == configured_models(config)
    assert read is not None
    assert {model.name: (str(model.base_path), model.labels) for model in read} == {
        name: (str(Path(str(entry["base_path"]))), entry["labels"]) for name, entry in models.items()
    }
