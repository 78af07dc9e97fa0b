import pytest
import yaml

from molgen.config import Config, load_config, parse_yaml, recipes, to_yaml, validate
from molgen.errors import MolgenError


def refusal(*overrides: str, recipe: str | None = None) -> str:
    with pytest.raises(MolgenError) as error:
        load_config(recipe, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_setting_overrides_the_recipe_and_a_named_option_overrides_the_setting() -> None:
    assert load_config("tox21").training.epochs != 7
    assert load_config("tox21", ["training.epochs=7"]).training.epochs == 7
    assert load_config("tox21", ["training.epochs=7"], {"training.epochs": 8}).training.epochs == 8


def test_an_option_left_out_changes_nothing() -> None:
    assert load_config("tox21", [], {"training.seed": None}) == load_config("tox21")


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_is_valid_and_holds_only_what_differs(name: str) -> None:
    config = load_config(name).model_dump()
    default = validate({"data": {"source": config["data"]["source"]}}, name).model_dump()
    for section, fields in parse_yaml(recipes()[name], name).items():
        for key in fields:
            same = config[section][key] == default[section][key]
            assert not same or key == "source", f"{section}.{key} repeats the default"


def test_a_saved_configuration_loads_as_the_same_one() -> None:
    config = load_config("tomczak", ["training.learning_rate=1e-3"])
    assert validate(parse_yaml(to_yaml(config), "config.yaml"), "config.yaml") == config


@pytest.mark.parametrize("settings", [[], ["data.form=canonical", "data.unparsable=drop"]])
def test_the_source_texts_recipe_shows_no_random_smiles_whatever_form_it_is_given(settings: list[str]) -> None:
    assert not load_config("tomczak", settings).training.randomizes


@pytest.mark.parametrize(
    "name", ["1e5", "1e-3", "NO", "0x10", "012", "1_000", "null", "~", "true", "=", "1:30", "a: b"]
)
def test_a_name_that_looks_like_something_else_is_saved_as_a_name(name: str) -> None:
    config = load_config(None, [], {"data.smiles_column": name})
    assert validate(parse_yaml(to_yaml(config), "x"), "x").data.smiles_column == name


def test_an_unknown_key_suggests_the_near_one() -> None:
    assert "did you mean model.width?" in refusal("model.widht=64")
    assert "did you mean model.width?" in refusal("width=64")
    assert "did you mean tox21?" in refusal(recipe="tox12")


def test_a_scientific_number_is_a_number_and_a_norwegian_no_is_a_string() -> None:
    assert parse_yaml("[1e-3, NO, yes, 012, 12, true, null]", "x") == [1e-3, "NO", "yes", "012", 12, True, None]


@pytest.mark.parametrize(
    "setting",
    [
        "model.blocks=1000000000",
        "model.width=-1",
        "model.width=true",
        "training.epochs=1.5",
        "training.learning_rate=nan",
        "training.learning_rate=.inf",
        "training.randomized=1.5",
        "training.seed=-1",
        "data.form=selfies",
    ],
)
def test_a_value_out_of_range_or_of_the_wrong_kind_is_refused_by_name(setting: str) -> None:
    assert setting.split("=")[0] in refusal(setting)


def test_as_written_strings_are_not_randomised_unless_that_is_asked_for() -> None:
    training = load_config(None, ["data.form=as-written"]).training
    assert (training.randomized, training.randomized_end) == (0, 0)
    assert load_config(None, []).training.randomized > 0


def test_settings_that_contradict_each_other_are_refused() -> None:
    assert "context" in refusal("data.max_tokens=200", "model.context=100")
    assert "canonical" in refusal("data.form=as-written", "training.randomized=0.5")
    assert "even" in refusal("model.head_width=15")


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system [exit]",
        "a: &x [1, 2]\nb: [*x, *x]",
        "model: {width: 3",
        "[" * 5000,
        "a: !!bool x",
        "a: !!timestamp x",
        'a: !!int ""',
        "data: {source: []}",
        "just text",
        "model: 3",
    ],
)
def test_yaml_that_is_hostile_or_no_configuration_is_refused_without_harm(text: str, tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert "config.yaml" in refusal(recipe=str(path))


def test_a_recipe_file_that_is_missing_is_refused() -> None:
    assert "cannot be read" in refusal(recipe="nowhere.yaml")


def test_every_field_has_a_docstring() -> None:
    for section in Config().model_dump():
        fields = type(getattr(Config(), section)).model_fields
        assert all(field.description for field in fields.values()), section


def test_the_saved_configuration_is_plain_yaml() -> None:
    assert yaml.safe_load(to_yaml(Config())) == Config().model_dump()


def test_a_check_of_our_own_reads_as_a_sentence() -> None:
    with pytest.raises(MolgenError) as refused:
        load_config(None, ["model.attention=reformer", "model.buckets=7"])
    assert str(refused.value).startswith("the configuration: model: buckets must be even")
