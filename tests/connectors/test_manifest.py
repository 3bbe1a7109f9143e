from __future__ import annotations

import csv
import io
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.columns import Columns
from connectors.manifest import Row, read_manifest
from ssl_core.errors import ConfigError, ImportRefusedError
from ssl_core.records import Task

DATA = Path(os.environ.get("READLOOP_DATA", "../shared/data"))
NAN = math.nan

BINARY = Columns("file", "patient", label="dx", positive="sick")
CLASSES = Columns("file", "patient", label="dx")
FINDINGS = Columns("file", "patient", findings_column="dx")
MASKS = Columns("file", "patient", masks=("dx",))
GOOD = "file,patient,dx\na.png,p1,sick\nb.png,p2,well\n"


@pytest.fixture
def read(tmp_path):
    def read(content: str | bytes, columns: Columns = BINARY):
        path = tmp_path / "manifest.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_manifest(path, columns)

    return read


@pytest.fixture
def refusal(read):
    def refusal(content: str | bytes, columns: Columns = BINARY) -> str:
        with pytest.raises(ImportRefusedError) as caught:
            read(content, columns)
        message = str(caught.value)
        assert message.isprintable()
        assert message.endswith((".", ")"))
        return message

    return refusal


def labels(manifest) -> list[list[float | None]]:
    """Labels with None for NaN, so that lists compare."""
    return [[None if math.isnan(v) else v for v in row.labels] for row in manifest.rows]


# --- what a good manifest says ---------------------------------------------------------------


def test_binary_rows_in_full(read):
    manifest = read(GOOD)
    assert manifest.task == Task("binary", ("sick",))
    assert manifest.rows == (
        Row(2, "a.png", "p1", (1.0,), None),
        Row(3, "b.png", "p2", (0.0,), None),
    )
    assert manifest.refusals == ()


def test_every_value_but_the_positive_one_is_negative(read):
    text = "file,patient,dx\na,1,virus\nb,2,normal\nc,3,bacteria\nd,4,\n"
    assert labels(read(text, replace(BINARY, positive="virus"))) == [[1], [0], [0], [None]]


@pytest.mark.parametrize("positive", ["1", "1.0", "01", "1e0"])
def test_numbers_compare_as_numbers_and_the_column_names_the_finding(read, positive):
    text = "file,patient,dx\na,1,1\nb,2,1.0\nc,3,0\nd,4,0.0\ne,5,nan\nf,6,NaN\n"
    manifest = read(text, replace(BINARY, positive=positive))
    assert manifest.task.findings == ("dx",)
    assert labels(manifest) == [[1], [1], [0], [0], [None], [None]]


def test_a_bare_yes_is_named_after_its_column(read):
    text = "file,patient,dx\na,1,True\nb,2,False\n"
    assert read(text, replace(BINARY, positive="True")).task.findings == ("dx",)


def test_classes_are_sorted_and_one_holds(read):
    manifest = read("file,patient,dx\na,1,nv\nb,2,mel\nc,3,bcc\nd,4,\n", CLASSES)
    assert manifest.task == Task("multi_class", ("bcc", "mel", "nv"))
    assert manifest.task.exclusive
    assert labels(manifest) == [[0, 0, 1], [0, 1, 0], [1, 0, 0], [None] * 3]


def test_unlisted_finding_is_negative_and_an_empty_cell_unknown(read):
    text = (
        "file,patient,dx\na,1,Mass | Effusion\nb,2,No Finding\nc,3,\nd,4,Effusion|Effusion\ne,5,|"
    )
    manifest = read(text, FINDINGS)
    assert manifest.task == Task("multi_label", ("Effusion", "Mass"))
    assert labels(manifest) == [[1, 1], [0, 0], [None, None], [1, 0], [None, None]]


def test_named_findings_keep_their_order_and_others_make_them_negative(read):
    text = "file,patient,dx\na,1,Mass|Edema\nb,2,Hernia\nc,3,No Finding|Hernia\n"
    manifest = read(text, replace(FINDINGS, findings=("Mass", "Edema")))
    assert manifest.task.findings == ("Mass", "Edema")
    assert labels(manifest) == [[1, 1], [0, 0], [0, 0]]


def test_negative_word_beside_a_finding_is_a_contradiction(read):
    manifest = read("file,patient,dx\na,1,Mass\nb,2,Mass|No Finding\n", FINDINGS)
    assert [row.path for row in manifest.rows] == ["a"]
    [(line, path, reason)] = manifest.refusals
    assert (line, path) == (3, "b")
    assert "'No Finding' beside a finding" in reason


def test_other_separator_and_negative_word(read):
    columns = replace(FINDINGS, separator=";", negative="normal")
    assert labels(read("file,patient,dx\na,1,x;y\nb,2,normal\nc,3,y\n", columns)) == [
        [1, 1],
        [0, 0],
        [0, 1],
    ]


def test_a_mask_is_present_and_a_blank_cell_unknown(read):
    text = "file,patient,outline\na.png,1,masks\\a.png\nb.png,2,\nc.png,3,nan\n"
    manifest = read(text, Columns("file", "patient", masks=("outline",)))
    assert manifest.task == Task("segmentation", ("outline",))
    assert [row.masks for row in manifest.rows] == [("masks/a.png",), (None,), (None,)]
    assert labels(manifest) == [[1], [None], [None]]


def test_every_mask_column_is_a_finding_of_that_name(read):
    text = "file,lung,patient,nodule\na,l/a.png,1,n/a.png\nb,l/b.png,2,\nc,,3,\n"
    manifest = read(text, Columns("file", "patient", masks=("nodule", "lung")))
    assert manifest.task == Task("segmentation", ("nodule", "lung"))
    assert [row.masks for row in manifest.rows] == [
        ("n/a.png", "l/a.png"),
        (None, "l/b.png"),
        (None, None),
    ]
    assert labels(manifest) == [[1, 1], [None, 1], [None, None]]


def test_mask_columns_can_be_renamed_and_their_cells_made_paths(read):
    columns = Columns("file", "patient", masks=("file",), findings=("lesion",))
    manifest = read("file,patient\na,1\n", replace(columns, mask_template="masks/{}.png"))
    assert manifest.task == Task("segmentation", ("lesion",))
    assert [(row.path, row.masks) for row in manifest.rows] == [("a", ("masks/a.png",))]


def test_split_is_passed_on_as_it_is(read):
    text = "file,patient,dx,fold\na,1,sick,Train\nb,2,well,\n"
    assert [row.split for row in read(text, replace(BINARY, split="fold")).rows] == ["Train", ""]


def test_without_a_patient_column_there_is_no_group(read):
    assert [row.group for row in read(GOOD, replace(BINARY, group=None)).rows] == [None, None]


def test_template_makes_paths_of_ids(read):
    columns = replace(BINARY, path_template="images/{}.jpg")
    assert [row.path for row in read(GOOD, columns).rows] == [
        "images/a.png.jpg",
        "images/b.png.jpg",
    ]


def test_template_is_no_format_string(read):
    text = "file,patient,dx\n{0.__class__},1,sick\nb,2,well\n"
    columns = replace(BINARY, path_template="x/{}")
    assert read(text, columns).rows[0].path == "x/{0.__class__}"


# --- the shapes that CSV comes in ------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\r").encode(),
        GOOD.rstrip().encode(),
        GOOD.replace(",", " , ").encode(),
        b'"file","patient","dx"\n"a.png","p1","sick"\n"b.png","p2","well"\n',
    ],
    ids=["bom", "crlf", "cr", "no last newline", "blanks", "quoted"],
)
def test_the_same_rows_however_they_are_written(read, content):
    assert read(content) == read(GOOD)


def test_lines_count_blank_lines_and_newlines_in_quotes(read):
    text = 'file,note,patient,dx\n\na,"one, two\nthree",1,sick\n,,,\nb,"say ""hi""",2,well\n'
    assert [(row.line, row.path) for row in read(text).rows] == [(3, "a"), (6, "b")]


def test_quoted_commas_stay_in_their_cell(read):
    manifest = read('file,patient,dx\n"a,1.png","Doe, J",sick\nb,2,well\n')
    assert (manifest.rows[0].path, manifest.rows[0].group) == ("a,1.png", "Doe, J")


def test_names_with_accents_stay_as_they_are(read):
    manifest = read("file,patient,dx\nä/é.png,Müller,kränk\nb,2,well\n", CLASSES)
    assert manifest.rows[0].group == "Müller"
    assert manifest.task.findings == ("kränk", "well")


def test_ragged_rows_are_refused_by_line(read):
    manifest = read(GOOD + "c.png,p3\nd.png,p4,sick,extra\ne.png,p5,well\n")
    assert [row.line for row in manifest.rows] == [2, 3, 6]
    assert manifest.refusals == (
        (4, "", "it has 2 cells where the header has 3"),
        (5, "", "it has 4 cells where the header has 3"),
    )


def test_empty_path_or_patient_is_refused_by_line(read):
    manifest = read(GOOD + ",p3,sick\nd.png,,sick\n")
    assert [(line, path) for line, path, _ in manifest.refusals] == [(4, ""), (5, "d.png")]
    assert "'file' is empty" in manifest.refusals[0][2]
    assert "'patient' (the patient) is empty" in manifest.refusals[1][2]


def test_many_rows_share_the_meaning_of_few_cells(read):
    body = "".join(f"{i}.png,p{i // 3},{'sick' if i % 5 == 0 else 'well'}\n" for i in range(50_000))
    manifest = read("file,patient,dx\n" + body)
    assert len(manifest.rows) == 50_000
    assert sum(row.labels[0] for row in manifest.rows) == 10_000
    assert manifest.rows[-1].line == 50_001


CELL = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters='\\/.:"') | st.just(" "),
    min_size=1,
    max_size=8,
).filter(lambda text: text.strip())


@given(st.lists(st.tuples(CELL, CELL, st.sampled_from(["sick", "well", ""])), max_size=20))
def test_what_csv_wrote_comes_back(tmp_path_factory, rows):
    rows = [("a", "p", "sick"), *rows, ("b", "q", "well")]
    text = io.StringIO()
    csv.writer(text).writerows([("file", "patient", "dx"), *rows])
    path = tmp_path_factory.mktemp("csv") / "m.csv"
    path.write_bytes(text.getvalue().encode())
    manifest = read_manifest(path, BINARY)
    assert [(row.path, row.group) for row in manifest.rows] == [
        (image.strip(), group.strip()) for image, group, _ in rows
    ]
    expected = {"sick": [1], "well": [0], "": [None]}
    assert labels(manifest) == [expected[cell] for _, _, cell in rows]


# --- manifests that cannot be used -----------------------------------------------------------


def test_missing_folder_and_empty_file(read, refusal, tmp_path):
    with pytest.raises(ImportRefusedError, match="cannot be read"):
        read_manifest(tmp_path / "nowhere.csv", BINARY)
    with pytest.raises(ImportRefusedError, match="cannot be read"):
        read_manifest(tmp_path, BINARY)
    assert "is empty" in refusal("")
    assert "is empty" in refusal("\n\n,,\n")
    assert "no usable row" in refusal("file,patient,dx\n\n")


def test_all_rows_refused_names_the_first(refusal):
    assert "line 2: it has 1 cells" in refusal("file,patient,dx\na\nb\n")


def test_encodings_that_are_not_utf8(refusal):
    message = refusal(GOOD.encode() + "c.png,Müller,sick\n".encode("latin-1"))
    assert "not UTF-8" in message
    assert "line 4" in message
    assert "Latin-1" in message
    assert "NUL" in refusal(GOOD.encode("utf-16"))
    assert "NUL" in refusal(GOOD.encode() + b"c\0.png,1,sick\n")


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_wrong_delimiter_says_so(refusal, mark):
    message = refusal(GOOD.replace(",", mark))
    assert "one column" in message
    assert repr(mark) in message


def test_missing_column_names_the_closest_and_the_others(refusal):
    message = refusal("file,Patient_ID,dx\na,1,sick\n", replace(BINARY, group="patient_id"))
    assert "no column 'patient_id' (did you mean 'Patient_ID'?)" in message
    assert "'file', 'Patient_ID', 'dx'" in message
    assert "did you mean" not in refusal(
        "file,patient,dx\na,1,sick\n", Columns("file", "patient", masks=("zz",))
    )


def test_repeated_header_matters_only_where_it_is_used(read, refusal):
    text = "file,patient,dx,note,note\na,1,sick,,\nb,2,well,,\n"
    assert len(read(text).rows) == 2
    assert "2 columns named 'note'" in refusal(text, replace(BINARY, label="note"))


def test_positive_value_that_never_occurs(refusal):
    message = refusal(GOOD, replace(BINARY, positive="Sick"))
    assert "never holds the positive value 'Sick' (did you mean 'sick'?)" in message
    assert "'sick', 'well'" in message


def test_one_class_alone(refusal):
    text = "file,patient,dx\na,1,sick\nb,2,sick\nc,3,\n"
    assert "holds 'sick' alone" in refusal(text)
    assert "one class 'sick'" in refusal(text, CLASSES)


@pytest.mark.parametrize("columns", [BINARY, CLASSES, FINDINGS])
def test_a_column_without_any_label(refusal, columns):
    assert "'dx' is empty in every row" in refusal("file,patient,dx\na,1,\nb,2,nan\n", columns)


def test_no_mask_at_all_is_refused_unless_it_is_said(read, refusal):
    text = "file,patient,dx\na,1,\nb,2,nan\n"
    assert "No row names a mask ('dx')" in refusal(text, MASKS)
    asked = Columns("file", "patient", findings=("lung", "nodule"), unlabeled="segmentation")
    manifest = read(text, asked)
    assert manifest.task == Task("segmentation", ("lung", "nodule"))
    assert labels(manifest) == [[None, None]] * 2


def test_too_many_classes_hint_at_the_wrong_column(read, refusal):
    body = "".join(f"{i}.png,p,c{i}\n" for i in range(101))
    assert "101 classes; is it the right column?" in refusal("file,patient,dx\n" + body, CLASSES)
    assert "separator right?" in refusal("file,patient,dx\n" + body, FINDINGS)
    hundred = "".join(body.splitlines(keepends=True)[:100])
    assert len(read("file,patient,dx\n" + hundred, CLASSES).task.findings) == 100


def test_findings_that_are_not_there(refusal):
    text = "file,patient,dx\na,1,Mass|Edema\nb,2,No Finding\n"
    message = refusal(text, replace(FINDINGS, findings=("Mass", "edma")))
    assert "never lists the finding 'edma' (did you mean 'Edema'?)" in message
    nothing = "file,patient,dx\na,1,No Finding\n"
    assert "lists no finding" in refusal(nothing, FINDINGS)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        (Columns("file", "patient"), "where the labels are"),
        (replace(BINARY, findings_column="dx"), "choose one"),
        (replace(FINDINGS, positive="x"), "needs a label column"),
        (replace(BINARY, findings=("a",)), "needs a findings or mask column"),
        (replace(FINDINGS, findings=("a", "a")), "repeated"),
        (replace(FINDINGS, findings=("a", "")), "empty"),
        (replace(FINDINGS, findings=("No Finding",)), "also named as a finding"),
        (replace(FINDINGS, separator=""), "separator"),
        (replace(BINARY, path_template="images/x.jpg"), "template"),
        (replace(BINARY, path_template="{}/{}"), "path template"),
        (replace(BINARY, mask_template="masks"), "mask template"),
        (replace(BINARY, masks=("dx",)), "a task of their own"),
        (replace(FINDINGS, masks=("dx",)), "a task of their own"),
        (replace(MASKS, masks=("dx", "dx")), "repeated"),
        (replace(MASKS, masks=("dx", "")), "empty"),
        (replace(MASKS, findings=("a", "b")), "2 findings were named for 1 mask columns"),
        (replace(MASKS, unlabeled="segmentation"), "contradict"),
        (Columns("file", "patient", unlabeled="segmentation"), "0 were given"),
    ],
)
def test_options_that_contradict_each_other(read, columns, word):
    with pytest.raises(ConfigError, match=word):
        read(GOOD, columns)


# --- hostile manifests -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "../a.png",
        "x/../../a.png",
        "x/../a.png",
        "..",
        "/etc/passwd",
        "C:/a.png",
        "C:a.png",
        "\\a.png",
        "..\\a.png",
        "\\\\server\\share\\a.png",
    ],
)
def test_paths_that_leave_the_folder_stop_the_import(refusal, path):
    message = refusal(GOOD + f"{path},p3,sick\n")
    assert "leave the image folder" in message
    assert f"line 4: {path!r}" in message
    masked = GOOD.replace("\n", ",m\n", 1).replace("sick", "sick,").replace("well", f"well,{path}")
    columns = Columns("file", "patient", masks=("m",))
    message = refusal(masked, columns)
    assert "leave the image folder" in message
    assert f"line 3: {path!r}" in message  # the mask, and not its image


def test_a_template_cannot_be_climbed_out_of(refusal):
    columns = replace(BINARY, path_template="images/{}.png")
    assert "leave the image folder" in refusal(GOOD + "../../x,p3,sick\n", columns)
    columns = replace(BINARY, path_template="../{}")
    assert "line 2: '../a.png', line 3: '../b.png'" in refusal(GOOD, columns)


def test_many_bad_paths_make_a_short_message(refusal):
    message = refusal("file,patient,dx\n" + "../a,1,sick\n" * 500)
    assert "and 490 more" in message
    assert len(message) < 1000


def test_paths_that_only_look_odd_are_taken(read):
    odd = ["..a/b..png", "./a.png", "x//y.png", "=cmd|'/c calc'!A1", "-rf", "~root/a.png", "$(x)"]
    text = "file,patient,dx\n" + "".join(f"{path},1,sick\n" for path in odd) + "b,2,well\n"
    taken = ["..a/b..png", "a.png", "x/y.png", *odd[3:], "b"]
    assert [row.path for row in read(text).rows] == taken


def test_formulas_are_text(read):
    manifest = read('file,patient,dx\na,=1+1,"=HYPERLINK(""http://x"")"\nb,@x,+1\n', CLASSES)
    assert manifest.rows[0].group == "=1+1"
    assert manifest.task.findings == ("+1", '=HYPERLINK("http://x")')


@pytest.mark.parametrize("nasty", ["\x1b[2J", "a\x07", "a\u202eb", "a\rb", "a\nb", "\x9b31m"])
def test_unprintable_characters_are_refused_and_never_printed(read, nasty):
    rows = f'"x{nasty}y",p3,sick\nd,"x{nasty}y",sick\ne,p5,"x{nasty}y"\n'
    manifest = read(GOOD + rows, CLASSES)
    assert manifest.task.findings == ("sick", "well")
    assert len(manifest.refusals) == 3
    for _, path, reason in manifest.refusals:
        assert path.isprintable()
        assert reason.isprintable()
        assert "unprintable" in reason


def test_escapes_in_headers_and_values_do_not_reach_the_message(refusal):
    refusal("\x1b[31mfile,patient,dx\na,1,sick\n")
    refusal("file\x1b;patient\n")
    refusal("file,patient,dx\n/\x1b[31m,1,sick\n")


def test_unprintable_characters_in_other_columns_do_not_matter(read):
    assert len(read('file,note,patient,dx\na,"x\x1b\n",1,sick\nb,,2,well\n').rows) == 2


def test_a_huge_cell_is_refused_with_its_line(refusal):
    message = refusal(GOOD.encode() + b"c.png,p3," + b"x" * 10_000_000 + b"\n")
    assert "line 4" in message
    assert len(message) < 500


def test_an_open_quote_does_not_swallow_the_rest(refusal):
    message = refusal('file,patient,dx\na,1,sick\nb,"2,well\nc,3,sick\nd,4,well\n')
    assert "line 3" in message
    assert "quote" in message


def test_long_values_are_cut_in_messages(refusal):
    text = "file,patient,dx\n" + "".join(f"{i},p,{'v' * 5000}{i}\n" for i in range(50))
    assert len(refusal(text)) < 2500


# --- real manifests --------------------------------------------------------------------------


def real(name: str, columns: Columns):
    if not (DATA / name / "manifest.csv").exists():
        pytest.skip(f"no {name} under READLOOP_DATA ({DATA})")
    return read_manifest(DATA / name / "manifest.csv", columns)


def test_kermany():
    columns = Columns("path", "patient_id", label="label", positive="PNEUMONIA", split="split")
    manifest = real("kermany", columns)
    assert manifest.task == Task("binary", ("PNEUMONIA",))
    assert (len(manifest.rows), manifest.refusals) == (5856, ())
    assert sum(row.labels[0] for row in manifest.rows) == 4273
    assert {row.split for row in manifest.rows} == {"train", "val", "test"}


def test_nih():
    manifest = real("nih", Columns("file", "patient_id", findings_column="finding_labels"))
    assert len(manifest.task.findings) == 14
    columns = zip(*(row.labels for row in manifest.rows), strict=True)
    totals = dict(zip(manifest.task.findings, map(sum, columns), strict=True))
    assert (len(manifest.rows), totals["Pneumonia"], totals["Hernia"]) == (1000, 500, 3)


def test_ham10000():
    columns = Columns("image_id", "lesion_id", label="dx", path_template="images/{}.jpg")
    manifest = real("ham10000", columns)
    assert manifest.task.findings == ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
    assert all(sum(row.labels) == 1 for row in manifest.rows)
    assert all((DATA / "ham10000" / row.path).exists() for row in manifest.rows[:20])


def test_lungseg():
    manifest = real("lungseg", Columns("image", "patientid", masks=("mask",)))
    assert manifest.task == Task("segmentation", ("mask",))
    assert len(manifest.rows) == 322
    assert all((DATA / "lungseg" / row.masks[0]).exists() for row in manifest.rows[:20])
