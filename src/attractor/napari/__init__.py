"""The plug-in for napari: segment a layer, correct it with napari's tools, train on it; see docs/napari.md.

What computes is `attractor serve`, a process of its own: torch is never in napari's process, where it could freeze the
window, and where it cannot even be loaded after Qt on Windows. `client` speaks to that server, and needs no napari;
`planes` says which pixels of a layer are taken; `correction` keeps layers and session equal; `files` reads and writes
files; `panel` is the widget, and alone in needing Qt.

The session is the truth. A layer that was changed, by whatever tool, is compared with what the session last said, and
what differs is sent as an operation; what the session then says is put into the layer.
"""
