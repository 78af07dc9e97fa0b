import pytest

from molgen.chem import clean as cleaning
from molgen.chem.clean import Clean
from molgen.chem.smiles import canonical
from molgen.config import DataConfig, load_config
from molgen.data.readers import read_rows
from molgen.errors import MolgenError


def cleaned(pattern: str, smiles: str, **settings: object) -> Clean:
    config = DataConfig(source="vendor.csv", **settings)
    return cleaning.clean(smiles, **cleaning.settings(config, 128, pattern))


# (as a vendor writes it, what stays of it, what has been altered)
STAYS = [
    ("CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Oc1ccccc1C(=O)O", []),
    ("CCO", "CCO", []),
    ("C[C@H](N)C(=O)O", "C[C@H](N)C(=O)O", []),
    ("F/C=C\\F", "F/C=C\\F", []),
    ("CC(=O)[O-].[Na+]", "CC(=O)O", ["smaller fragments cut", "neutralised"]),
    ("CCN.Cl", "CCN", ["smaller fragments cut"]),
    ("CC[NH3+].[Cl-]", "CCN", ["smaller fragments cut", "neutralised"]),
    ("OC(=O)C(O)C(O)C(=O)O.CN", "O=C(O)C(O)C(O)C(=O)O", ["smaller fragments cut"]),
    # an organic fragment wins over a larger inorganic one
    ("OS(=O)(=O)O.CN", "CN", ["smaller fragments cut"]),
    ("[NH3+]CC(=O)[O-]", "NCC(=O)O", ["neutralised"]),
    # charges that no proton can remove stay
    ("C[N+](C)(C)CCO", "C[N+](C)(C)CCO", []),
    ("O=[N+]([O-])c1ccccc1", "O=[N+]([O-])c1ccccc1", []),
    ("[2H]C([2H])([2H])O", "CO", ["isotopes stripped"]),
    ("[13CH3]C", "CC", ["isotopes stripped"]),
    # a centre that only deuterium made chiral is none
    ("C[C@H]([2H])O", "CCO", ["isotopes stripped"]),
    ("C[Si](C)(C)C", "C[Si](C)(C)C", []),
    ("OB(O)c1ccccc1", "OB(O)c1ccccc1", []),
    ("C[Se]C", "C[Se]C", []),
]


@pytest.mark.parametrize(("given", "stays", "changes"), STAYS)
def test_a_molecule_that_stays_is_standardised(pattern: str, given: str, stays: str, changes: list[str]) -> None:
    result = cleaned(pattern, given)
    assert (result.smiles, result.reason, list(result.changes)) == (canonical(stays), "", changes)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "empty"),
        ("not a molecule", "not losslessly tokenisable"),
        ("C1CC", "not parsed by RDKit: syntax"),
        ("C(C)(C)(C)(C)C", "not parsed by RDKit: valence"),
        ("*c1ccccc1", "wildcard atom"),
        ("[CH3:1][OH:2]", "atom map"),
        ("C[CH2]", "radical"),
        ("CC[O]", "radical"),
        ("C[Hg]C", "element not in data.elements"),
        ("CC(=O)O[Na]", "element not in data.elements"),
        ("Cl[Pt]Cl", "element not in data.elements"),
        ("O", "no carbon"),
        ("[Na+].[Cl-]", "no carbon"),
        ("C" * 129, "too long"),
    ],
)
def test_a_molecule_that_cannot_be_learned_is_dropped_with_its_reason(pattern: str, given: str, reason: str) -> None:
    assert cleaned(pattern, given) == Clean("", "", reason, ())


@pytest.mark.parametrize(
    ("setting", "given", "stays", "reason"),
    [
        ({"fragments": "keep", "charges": "keep"}, "CC(=O)[O-].[K+]", "", "element not in data.elements"),
        ({"fragments": "keep", "charges": "keep", "elements": None}, "CC(=O)[O-].[K+]", "CC(=O)[O-].[K+]", ""),
        ({"fragments": "drop"}, "CCN.Cl", "", "several fragments"),
        ({"charges": "keep"}, "CC[NH3+]", "CC[NH3+]", ""),
        ({"stereo": "strip"}, "C[C@H](N)C(=O)O", "CC(N)C(=O)O", ""),
        ({"stereo": "strip"}, "F/C=C/F", "FC=CF", ""),
        ({"isotopes": "keep"}, "[13CH4]", "[13CH4]", ""),
        ({"isotopes": "drop"}, "[13CH3]C", "", "isotope"),
        ({"radicals": "keep"}, "CC[O]", "CC[O]", ""),
        ({"atom_maps": "keep"}, "[CH4:1]", "[CH4:1]", ""),
        ({"wildcards": "keep"}, "*CO", "*CO", ""),
        ({"elements": ["C", "O"]}, "CCN", "", "element not in data.elements"),
        ({"require_carbon": False}, "NN", "NN", ""),
        ({"form": "as-written"}, "OCC", "OCC", ""),
        # an altered molecule is no longer as it was written
        ({"form": "as-written"}, "OCC.Cl", "CCO", ""),
        ({"form": "as-written", "unparsable": "keep"}, "C1CC", "C1CC", ""),
    ],
)
def test_each_setting_changes_one_thing(
    pattern: str, setting: dict[str, object], given: str, stays: str, reason: str
) -> None:
    result = cleaned(pattern, given, **setting)
    assert (result.smiles, result.reason) == (stays, reason)


@pytest.mark.parametrize(
    ("given", "smiles", "change"),
    [
        ("C[C@H](O)F |o1:1|", "C[C@H](O)F", "enhanced stereo flattened"),
        ("C[C@H](O)F |&1:1|", "C[C@H](O)F", "enhanced stereo flattened"),
        ("C[C@H](O)[C@@H](F)Cl |a:1,&1:3|", "C[C@H](O)[C@@H](F)Cl", "enhanced stereo flattened"),
        ("CC |$R1;$|", "CC", "CXSMILES extension cut"),
        ("CC |$o1:1;$|", "CC", "CXSMILES extension cut"),
        ("CC |(0.5,1.2,;1.3,0.4,)|", "CC", "CXSMILES extension cut"),
        ("CC |c:1|", "CC", "CXSMILES extension cut"),
        ("CC", "CC", ""),
    ],
)
def test_an_extension_is_cut_and_enhanced_stereo_counted_apart(given: str, smiles: str, change: str) -> None:
    assert cleaning.cut_extension(given) == (smiles, change)


def test_standardising_twice_changes_nothing_more(pattern: str, tox21: object) -> None:
    given = [row.smiles for row in read_rows(str(tox21))][::40]
    once = [result for result in (cleaned(pattern, smiles) for smiles in given) if not result.reason]
    assert len(once) > 150
    assert any(result.changes for result in once)
    assert [cleaned(pattern, result.smiles)[::2] for result in once] == [(r.smiles, "") for r in once]


def test_named_datasets_and_their_recipes_stay_as_published(pattern: str) -> None:
    odd = "[2H]C(=O)[O-].[Na+]"
    for recipe in ("tox21", "moses", "moses-mini", "tomczak"):
        config = load_config(recipe).data
        settings = cleaning.settings(config.model_copy(update={"min_tokens": 1}), 128, pattern)
        assert cleaning.clean(odd, **settings)[2:] == ("", ())
        assert config.min_token_count == 1
    assert load_config(None, options={"data.source": "x.csv"}).data.min_token_count == 5
    assert load_config("tox21", ["data.charges=neutralise"]).data.charges == "neutralise"


def test_an_element_that_is_no_symbol_is_refused() -> None:
    with pytest.raises(MolgenError, match=r"data\.elements"):
        load_config(None, ["data.elements=[C, carbon]"])
