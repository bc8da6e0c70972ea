"""The widget: a session, the image that is corrected, and training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from attractor.napari.bench import Bench
from attractor.napari.client import ENDED
from attractor.napari.correction import Correction
from attractor.session.models import models_of_images

if TYPE_CHECKING:
    from napari.viewer import Viewer

TICK = 100  # milliseconds between two looks at what has come
MERGE, SPLIT = "draw a line through what belongs together", "draw a line across an object"


class Panel(QWidget):
    """Segment the current layer, correct it, train."""

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        """Begin without a session."""
        super().__init__(parent)
        self.viewer, self.bench = napari_viewer, Bench(napari_viewer)
        layout = QVBoxLayout(self)
        for group in (self._opening(), self._images(), self._correcting(), self._training()):
            layout.addWidget(group)
        self.words = QLabel()
        self.words.setWordWrap(True)
        self.bar = QProgressBar()
        self.stop = _button("Cancel", self.bench.cancel, "End the segmentation or training that runs")
        layout.addWidget(self.words)
        layout.addLayout(_row(self.bar, self.stop))
        layout.addStretch()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self.tick)
        self._timer.start(TICK)
        self.destroyed.connect(partial(_close, self.bench))  # a method of the widget would not be called any more
        self._refresh()

    # ----------------------------------------------------------------------- parts

    def _opening(self) -> QGroupBox:
        self.project = QLineEdit()
        self.project.setPlaceholderText("a folder, or the address of a server")
        self.project.returnPressed.connect(self._open)
        self.model = QComboBox()
        self.model.setEditable(True)
        self.model.addItems(models_of_images())
        self.model.setCurrentText("nuclei")
        self.model.setToolTip("The model of a new session: one that comes with attractor, or the path of your own")
        self.who = QLineEdit("napari")
        self.who.setToolTip("Is noted with everything you do; undo takes back what was done under this name")
        group, form = QGroupBox("Session"), QFormLayout()
        form.addRow("Folder", _row(self.project, _button("…", self._browse, "Choose a folder")))
        form.addRow("Model", self.model)
        form.addRow("Your name", self.who)
        form.addRow(_button("Open", self._open, "Open the session, or begin one where there is none"))
        group.setLayout(form)
        return group

    def _images(self) -> QGroupBox:
        self.images = QComboBox()
        self.images.textActivated.connect(self.bench.show)
        self.images.setToolTip("Show an image of the session")
        self.segment = _button(
            "Segment the current layer", self._segment, "Put what is shown of the image layer into the session"
        )
        self.group, form = QGroupBox("Image"), QFormLayout()
        form.addRow(self.segment)
        form.addRow("In the session", self.images)
        self.group.setLayout(form)
        return self.group

    def _correcting(self) -> QGroupBox:
        self.classes = QComboBox()
        self.classes.currentIndexChanged.connect(lambda index: self.bench.paint_class(max(index, 0) + 1))
        self.classes.setToolTip("Of what you paint next")
        self.correct, form, grid = QGroupBox("Correct"), QFormLayout(), QGridLayout()
        buttons = (
            ("Merge", lambda one: one.draw_line(one.merge_along, MERGE), "Draw a line through what is one object"),
            ("Split", lambda one: one.draw_line(one.split_along, SPLIT), "Draw a line across an object"),
            ("Delete", lambda one: one.delete(one.found.selected_label), "Remove the selected object"),
            ("Undo", Correction.undo, "Take back what you did last (Ctrl+Z)"),
            ("Redo", Correction.redo, "Do it again (Ctrl+Shift+Z)"),
            ("Set class", lambda one: one.set_class(one.found.selected_label, self.bench.class_number), "Of the label"),
            ("Object right", lambda one: one.accept([one.found.selected_label]), "Accept the selected object"),
            ("View right", lambda one: one.accept(box=one.in_view()), "Accept all objects that are wholly in view"),
            ("Image right", Correction.accept, "Accept everything in this image"),
        )
        for number, (title, act, hint) in enumerate(buttons):
            grid.addWidget(_button(title, partial(self._with_current, act), hint), *divmod(number, 3))
        form.addRow("Class", self.classes)
        form.addRow(grid)
        self.correct.setLayout(form)
        return self.correct

    def _training(self) -> QGroupBox:
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 24 * 60)
        self.minutes.setDecimals(1)
        self.minutes.setValue(10)
        self.minutes.setSuffix(" minutes")
        self.train, form = QGroupBox("Train"), QFormLayout()
        button = _button(
            "Train", lambda: self.bench.train(self.minutes.value()), "On what was reviewed; the better model is used"
        )
        form.addRow(_row(self.minutes, button))
        self.train.setLayout(form)
        return self.train

    # --------------------------------------------------------------------- actions

    def _browse(self) -> None:
        if folder := QFileDialog.getExistingDirectory(self, "Folder of a session"):
            self.project.setText(folder)
            self._open()

    def _open(self) -> None:
        self.bench.open(
            self.project.text().strip() or "project", model=self.model.currentText(), who=self.who.text() or "napari"
        )
        self._refresh()

    def _segment(self) -> None:
        active, current = self.viewer.layers.selection.active, self.bench.current
        is_ours = current is not None and active in (current.found, current.reviewed)
        self.bench.segment(current.image if current is not None and is_ours else active)
        self._refresh()

    def _with_current(self, act: Callable[[Correction], Any]) -> None:
        if (current := self.bench.current) is not None:
            act(current)

    # ------------------------------------------------------------------- what is shown

    def tick(self) -> None:
        """Take over what has come meanwhile."""
        if self.bench.tick():
            self._refresh()

    def _refresh(self) -> None:
        session, job = self.bench.session, self.bench.job
        names, classes = [image["image"] for image in session.get("images", ())], session.get("classes", ())
        _fill(self.images, names)
        _fill(self.classes, classes)
        for part in (self.group, self.correct, self.train):
            part.setEnabled(bool(session))
        runs = job is not None and job["state"] not in ENDED
        self.words.setText(self.bench.words)
        self.bar.setVisible(runs or bool(self.bench.doing))
        self.bar.setRange(0, 100 if job is not None and job["progress"] else 0)  # without an end, it moves to and fro
        self.bar.setValue(round(100 * job["progress"]) if job is not None else 0)
        self.stop.setVisible(runs)


def _close(bench: Bench, _: object = None) -> None:
    bench.close()


def _button(title: str, act: Callable[[], Any], hint: str) -> QPushButton:
    button = QPushButton(title)
    button.setToolTip(hint)
    button.clicked.connect(lambda checked: act())
    return button


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)
    return row


def _fill(box: QComboBox, names: Any) -> None:
    """Offer names, and leave the choice as it is, if it is among them."""
    if [box.itemText(index) for index in range(box.count())] != list(names):
        chosen = box.currentText()
        box.clear()
        box.addItems(list(names))
        box.setCurrentText(chosen)
