"""The widget in a window of napari, as people use it: `make napari-test` runs this where there is no screen, too."""

import os
import sys
import time

import numpy as np
import pytest
from tests.web.conftest import LABELS

napari = pytest.importorskip("napari", reason="napari is not installed: pip install napari")
QtCore, QtTest, QtWidgets = (
    pytest.importorskip(f"qtpy.{module}", reason="there is no Qt: pip install PyQt6", exc_type=ImportError)
    for module in ("QtCore", "QtTest", "QtWidgets")
)
QPoint, Qt, QTest = QtCore.QPoint, QtCore.Qt, QtTest.QTest
QApplication, QPushButton = QtWidgets.QApplication, QtWidgets.QPushButton
if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    pytest.skip("there is no screen: apt-get install xvfb, and make napari-test", allow_module_level=True)


@pytest.fixture
def window():
    window = napari.Viewer()
    window.window.resize(1200, 800)
    yield window
    window.close()
    QApplication.processEvents()


def until(condition, seconds=60):
    begun = time.monotonic()
    while not condition():
        QApplication.processEvents()
        assert time.monotonic() < begun + seconds
        time.sleep(0.01)  # for the server


def button(panel, text):
    return next(one for one in panel.findChildren(QPushButton) if one.text() == text)


def docked(window):
    from attractor.napari.panel import Panel

    panel = Panel(window)
    window.window.add_dock_widget(panel, name="attractor")
    return panel


@pytest.fixture
def panel(window, address):
    panel = docked(window)
    panel.project.setText(address)
    button(panel, "Open").click()
    until(lambda: panel.bench.client is not None)
    panel.bench.show("a")
    until(lambda: panel.bench.current is not None)
    return panel


def place(window, row, column):
    """Where a pixel of the image is on the canvas."""
    canvas = window.window._qt_viewer.canvas
    node = canvas.layer_to_visual[window.layers["a"]].node
    x, y, _, w = node.get_transform("visual", "canvas").map([column + 0.5, row + 0.5, 0, 1])
    return QPoint(round(x / w), round(y / w))


def drag(window, start, end):
    native = window.window._qt_viewer.canvas.native
    start, end = place(window, *start), place(window, *end)
    QTest.mousePress(native, Qt.LeftButton, pos=start)
    for part in np.linspace(0, 1, 10):
        QTest.mouseMove(native, start + (end - start) * part)
        QApplication.processEvents()
    QTest.mouseRelease(native, Qt.LeftButton, pos=end)


def test_nothing_can_be_pressed_before_a_session_is_open(window):
    panel = docked(window)
    assert not panel.correct.isEnabled()
    assert panel.words.text() == "No session is open."
    assert panel.model.currentText() == "nuclei"


def test_the_mouse_splits_merges_and_paints_and_ctrl_z_takes_back(panel, window, session):
    things = session.canvas("a").things
    before = dict(things)
    assert [panel.images.itemText(k) for k in range(panel.images.count())] == ["a", "b", "c d"]
    button(panel, "Split").click()
    QApplication.processEvents()
    drag(window, (35, 40), (35, 76))
    until(lambda: len(window.layers) == 3)
    assert set(things) == {1, 2, 3, 4}
    button(panel, "Merge").click()
    QApplication.processEvents()
    drag(window, (8, 8), (35, 20))
    until(lambda: len(window.layers) == 3)
    assert set(things) == {1, 3, 4}
    found = panel.bench.current.found
    found.mode, found.selected_label, found.brush_size = "paint", 1, 4
    drag(window, (50, 5), (50, 30))
    until(lambda: (session.canvas("a").labels[50] == 1).sum() > 20)
    native = window.window._qt_viewer.canvas.native
    for _ in range(3):
        QTest.keyClick(native, Qt.Key_Z, Qt.ControlModifier)
    assert session.canvas("a").things == before
    np.testing.assert_array_equal(found.data, LABELS)


def test_buttons_delete_set_a_class_accept_and_undo(panel, session):
    current = panel.bench.current
    current.found.selected_label = 2
    panel.classes.setCurrentText("debris")
    button(panel, "Set class").click()
    assert session.canvas("a").things[2].class_number == 2
    button(panel, "Object right").click()
    button(panel, "View right").click()
    button(panel, "Image right").click()
    assert session.canvas("a").reviewed.all()
    button(panel, "Delete").click()
    assert set(session.canvas("a").things) == {1, 3}
    button(panel, "Undo").click()
    button(panel, "Undo").click()
    button(panel, "Redo").click()
    assert set(session.canvas("a").things) == {1, 2, 3}
    button(panel, "Train").click()
    until(lambda: panel.bench.job is not None and panel.bench.job["state"] == "failed")
    until(lambda: "training needs 3" in panel.words.text())


def test_closing_the_window_ends_the_server(folder):
    window = napari.Viewer()
    panel = docked(window)
    panel.project.setText(str(folder))
    button(panel, "Open").click()
    until(lambda: panel.bench.client is not None)
    server = panel.bench.client._server
    window.close()
    until(lambda: server.poll() is not None)
