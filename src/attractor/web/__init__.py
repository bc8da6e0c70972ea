"""The page on which people look at objects and correct them, and the HTTP API that it uses.

`app` answers requests, `security` says which ones, `tiles` cuts images and labels into pieces, and `jobs` runs
segmentation and training in processes of their own (`worker`), so that torch is never in the process that answers.
"""
