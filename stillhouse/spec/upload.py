"""An upload: what a caller may say about a file, what the reading process is told, and what it answers."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from stillhouse.spec.base import Contract, LaxTuple, Seed, View
from stillhouse.spec.errors import (
    FieldError,
    InvalidData,
    ServerFault,
    StillhouseError,
    TooLarge,
    UnsupportedMedia,
    error_classes,
)
from stillhouse.spec.facts import StoredDataset
from stillhouse.spec.limits import Limits

UploadFormat = Literal["csv", "jsonl", "parquet", "npz", "zip"]
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
SplitShare = Annotated[float, Field(ge=0, lt=1)]

LABEL_NAMES = ("label", "target", "class", "y")
"""Columns looked for, in this order, when the caller does not name the label column."""


class IngestOptions(Contract):
    """How to read an upload: the query parameters of `POST /v1/datasets`."""

    # Query parameters arrive as text, so "0.2" must be taken for a number here; the bounds stay.
    model_config = ConfigDict(strict=False)

    label: ColumnName | None = None
    """Column of a table that holds the class. None: the column named `label`, `target`, `class` or `y`."""
    split_column: ColumnName | None = None
    """Column of a table that says train, validation (or val, valid) or test. None: splits are made here."""
    ignore: Annotated[tuple[ColumnName, ...], LaxTuple, Field(max_length=10_000)] = ()
    """Columns of a table to leave out."""
    validation: SplitShare = 0.15
    """Share of the rows that becomes the validation split, when the upload does not say. 0: none."""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the rows that becomes the test split, when the upload does not say. Train is the rest."""
    seed: Seed = 0
    """Start of the random stream that makes the splits. The same seed gives the same splits."""
    bad_rows: Literal["reject", "drop"] = "reject"
    """reject: one bad row refuses the upload. drop: bad rows are left out and listed, up to half of all."""
    unlabelled: Literal["reject", "keep"] = "reject"
    """reject: a row without a label is a bad row. keep: a training row without one stays, to learn from the teacher's
    outputs alone. No label is an empty cell, NaN, in JSON lines also null or no key, -1 in the y of an .npz or of
    Parquet images, or a folder named `unlabelled`."""
    image_size: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """Side in pixels of the square every image becomes. None: kept when all are equal, else the median."""

    @model_validator(mode="after")
    def _train_has_rows(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError("test: validation and test together must stay below 1, so that train has rows")
        return self

    @model_validator(mode="after")
    def _each_column_has_one_use(self) -> Self:
        if self.label is not None and self.label == self.split_column:
            raise ValueError(f"split_column: column {self.label!r} cannot be both label and split_column")
        for use, name in (("label", self.label), ("split_column", self.split_column)):
            if name in self.ignore:
                raise ValueError(f"ignore: column {name!r} is {use} and cannot be ignored")
        return self


class IngestRequest(Contract):
    """One file to read, for the process that reads it. Made by the service, never by a caller."""

    source: str | None = None
    """Path of the uploaded bytes."""
    builtin: Literal["digits"] | None = None
    """Instead of a source: data that comes with the service."""
    format: UploadFormat | Literal["auto"] = "auto"
    """What the caller says the bytes are; checked against the bytes."""
    output: str
    """Path of the stored dataset to write. It appears whole or not at all."""
    options: IngestOptions = IngestOptions()
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.source is None) == (self.builtin is None):
            raise ValueError("give exactly one of source and builtin")
        return self

    @property
    def partial(self) -> str:
        """Path the stored dataset has until it is complete."""
        return self.output + ".partial"


class StoredUpload(Contract):
    """A dataset was written."""

    format: UploadFormat | Literal["builtin"]
    """What the bytes turned out to be."""
    dataset: StoredDataset


class Refusal(View):
    """The upload was refused."""

    code: Literal["invalid_data", "too_large", "unsupported_media", "server_fault"]
    """The class of the error, as in `stillhouse.spec.errors`."""
    detail: str
    hint: str | None = None
    errors: list[FieldError] = Field(default_factory=list)

    @classmethod
    def of(cls, error: InvalidData | TooLarge | UnsupportedMedia | ServerFault) -> "Refusal":
        """The same error, to be written down."""
        fields = {
            "code": error.code,
            "detail": error.detail,
            "hint": error.hint,
            "errors": list(error.errors),
        }
        return cls.model_validate(fields)

    def error(self) -> StillhouseError:
        """The same error, to be raised."""
        return error_classes()[self.code](self.detail, hint=self.hint, errors=self.errors)


class IngestAnswer(View):
    """The one line the reading process prints: `ok` or `error`."""

    ok: StoredUpload | None = None
    error: Refusal | None = None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.ok is None) == (self.error is None):
            raise ValueError("an answer is either ok or error")
        return self


EXIT_OUT_OF_MEMORY = 12
"""Exit status of the reading process when it met its own memory limit."""

DATA_CODES: dict[str, str] = {
    # The file
    "empty_file": "The file has no content.",
    "unsupported_format": "The bytes are of a format that is not read.",
    "format_mismatch": "The bytes are not of the format that was declared.",
    "too_many_bytes": "The file, or what it unfolds to, is larger than the limit.",
    "too_many_rows": "There are more rows than the limit.",
    "unreadable": "The reading process broke off in the middle of the file.",
    "too_slow": "Reading took longer than the limit.",
    "too_much_memory": "Reading needs more memory than the limit.",
    # Options
    "option_does_not_apply": "The option does nothing for this format.",
    "over_limit": "The option is above a limit of the service.",
    "no_such_column": "An option names a column that is not there.",
    "no_label": "There is no label column, and none was named.",
    # CSV and JSON lines
    "not_utf8": "The text is not UTF-8.",
    "nul_byte": "The text has a NUL byte.",
    "line_too_long": "A line is longer than any table needs.",
    "bad_line_ends": "Lines end with a bare carriage return.",
    "bad_quotes": "A quote is not closed, or text follows a closing quote.",
    "no_header": "The first line does not name the columns.",
    "one_column": "The header has a single column.",
    "empty_header": "A column has no name.",
    "duplicate_header": "Two columns have the same name.",
    "ragged_row": "A row has more or fewer cells than the header.",
    "bad_json": "A line is not JSON.",
    "not_an_object": "A line of JSON is not an object.",
    "duplicate_key": "An object has a key more than once.",
    "nested_value": "A cell is a list or an object.",
    # Tables
    "too_many_columns": "There are more columns, or 0/1 inputs of categories, than the limit.",
    "no_rows": "There is no data row.",
    "no_features": "No column is left to learn from.",
    "empty_column": "A column has no value in any row.",
    "empty_cell": "A cell has no value.",
    "not_a_number": "A cell of a numeric column is text.",
    "not_finite": "A cell is NaN, infinite, or too large for 32-bit floats.",
    "too_many_categories": "A text column has more different values than the limit.",
    # Labels and splits
    "empty_label": "A row has no label.",
    "fractional_labels": "The labels are measurements, not classes.",
    "one_class": "There are fewer than two classes.",
    "too_many_classes": "There are more classes than the limit.",
    "bad_name": "A class, column or category name cannot be shown.",
    "bad_split": "A split value is none of train, validation, test.",
    "no_train_split": "No row belongs to the training split.",
    "class_too_small": "A class has too few different rows to be in every split.",
    "class_not_in_train": "A class has no training row.",
    # Parquet
    "corrupt_parquet": "The Parquet file is broken, not complete, or encrypted.",
    "several_image_columns": "More than one column holds images.",
    "unsupported_type": "A column or array has a type that is not read.",
    # Arrays
    "object_array": "An array holds Python objects, which are never unpickled.",
    "bad_shape": "An array has a shape that is not read.",
    "length_mismatch": "The arrays x and y have different numbers of rows.",
    "pixel_range": "Pixels are neither 0 to 255 nor fractions from 0 to 1.",
    "label_out_of_range": "A label is none of the named classes.",
    "duplicate_class": "Two classes have the same name.",
    "unclear_arrays": "The names of the arrays do not tell x and y apart.",
    # Archives
    "corrupt_archive": "The archive's directory is broken.",
    "too_many_members": "The archive has more members than the limit.",
    "compression_ratio": "The archive unfolds to suspiciously more than its size.",
    "unsafe_name": "A member's name could leave the folder it is unpacked to.",
    "special_member": "A member is a link or device.",
    "encrypted_member": "A member is encrypted.",
    "unsupported_compression": "A member is packed with a method that is not read.",
    "duplicate_member": "Two members have the same name.",
    "overlapping_members": "Two members share bytes.",
    "corrupt_member": "A member is broken, or unfolds to another size than it says.",
    "nested_archive": "There is an archive inside the archive.",
    # Images
    "misplaced_image": "An image stands in no class folder.",
    "unsupported_image": "An image is neither PNG nor JPEG.",
    "corrupt_image": "An image is broken or not complete.",
    "too_many_pixels": "An image has more pixels or bytes than the limit.",
    "several_frames": "An image is animated.",
    # Teachers
    "torchscript": "The file is a TorchScript program.",
    "missing_member": "The archive lacks a file the model needs.",
    "several_models": "The archive holds more than one model.",
    "corrupt_config": "A JSON file of the model is broken or contradicts the weights.",
    "custom_code": "The file names code of its own.",
    "quantised": "The weights are quantised.",
    "not_installed": "The library the format needs is not installed.",
    "unsafe_pickle": "The file asks for Python objects, which are never made from an upload.",
    "corrupt_tensors": "The weights are broken, not complete, or lie about their size.",
    "no_weights": "The checkpoint holds no tensors by name.",
    "no_architecture": "A checkpoint was uploaded without the name of its architecture.",
    "unknown_architecture": "There is no classifier of this name.",
    "too_many_parameters": "The network has more parameters than the limit.",
    "missing_tensors": "The network needs tensors the file does not have.",
    "unexpected_tensors": "The file has tensors the network has no place for.",
    "wrong_shapes": "Tensors have other shapes than the network's.",
    "wrong_types": "Tensors have other types than the network's.",
    "weights_not_finite": "The weights hold NaN or infinity.",
    "corrupt_graph": "The ONNX graph is broken or contradicts itself.",
    "external_data": "The ONNX graph keeps tensors outside the file, or outside its folder in a ZIP.",
    "custom_op": "The graph or program uses operators that are not run here.",
    "unsupported_op": "The graph uses a part of ONNX that no classifier needs.",
    "unsupported_opset": "The graph is of a version of ONNX that is not read.",
    "corrupt_program": "The torch.export program is broken or of another version.",
    "unsafe_expression": "A size in the program is more than arithmetic.",
    "unclear_input": "It cannot be told how rows go in.",
    "unclear_output": "It cannot be told where the scores of the classes come out.",
    "shape_misfit": "The stated shape contradicts the file.",
    "preprocessing_misfit": "The preprocessing contradicts itself or the network.",
    "no_preprocessing": "Nothing says how rows are prepared.",
    "failed_on_rows": "The network fails on random rows.",
    "wrong_inputs": "The network takes rows larger than any dataset has.",
    "wrong_outputs": "The network does not give rows × classes.",
    "outputs_not_finite": "The network gives NaN or infinity for random rows.",
    "random_outputs": "The network gives other outputs each time, or was exported in training mode.",
    "not_probabilities": "What is said to be probabilities does not sum to 1.",
    "wrong_classes": "More or fewer classes are named than the network has outputs.",
}
