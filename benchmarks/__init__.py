"""Speed and scale, measured against the plain forms that define what each method does.

Like the commands, a benchmark keeps the memory that it frees.
"""

from attractor.freed_memory import keep_freed_memory

keep_freed_memory()
